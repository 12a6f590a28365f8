"""Scenes with ground truth in a folder, such as `benchmarks/real_scenes.py` writes, instead of scenes drawn from formulas.

`FOLDER/scenes.jsonl` has a line `{"name": ..., "kind": ..., "half": "seen" or "unseen"}` per scene (further keys are ignored), and
`FOLDER/NAME/` contains the frames in source/ and truth/ and the edit mask in mask/. The seen half is for tuning, the unseen half for
validating the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_edit.errors import LoraEditError, SettingsError
from lora_edit.masks.files import read_mask
from lora_edit.studies.scenes import TrueEdit
from lora_edit.text_files import read_text_file
from lora_edit.video.read import read_video

LIST_FILE = "scenes.jsonl"

Half = Literal["seen", "unseen", "all"]


class SceneLine(BaseModel):
    """A line of `scenes.jsonl`."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str = Field(pattern=r"^\w[\w.+-]*$", description="the folder of the scene")
    kind: str = Field(pattern=r"^\w[\w.+ -]*$", description="the column of its scores")
    half: Literal["seen", "unseen"]


@dataclass(frozen=True)
class SceneFolder:
    """The scenes of a `half` in `folder`, limited to the first `count` (None for all). The first scenes are of different kinds."""

    folder: Path
    half: Half = "seen"
    count: int | None = None

    def select_lines(self, kinds: Sequence[str] = ()) -> list[SceneLine]:
        """Select the scenes of `kinds` (all when empty), one of every kind before the second of any kind.

        Raises `SettingsError` when the list is missing, damaged or has no such scene.
        """
        lines = [
            line for line in _read_list(self.folder / LIST_FILE) if self.half in ("all", line.half) and (not kinds or line.kind in kinds)
        ]
        if not lines:
            half = "" if self.half == "all" else f" of the half {self.half}"
            kind = f" of {', '.join(kinds)}" if kinds else ""
            raise SettingsError(f"{self.folder / LIST_FILE}: has no scene{half}{kind}; give another folder or --half")
        rounds = [sum(other.kind == line.kind for other in lines[:index]) for index, line in enumerate(lines)]
        order = sorted(range(len(lines)), key=lambda index: rounds[index])
        return [lines[index] for index in order][: self.count]

    def read_scene(self, line: SceneLine) -> TrueEdit:
        """Read a scene, named after its kind. Raises `SettingsError` with the folder of the scene when it cannot be read."""
        folder = self.folder / line.name
        try:
            source, truth = (read_video(folder / part) for part in ("source", "truth"))
            mask = read_mask(folder / "mask", source.num_frames, source.size)
        except LoraEditError as error:
            raise SettingsError(f"scene {line.name}: {error}") from error
        if truth.frames.shape != source.frames.shape:
            raise SettingsError(f"{folder}: truth and source differ in size or length; draw the scene again")
        return TrueEdit(line.kind, source.frames, truth.frames, mask)

    def format_options(self) -> str:
        """Format the options of the command for the page of a study."""
        return f"--scenes-from {self.folder.name}" + (f" --half {self.half}" if self.half != "seen" else "")


def read_scenes(folder: Path, half: Half = "seen") -> list[TrueEdit]:
    """Read every scene of a half into memory, named after its kind. Raises `SettingsError`."""
    scenes = SceneFolder(folder, half)
    return [scenes.read_scene(line) for line in scenes.select_lines()]


def _read_list(path: Path) -> list[SceneLine]:
    try:
        texts = read_text_file(path).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); benchmarks/real_scenes.py writes such a folder") from error
    lines = []
    for number, text in enumerate(texts, 1):
        if text.strip():
            try:
                lines.append(SceneLine.model_validate_json(text))
            except ValidationError as error:
                fault = error.errors()[0]
                key = ".".join(map(str, fault["loc"])) or "the line"
                raise SettingsError(f"{path}, line {number}: {key}: {fault['msg'].lower()}; a line has name, kind and half") from error
    return lines
