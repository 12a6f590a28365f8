"""Scenes with ground truth that lie in a folder, such as `benchmarks/real_scenes.py` writes, in place of those drawn from formulas.

`FOLDER/scenes.jsonl` has a line `{"name": ..., "kind": ..., "half": "seen" or "unseen"}` per scene (further keys are ignored), and
`FOLDER/NAME/` the frames of source/ and truth/ and the edit mask of mask/. One half is for choosing by, the other for judging the choice.
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
from lora_edit.video.read import read_video

LIST_FILE = "scenes.jsonl"

Half = Literal["seen", "unseen", "all"]


class SceneLine(BaseModel):
    """A line of the list."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str = Field(pattern=r"^\w[\w.+-]*$", description="the scene's folder")
    kind: str = Field(pattern=r"^\w[\w.+ -]*$", description="the column that its figures are counted in")
    half: Literal["seen", "unseen"]


@dataclass(frozen=True)
class SceneFolder:
    """Scenes of `folder`: those of a `half`, the first `count` of them (None: all). The first ones are of different kinds."""

    folder: Path
    half: Half = "seen"
    count: int | None = None

    def select_lines(self, kinds: Sequence[str] = ()) -> list[SceneLine]:
        """The scenes of `kinds` (all when empty), a scene of every kind before the second of any.

        Raises `SettingsError` for a list that is missing, damaged or has no such scene.
        """
        chosen = [
            line for line in _read_list(self.folder / LIST_FILE) if self.half in ("all", line.half) and (not kinds or line.kind in kinds)
        ]
        if not chosen:
            half = "" if self.half == "all" else f" of the half {self.half}"
            kind = f" of {', '.join(kinds)}" if kinds else ""
            raise SettingsError(f"{self.folder / LIST_FILE}: has no scene{half}{kind}; give another folder or --half")
        turns = [sum(other.kind == line.kind for other in chosen[:place]) for place, line in enumerate(chosen)]
        order = sorted(range(len(chosen)), key=lambda place: turns[place])
        return [chosen[place] for place in order][: self.count]

    def read_scene(self, line: SceneLine) -> TrueEdit:
        """The scene, named after its kind. Raises `SettingsError` with the scene's folder when it cannot be read."""
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
        """Of the command that a study's page shows."""
        return f"--scenes-from {self.folder.name}" + (f" --half {self.half}" if self.half != "seen" else "")


def read_scenes(folder: Path, half: Half = "seen") -> list[TrueEdit]:
    """Every scene of the folder's half in memory, named after its kind. Raises `SettingsError`."""
    scenes = SceneFolder(folder, half)
    return [scenes.read_scene(line) for line in scenes.select_lines()]


def _read_list(path: Path) -> list[SceneLine]:
    try:
        texts = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); benchmarks/real_scenes.py writes such a folder") from error
    lines = []
    for number, text in enumerate(texts, 1):
        if text.strip():
            try:
                lines.append(SceneLine.model_validate_json(text))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "the line"
                raise SettingsError(f"{path}, line {number}: {where}: {first['msg'].lower()}; a line has name, kind and half") from error
    return lines
