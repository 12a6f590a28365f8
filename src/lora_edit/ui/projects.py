"""Projects of the page: one folder per project, with the history of its states for undo.

A state is an immutable record; every change creates the next one. Imported files are copied into the folder under unique names and
never changed, so that earlier states stay valid.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter

from lora_edit.atomic_files import copy_file, write_text
from lora_edit.config import PresetName
from lora_edit.errors import RunError
from lora_edit.masks.segmenter_registry import EMBEDDED
from lora_edit.masks.settings import MaskSettings, MaskShape
from lora_edit.text_files import parse_json, read_bytes_file

MAX_HISTORY = 200
"""States kept for undo."""

SUFFIX_PATTERN = re.compile(r"\.[a-z0-9]{1,8}")
"""Matches the suffixes that an imported file keeps."""

MAX_NAME_LENGTH = 100
"""Maximum length of the shown name of an imported file in characters."""


def clean_name(name: str) -> str:
    """Return a file name to show: without control and direction characters, which could disguise its end, and shortened."""
    return "".join(each for each in name if each.isprintable())[-MAX_NAME_LENGTH:]


class Mark(BaseModel):
    """A mark on a frame, in source pixels: a point on or off an object, a box, or a brush stroke of width `width` that adds to the mask or
    subtracts from it."""

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
    """An edited later frame: a `reference` for training, or an `anchor` that the result shows unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    frame: int
    file: str
    kind: Literal["reference", "anchor"] = "reference"


class ProjectState(BaseModel):
    """One state of a project. File names are relative to its folder. `grown` is left, top, right, bottom in pixels; `left_out` lists the
    objects that are subtracted from the region; `smooth` counts frames. Frame numbers count from `start`; marks and edited frames
    outside the range are kept but ignored."""

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
        """Return the edited later frames within a range of `num_frames` frames."""
        return tuple(each for each in self.later if 0 < each.frame < num_frames)

    def replace_fields(self, **changes: Any) -> ProjectState:
        """Return a validated copy with these changes. Raises pydantic's `ValidationError`."""
        return ProjectState.model_validate({**self.model_dump(), **changes})


class ProjectResult(BaseModel):
    """One result: its file and run folder (relative paths), seconds per stage, notes, and the project state that produced it (None in older
    projects)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    run: str
    seed: int
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    again: bool = False
    state: ProjectState | None = None


class UnfinishedEdit(BaseModel):
    """An edit that started and has not finished: its project state and its last recorded progress."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: ProjectState
    stage: str = ""
    done: int = 0
    total: int = 0


class _History(BaseModel):
    """The contents of `states.json`: the states, and the index of the current one."""

    states: list[ProjectState] = Field(min_length=1)
    at: NonNegativeInt


_Record = TypeVar("_Record")


def _read_record(file: Path, record_type: TypeAdapter[_Record]) -> _Record:
    """Read a JSON file of a project. Raises `RunError` when it is damaged."""
    try:
        return record_type.validate_python(parse_json(read_bytes_file(file)))
    except (OSError, ValueError) as error:
        raise RunError(f"{file.name} of this project is damaged; put back a copy of the file, or start with a clip") from error


@dataclass(frozen=True)
class Project:
    """A project on disk. The lock guards changes, as a page may send two at once: leaving a field, and pressing a button.

    Its marks are segmented by `segmenter` (`masks.segmenter_registry`).
    """

    path: Path
    segmenter: str = EMBEDDED
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def id(self) -> str:
        """The random name of its folder, as in the page's address."""
        return self.path.name

    @property
    def log(self) -> Path:
        """The file that receives tracebacks of failed jobs."""
        return self.path / "log.txt"

    def read_state(self) -> ProjectState:
        """Read the current state."""
        states, index = self._read_states()
        return states[index]

    def update_state(self, **changes: Any) -> ProjectState:
        """Append the state with these changes and drop undone states. Equal states are not stored."""
        with self.lock:
            states, index = self._read_states()
            next_state = states[index].replace_fields(**changes)
            if next_state != states[index]:
                states = [*states[: index + 1], next_state][-MAX_HISTORY:]
                self._write_states(states, len(states) - 1)
        return next_state

    def undo(self, steps: int = 1) -> ProjectState:
        """Undo this many steps, or redo with a negative number, within the history; returns the new current state."""
        with self.lock:
            states, index = self._read_states()
            index = min(max(index - steps, 0), len(states) - 1)
            self._write_states(states, index)
        return states[index]

    def read_adjacent_states(self) -> tuple[ProjectState | None, ProjectState | None]:
        """Return the states that undo and redo lead to; None if there is none."""
        states, index = self._read_states()
        return states[index - 1] if index else None, states[index + 1] if index + 1 < len(states) else None

    @contextmanager
    def stage_file(self, file: Path) -> Iterator[str]:
        """Import a file for the duration of a check; an exception inside the block deletes the copy."""
        stored_file = self.import_file(file)
        try:
            yield stored_file
        except BaseException:
            for path in (self.path / stored_file, self._name_path(stored_file)):
                path.unlink(missing_ok=True)
            raise

    def import_file(self, file: Path) -> str:
        """Copy a file into the folder; returns its path relative to the folder."""
        suffix = suffix if SUFFIX_PATTERN.fullmatch(suffix := file.suffix.lower()) else ""
        target = self.path / "given" / f"{uuid.uuid4().hex[:12]}{suffix}"
        copy_file(file, target)
        stored_file = str(target.relative_to(self.path))
        write_text(self._name_path(stored_file), clean_name(file.name))
        return stored_file

    def read_original_name(self, stored_file: str) -> str:
        """Return the original name of an imported file; an empty string if unknown."""
        file = self._name_path(stored_file)
        return file.read_text("utf-8") if stored_file and file.is_file() else ""

    def _name_path(self, stored_file: str) -> Path:
        return (self.path / stored_file).with_suffix(".name")

    def read_results(self) -> list[ProjectResult]:
        """Read all results, oldest first."""
        file = self.path / "made.json"
        return _read_record(file, TypeAdapter(list[ProjectResult])) if file.is_file() else []

    def add_result(self, result: ProjectResult) -> None:
        """Append a result."""
        write_text(self.path / "made.json", json.dumps([each.model_dump(mode="json") for each in [*self.read_results(), result]]))

    def read_unfinished_edit(self) -> UnfinishedEdit | None:
        """Read the record of the unfinished edit; None if there is none, or a damaged one: starting the edit resumes it all the same."""
        file = self.path / "unfinished.json"
        try:
            return _read_record(file, TypeAdapter(UnfinishedEdit)) if file.is_file() else None
        except RunError:
            return None

    def record_unfinished_edit(self, edit: UnfinishedEdit | None) -> None:
        """Write the progress of an edit; None removes the record."""
        file = self.path / "unfinished.json"
        if edit is None:
            file.unlink(missing_ok=True)
        else:
            write_text(file, edit.model_dump_json(exclude_defaults=True))

    def _read_states(self) -> tuple[list[ProjectState], int]:
        history = _read_record(self.path / "states.json", TypeAdapter(_History))
        return history.states, min(history.at, len(history.states) - 1)

    def _write_states(self, states: list[ProjectState], index: int) -> None:
        data = {"states": [state.model_dump(mode="json", exclude_defaults=True) for state in states], "at": index}
        write_text(self.path / "states.json", json.dumps(data))


@dataclass(frozen=True)
class ProjectStore:
    """The folder of all projects, and the segmenter of their marks."""

    path: Path
    segmenter: str = EMBEDDED
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def create_project(self) -> Project:
        """Create an empty project with a unique random name."""
        project = Project(self.path / uuid.uuid4().hex, self.segmenter, self.lock)
        project.path.mkdir(parents=True)
        project._write_states([ProjectState()], 0)
        return project

    def open_project(self, project_id: str | None) -> Project:
        """Open the project of that name. Raises `RunError` if it does not exist."""
        if not project_id or not re.fullmatch(r"[0-9a-f]{32}", project_id) or not (self.path / project_id / "states.json").is_file():
            raise RunError("this project does not exist on this server (any more); start with a clip")
        return Project(self.path / project_id, self.segmenter, self.lock)
