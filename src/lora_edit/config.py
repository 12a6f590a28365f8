"""One edit's settings: the rooms' own settings put together, read from TOML, changed by `room.setting=value`, and written back."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_edit.compositing.settings import CompositingSettings
from lora_edit.conditioning.settings import MethodSettings
from lora_edit.errors import SettingsError
from lora_edit.generation.settings import GenerationSettings
from lora_edit.masks.settings import MaskSettings
from lora_edit.models.checkpoints.locate import get_preset
from lora_edit.models.settings import CaptionSettings, EncodingSettings
from lora_edit.training.settings import LoraSettings, TrainingSettings
from lora_edit.video.settings import VideoSettings


class Keyframe(BaseModel):
    """An edited frame: source frame number (from 0, in the trimmed range) and its picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    frame: int = Field(ge=0)
    image: Path


class KeyBox(BaseModel):
    """A rectangle in source pixels at one frame; boxes of one object at several frames are interpolated."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    x: float
    y: float
    width: float = Field(gt=0)
    height: float = Field(gt=0)
    frame: int | None = Field(None, ge=0, description="source frame; the first when left out, from where it goes with what was edited")
    object: str = Field("1", description="boxes of the same name are one object's path")


class KeyPoint(BaseModel):
    """A pixel of the source on the object to be edited, or off it; the object is outlined there and followed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    x: float
    y: float
    on: bool = Field(True, description="whether the object is there; false corrects what another point outlined")
    frame: int = Field(0, ge=0)
    object: str = Field("1", description="points of the same name are on one object")


class InputSettings(BaseModel):
    """What a person hands over."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: Path
    first_frame: Path
    mask: Path | None = None
    boxes: tuple[KeyBox, ...] = ()
    points: tuple[KeyPoint, ...] = Field((), description="what they are on is outlined by the embedded segmenter, and followed")
    references: tuple[Keyframe, ...] = Field((), description="later edited frames to learn from (paper 3.3.2)")
    anchors: tuple[Keyframe, ...] = Field((), description="later edited frames that the result must show as they are")

    def list_files(self) -> list[Path]:
        """List every file and folder that the edit reads."""
        images = [keyframe.image for keyframe in (*self.references, *self.anchors)]
        return [path for path in (self.source, self.first_frame, self.mask, *images) if path is not None]


class EditSettings(BaseModel):
    """Everything that decides an edit's result."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: InputSettings
    model: str = Field("tiny", description="a name from `lora-edit models`, a folder, a file, a Hub id, or NAME@PLACE (docs/loading.md)")
    prompt: str = Field("", description="takes the place of all captions; models without a text encoder ignore it")
    trigger: str = Field("p3rs0n", description="p*, put before the caption or the prompt (paper 3.1)")
    preset: Literal["standard", "fast", "low-vram"] = Field("standard", description="which named settings the others departed from")
    seed: int = Field(0, ge=0, le=2**63 - 1)
    video: VideoSettings = VideoSettings()
    masks: MaskSettings = MaskSettings()
    method: MethodSettings = MethodSettings()
    training: TrainingSettings = TrainingSettings()
    lora: LoraSettings = LoraSettings()
    generation: GenerationSettings = GenerationSettings()
    compositing: CompositingSettings = CompositingSettings()
    caption: CaptionSettings = CaptionSettings()
    encodings: EncodingSettings = EncodingSettings()


TOP_LEVEL_SETTINGS = ("model", "prompt", "trigger", "preset", "seed")
"""Settings that belong to no room."""

SECTIONS = ("video", "masks", "method", "training", "lora", "generation", "compositing", "caption", "encodings")


def merge_tables(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, room by room."""
    out = dict(base)
    for key, value in overrides.items():
        out[key] = merge_tables(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), Mapping) else value
    return out


def parse_assignment(text: str) -> dict[str, Any]:
    """`room.setting=value`, or `name=value` for one of `PLAIN`, as nested tables; values are TOML, bare words are strings."""
    path, equals, value = text.partition("=")
    room, dot, name = path.strip().partition(".")
    if not equals or room not in (SECTIONS if dot else TOP_LEVEL_SETTINGS):
        rooms, plain = ", ".join(SECTIONS), ", ".join(TOP_LEVEL_SETTINGS)
        wrong = suggest_setting(path.strip()) if equals else ""
        raise SettingsError(f"--set {text}: write room.setting=value with a room of {rooms}, or name=value with one of {plain}{wrong}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return {room: {name.strip(): parsed}} if dot else {room: parsed}


def read_toml(path: Path) -> dict[str, Any]:
    """A settings file's tables. Raises `SettingsError` when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); give an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a TOML file ({error})") from error


def resolve_settings(tables: Mapping[str, Any], assignments: Sequence[str] = ()) -> EditSettings:
    """Validated settings: the model's preset as the tables' `preset` changes it, then the given tables, then the `--set` assignments.

    Raises `SettingsError` with the first fault, its place and the rule it breaks.
    """
    for text in assignments:
        tables = merge_tables(tables, parse_assignment(text))
    preset = get_preset(str(tables.get("model", "tiny")), str(tables.get("preset", "standard")), _get_preset_defaults())
    try:
        return EditSettings.model_validate(merge_tables(preset, tables))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"{place}: no such setting{suggest_setting(place) or '; docs/settings.md lists them all'}") from error
        raise SettingsError(f"{place}: {first['msg'].lower()} (given: {first['input']!r})") from error


def suggest_setting(path: str) -> str:
    """`; did you mean X?` for a setting that is misspelt, by its room and name; nothing where none is like it."""
    known = [f"{room}.{name}" for room in SECTIONS for name in _list_fields(room)] + list(TOP_LEVEL_SETTINGS)
    room, _, name = path.rpartition(".")
    matches = [each for each in known if each.rpartition(".")[2] == name] or get_close_matches(path, known, 1, 0.75)
    matches = matches or [f"{room}.{each}" for each in get_close_matches(name, _list_fields(room), 1, 0.7)]
    return f"; did you mean {matches[0]}?" if matches else ""


def _list_fields(section: str) -> list[str]:
    field_info = EditSettings.model_fields.get(section)
    return list(getattr(field_info.annotation, "model_fields", {})) if field_info else []


def apply_preset(settings: EditSettings, preset: str) -> EditSettings:
    """The same edit with another named preset's settings, and nothing else changed by hand."""
    return resolve_settings({"input": settings.input.model_dump(mode="json", exclude_none=True), "model": settings.model, "preset": preset})


def _get_preset_defaults() -> dict[str, Any]:
    """The paper's settings, spelled out: what a named preset reckons from."""
    return {"training": TrainingSettings().model_dump(), "generation": GenerationSettings().model_dump()}


def dump_toml(settings: EditSettings) -> str:
    """The settings as TOML text that `read_toml` and `resolve` turn back into the same settings."""
    lines: list[str] = []
    _dump_table(settings.model_dump(mode="json", exclude_none=True), "", lines)
    return "\n".join(lines) + "\n"


def _dump_table(table: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    nested = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    for key, value in table.items():
        if key not in nested:
            lines.append(f"{key} = {_dump_value(value)}")
    for key, value in nested.items():
        lines.extend(["", f"[{prefix}{key}]"])
        _dump_table(value, f"{prefix}{key}.", lines)


def _dump_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(_dump_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_dump_value(v)}" for k, v in value.items()) + "}"
    return repr(value)
