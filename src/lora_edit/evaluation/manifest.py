"""The manifest of cases for experiments and benchmarks: `cases.jsonl`, one JSON object per line.

    {"id": "swan", "source": "swan.mp4", "first_frame": "swan.png", "mask": "swan/masks", "later": [{"frame": 24, "image": "swan24.png"}],
     "prompt": "a flamingo", "truth": "swan_true.mp4", "fps": 16, "start": 0, "frames": 49}

(on one line). `id`, `source` and `first_frame` are required, the other keys are optional. Paths are relative to the manifest's folder.
Empty lines are ignored. `benchmarks.py` builds such manifests from public benchmarks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lora_edit.atomic_files import write_text
from lora_edit.errors import SettingsError
from lora_edit.text_files import parse_json, read_text_file

Id = Annotated[str, Field(pattern=r"^\w[\w.+-]*$", description="the name of the case and of its files")]


class LaterFrame(BaseModel):
    """An edited later frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    frame: int = Field(ge=1, description="its number, counted from 0 at `start`")
    image: Path = Field(description="the edited picture")


class Case(BaseModel):
    """One edit to run and measure; the fields correspond to the options of the command."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Id
    source: Path = Field(description="a video, a folder of pictures, or a GIF")
    first_frame: Path = Field(description="the edited first frame of the range")
    mask: Path | None = Field(None, description="the edit region (white); the whole frame when omitted")
    later: tuple[LaterFrame, ...] = Field((), description="further edited frames")
    prompt: str | None = Field(None, description="a description of the edited clip")
    truth: Path | None = Field(None, description="the true edited clip")
    fps: float | None = Field(None, gt=0, description="frame rate of the range, instead of the source's")
    start: int = Field(0, ge=0, description="first source frame of the range")
    frames: int | None = Field(None, ge=1, description="number of source frames; all to the end when omitted")

    @field_validator("later")
    @classmethod
    def _check_unique_frames(cls, later: tuple[LaterFrame, ...]) -> tuple[LaterFrame, ...]:
        if len({each.frame for each in later}) < len(later):
            raise ValueError("a frame is given twice")
        return later

    def get_paths(self) -> dict[str, Path]:
        """Return every path of the case by its key."""
        fixed = {"source": self.source, "first_frame": self.first_frame, "mask": self.mask, "truth": self.truth}
        later = {f"later frame {each.frame}": each.image for each in self.later}
        return {key: path for key, path in (fixed | later).items() if path is not None}


def read_cases(path: Path, check_files: bool = True) -> tuple[Case, ...]:
    """Read the cases of a manifest and resolve their paths.

    Raises `SettingsError` with the number of the first line that is not a valid case, repeats an id or, with `check_files`, names a file
    that does not exist. Raises it for a manifest that is missing or empty as well.
    """
    return tuple(read_cases_by_line(path, check_files).values())


def read_cases_by_line(path: Path, check_files: bool = True) -> dict[str, Case]:
    """Read the cases like `read_cases`, by their location `FILE, line N (ID)`, for use in later error messages."""
    cases: dict[str, Case] = {}
    ids: set[str] = set()
    for number, line in _read_lines(path):
        location = f"{path}, line {number}"
        case = _resolve_paths(_parse_case(line, location), path.parent)
        if case.id in ids:
            raise SettingsError(f"{location}: an earlier line uses the id {case.id}; give each case its own")
        missing = [f"{key} {file}" for key, file in case.get_paths().items() if not file.exists()] if check_files else []
        if missing:
            raise SettingsError(f"{location} ({case.id}): {missing[0]} does not exist; paths are relative to the manifest's folder")
        ids.add(case.id)
        cases[f"{location} ({case.id})"] = case
    if not cases:
        raise SettingsError(f"{path}: contains no cases; write one JSON object per line")
    return cases


def write_cases(path: Path, cases: Iterable[Case]) -> int:
    """Write the manifest, with paths relative to its folder, and return the number of cases. The files need not exist yet."""
    lines = [_relativize_paths(case, path.parent).model_dump_json(exclude_defaults=True) for case in cases]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers from 1."""
    try:
        text = read_text_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as a manifest ({error}); give a text file with one JSON object per line") from error
    # JSON strings may contain separators at which `splitlines` would split.
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _parse_case(line: str, location: str) -> Case:
    try:
        return Case.model_validate(parse_json(line))
    except json.JSONDecodeError as error:
        raise SettingsError(f"{location}: not JSON ({error.msg} at character {error.colno}); write one object per line") from error
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"]) or "the line"
        raise SettingsError(f"{location}: {key}: {fault['msg'].lower()}; a case has the keys {', '.join(Case.model_fields)}") from error
    except ValueError as error:
        raise SettingsError(f"{location}: not JSON ({error}); write one object per line") from error


def _resolve_paths(case: Case, folder: Path) -> Case:
    return _map_paths(case, lambda path: folder / path)


def _relativize_paths(case: Case, folder: Path) -> Case:
    return _map_paths(case, lambda path: Path(os.path.relpath(path, folder)))


def _map_paths(case: Case, change: Callable[[Path], Path]) -> Case:
    fixed = {key: change(path) for key, path in case.get_paths().items() if key in Case.model_fields}
    later = tuple(each.model_copy(update={"image": change(each.image)}) for each in case.later)
    return case.model_copy(update=fixed | {"later": later})
