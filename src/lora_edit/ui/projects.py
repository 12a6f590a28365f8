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

from lora_edit.config import PresetName
from lora_edit.errors import RunError
from lora_edit.masks.settings import MaskSettings, MaskShape
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


class EditedFrame(BaseModel):
    """An edited later frame, to learn from or to show as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    frame: int
    file: str
    kind: Literal["reference", "anchor"] = "reference"


class ProjectState(BaseModel):
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
    smooth: int = MaskSettings().smooth
    bridged: bool = False
    shape: MaskShape = "box"
    expand: float = MaskSettings().expand
    feather: float = 0.02
    first_frame: str = ""
    later: tuple[EditedFrame, ...] = ()
    model: str = "tiny"
    preset: PresetName = "standard"
    prompt: str = ""
    seed: int = 0
    assignments: tuple[str, ...] = ()

    def select_later_frames(self, num_frames: int) -> tuple[EditedFrame, ...]:
        """The edited later frames within a range of that length."""
        return tuple(each for each in self.later if 0 < each.frame < num_frames)

    def replace_fields(self, **changes: Any) -> ProjectState:
        """The state with these changes, checked."""
        return ProjectState.model_validate({**self.model_dump(), **changes})


class ProjectResult(BaseModel):
    """One result: its file and run folder (relative), the project's state that it was made from (older results don't know), and what there
    is to say about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    run: str
    seed: int
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    again: bool = False
    state: ProjectState | None = None


class UnfinishedEdit(BaseModel):
    """An edit that was begun and has not come to its end: the project's state that it is of, and how far it was when last heard of."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: ProjectState
    stage: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Project:
    """A project's place on disk. A page may ask for two changes at once: a field that is left, and the button that is pressed then."""

    path: Path
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def id(self) -> str:
        """What the page's address calls it; nobody can guess it."""
        return self.path.name

    @property
    def log(self) -> Path:
        """Where failures are written down."""
        return self.path / "log.txt"

    def read_state(self) -> ProjectState:
        """The present state."""
        states, at = self._read_states()
        return states[at]

    def update_state(self, **changes: Any) -> ProjectState:
        """Make and keep the next state; what had been undone is forgotten. Nothing is kept where nothing changes."""
        with self.lock:
            states, at = self._read_states()
            following = states[at].replace_fields(**changes)
            if following != states[at]:
                states = [*states[: at + 1], following][-MAX_HISTORY:]
                self._write_states(states, len(states) - 1)
        return following

    def undo(self, steps: int = 1) -> ProjectState:
        """Undo (or, with a negative number, redo) as far as there is something to undo."""
        with self.lock:
            states, at = self._read_states()
            at = min(max(at - steps, 0), len(states) - 1)
            self._write_states(states, at)
        return states[at]

    def read_adjacent_states(self) -> tuple[ProjectState | None, ProjectState | None]:
        """The state that undo leads to, and the one that redo leads to."""
        states, at = self._read_states()
        return states[at - 1] if at else None, states[at + 1] if at + 1 < len(states) else None

    @contextmanager
    def stage_file(self, file: Path) -> Iterator[str]:
        """`keep`, for as long as it takes to check the file: a copy that is refused with an exception goes again."""
        kept = self.import_file(file)
        try:
            yield kept
        except BaseException:
            for each in (self.path / kept, self._name_path(kept)):
                each.unlink(missing_ok=True)
            raise

    def import_file(self, file: Path) -> str:
        """Copy a file of the person's into the folder; its name there."""
        target = self.path / "given" / f"{uuid.uuid4().hex[:12]}{file.suffix.lower()}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
        kept = str(target.relative_to(self.path))
        self._name_path(kept).write_text(file.name, "utf-8")
        return kept

    def read_original_name(self, stored_file: str) -> str:
        """What a kept file was called when it was handed over; nothing where that is not known."""
        file = self._name_path(stored_file)
        return file.read_text("utf-8") if stored_file and file.is_file() else ""

    def _name_path(self, stored_file: str) -> Path:
        return (self.path / stored_file).with_suffix(".name")

    def read_results(self) -> list[ProjectResult]:
        """Every result so far, oldest first."""
        file = self.path / "made.json"
        return [ProjectResult.model_validate(each) for each in json.loads(file.read_text("utf-8"))] if file.is_file() else []

    def add_result(self, result: ProjectResult) -> None:
        """Note a result."""
        write_atomically(self.path / "made.json", json.dumps([each.model_dump(mode="json") for each in [*self.read_results(), result]]))

    def read_unfinished_edit(self) -> UnfinishedEdit | None:
        """The edit that was begun last, if it has not ended."""
        file = self.path / "unfinished.json"
        return UnfinishedEdit.model_validate_json(file.read_text("utf-8")) if file.is_file() else None

    def record_unfinished_edit(self, edit: UnfinishedEdit | None) -> None:
        """Note how far an edit is; None when it has ended."""
        file = self.path / "unfinished.json"
        if edit is None:
            file.unlink(missing_ok=True)
        else:
            write_atomically(file, edit.model_dump_json(exclude_defaults=True))

    def _read_states(self) -> tuple[list[ProjectState], int]:
        kept = json.loads((self.path / "states.json").read_text("utf-8"))
        return [ProjectState.model_validate(state) for state in kept["states"]], kept["at"]

    def _write_states(self, states: list[ProjectState], index: int) -> None:
        kept = {"states": [state.model_dump(mode="json", exclude_defaults=True) for state in states], "at": index}
        write_atomically(self.path / "states.json", json.dumps(kept))


@dataclass(frozen=True)
class ProjectStore:
    """Where all projects lie."""

    path: Path
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def create_project(self) -> Project:
        """An empty project. Two people never get the same one."""
        folder = Project(self.path / uuid.uuid4().hex, self.lock)
        folder.path.mkdir(parents=True)
        folder._write_states([ProjectState()], 0)
        return folder

    def open_project(self, project_id: str) -> Project:
        """The project of that name. Raises `RunError` when there is none."""
        if not re.fullmatch(r"[0-9a-f]{32}", project_id) or not (self.path / project_id / "states.json").is_file():
            raise RunError("this project is not here (any more); start with a clip")
        return Project(self.path / project_id, self.lock)
