"""What a person has put together on the page: one folder per project, every state of it kept, so that each step can be undone.

A project is an immutable record; a change makes the next one. Files that people hand over are copied into the folder under names of
their own and never changed, so that an earlier state finds its files again.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lora_edit.errors import RunError
from lora_edit.masks.settings import MaskShape
from lora_edit.run import write_atomically

MAX_HISTORY = 200


class Mark(BaseModel):
    """Something drawn on a frame, in source pixels: a point on or off an object, a box, or a stroke of a brush of width `width` that adds
    to the mask or takes away from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    kind: Literal["point", "not-point", "box", "paint", "erase"]
    frame: int
    object: str = "1"
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0
    stroke: tuple[tuple[float, float], ...] = ()


class Later(BaseModel):
    """An edited later frame, to learn from or to show as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    frame: int
    file: str
    kind: Literal["reference", "anchor"] = "reference"


class Project(BaseModel):
    """One state of a project. Files are named relative to its folder; `grown` is left, top, right, bottom in pixels;
    objects `left_out` are taken out of the region; `smooth` counts frames. Frame numbers count from `start`; marks and edited frames
    outside of the range are kept and ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    clip: str = ""
    clip_name: str = ""
    start: int = 0
    frames: int | None = None
    marks: tuple[Mark, ...] = ()
    imported: str = ""
    imported_use: Literal["instead", "add", "subtract"] = "instead"
    left_out: tuple[str, ...] = ()
    grown: tuple[int, int, int, int] = (0, 0, 0, 0)
    inverted: bool = False
    smooth: int = 5
    bridged: bool = False
    shape: MaskShape = "box"
    expand: float = 0.1
    feather: float = 0.02
    first_frame: str = ""
    later: tuple[Later, ...] = ()
    model: str = "tiny"
    preset: Literal["standard", "fast", "low-vram"] = "standard"
    prompt: str = ""
    seed: int = 0
    assignments: tuple[str, ...] = ()

    def later_of(self, num_frames: int) -> tuple[Later, ...]:
        """The edited later frames within a range of that length."""
        return tuple(each for each in self.later if 0 < each.frame < num_frames)

    def having(self, **changes: Any) -> Project:
        """The state with these changes, checked."""
        return Project.model_validate({**self.model_dump(), **changes})


class Made(BaseModel):
    """One result: its file and run folder (relative), the project's state that it was made from (older results don't know), and what there
    is to say about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    run: str
    seed: int
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    again: bool = False
    state: Project | None = None


class Unfinished(BaseModel):
    """An edit that was begun and has not come to its end: the project's state that it is of, and how far it was when last heard of."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: Project
    stage: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Folder:
    """A project's place on disk. A page may ask for two changes at once: a field that is left, and the button that is pressed then."""

    path: Path
    changing: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def id(self) -> str:
        """What the page's address calls it; nobody can guess it."""
        return self.path.name

    @property
    def log(self) -> Path:
        """Where failures are written down."""
        return self.path / "log.txt"

    def now(self) -> Project:
        """The present state."""
        states, at = self._read()
        return states[at]

    def change(self, **changes: Any) -> Project:
        """Make and keep the next state; what had been undone is forgotten. Nothing is kept where nothing changes."""
        with self.changing:
            states, at = self._read()
            following = states[at].having(**changes)
            if following != states[at]:
                states = [*states[: at + 1], following][-MAX_HISTORY:]
                self._write(states, len(states) - 1)
        return following

    def step_back(self, steps: int = 1) -> Project:
        """Undo (or, with a negative number, redo) as far as there is something to undo."""
        with self.changing:
            states, at = self._read()
            at = min(max(at - steps, 0), len(states) - 1)
            self._write(states, at)
        return states[at]

    def neighbours(self) -> tuple[Project | None, Project | None]:
        """The state that undo leads to, and the one that redo leads to."""
        states, at = self._read()
        return states[at - 1] if at else None, states[at + 1] if at + 1 < len(states) else None

    @contextmanager
    def keeping(self, file: Path) -> Iterator[str]:
        """`keep`, for as long as it takes to check the file: a copy that is refused with an exception goes again."""
        kept = self.keep(file)
        try:
            yield kept
        except BaseException:
            for each in (self.path / kept, self._name_file(kept)):
                each.unlink(missing_ok=True)
            raise

    def keep(self, file: Path) -> str:
        """Copy a file of the person's into the folder; its name there."""
        target = self.path / "given" / f"{uuid.uuid4().hex[:12]}{file.suffix.lower()}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
        kept = str(target.relative_to(self.path))
        self._name_file(kept).write_text(file.name, "utf-8")
        return kept

    def name_of(self, kept: str) -> str:
        """What a kept file was called when it was handed over; nothing where that is not known."""
        file = self._name_file(kept)
        return file.read_text("utf-8") if kept and file.is_file() else ""

    def _name_file(self, kept: str) -> Path:
        return (self.path / kept).with_suffix(".name")

    def made(self) -> list[Made]:
        """Every result so far, oldest first."""
        file = self.path / "made.json"
        return [Made.model_validate(each) for each in json.loads(file.read_text("utf-8"))] if file.is_file() else []

    def add_made(self, made: Made) -> None:
        """Note a result."""
        write_atomically(self.path / "made.json", json.dumps([each.model_dump(mode="json") for each in [*self.made(), made]]))

    def unfinished(self) -> Unfinished | None:
        """The edit that was begun last, if it has not ended."""
        file = self.path / "unfinished.json"
        return Unfinished.model_validate_json(file.read_text("utf-8")) if file.is_file() else None

    def note_unfinished(self, edit: Unfinished | None) -> None:
        """Note how far an edit is; None when it has ended."""
        file = self.path / "unfinished.json"
        if edit is None:
            file.unlink(missing_ok=True)
        else:
            write_atomically(file, edit.model_dump_json(exclude_defaults=True))

    def _read(self) -> tuple[list[Project], int]:
        kept = json.loads((self.path / "states.json").read_text("utf-8"))
        return [Project.model_validate(state) for state in kept["states"]], kept["at"]

    def _write(self, states: list[Project], at: int) -> None:
        kept = {"states": [state.model_dump(mode="json", exclude_defaults=True) for state in states], "at": at}
        write_atomically(self.path / "states.json", json.dumps(kept))


@dataclass(frozen=True)
class Shelf:
    """Where all projects lie."""

    path: Path
    changing: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def new(self) -> Folder:
        """An empty project. Two people never get the same one."""
        folder = Folder(self.path / uuid.uuid4().hex, self.changing)
        folder.path.mkdir(parents=True)
        folder._write([Project()], 0)
        return folder

    def open(self, name: str) -> Folder:
        """The project of that name. Raises `RunError` when there is none."""
        if not re.fullmatch(r"[0-9a-f]{32}", name) or not (self.path / name / "states.json").is_file():
            raise RunError("this project is not here (any more); start with a clip")
        return Folder(self.path / name, self.changing)
