"""The settings of one edit: the settings of all packages, read from TOML, changed by `section.setting=value`, and written back."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_edit.compositing.settings import CompositingSettings
from lora_edit.conditioning.settings import MethodSettings
from lora_edit.errors import InputError, SettingsError
from lora_edit.generation.settings import GenerationSettings
from lora_edit.masks.settings import MaskSettings
from lora_edit.models.checkpoints.locate import get_preset
from lora_edit.models.settings import CaptionSettings, EncodingSettings
from lora_edit.provenance.settings import ProvenanceSettings
from lora_edit.text_files import read_text_file
from lora_edit.training.settings import LoraSettings, TrainingSettings
from lora_edit.video.settings import VideoSettings

PresetName = Literal["standard", "fast", "low-vram"]
"""The named presets; `models/presets.py` defines what each of them changes."""


class Keyframe(BaseModel):
    """An edited frame: its number in the source (from 0, in the trimmed range) and its image file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    frame: int = Field(ge=0)
    image: Path


class KeyBox(BaseModel):
    """A rectangle in source pixels at one frame. Boxes of one object at several frames are interpolated."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    x: float
    y: float
    width: float = Field(gt=0)
    height: float = Field(gt=0)
    frame: int | None = Field(None, ge=0, description="source frame; by default the first one, from which the box follows the edit")
    object: str = Field("1", description="boxes of the same name are one object's path")


class KeyPoint(BaseModel):
    """A source pixel on the object to edit, or off it. The object is segmented from its points and tracked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    x: float
    y: float
    on: bool = Field(True, description="whether the object covers the point; false excludes an area that another point included")
    frame: int = Field(0, ge=0)
    object: str = Field("1", description="points of the same name are on one object")


class InputSettings(BaseModel):
    """The input files of an edit and its region."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: Path
    first_frame: Path
    mask: Path | None = None
    boxes: tuple[KeyBox, ...] = ()
    points: tuple[KeyPoint, ...] = Field((), description="the segmenter outlines the object under them and tracks it")
    text: str = Field("", description="description of the object in the first frame, which SAM 3 finds and tracks")
    references: tuple[Keyframe, ...] = Field((), description="later edited frames to learn from (paper 3.3.2)")
    anchors: tuple[Keyframe, ...] = Field((), description="later edited frames that the result shows unchanged")

    def list_files(self) -> list[Path]:
        """List every file and folder that the edit reads."""
        images = [keyframe.image for keyframe in (*self.references, *self.anchors)]
        return [path for path in (self.source, self.first_frame, self.mask, *images) if path is not None]


class EditSettings(BaseModel):
    """All settings that determine the result of an edit."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: InputSettings
    model: str = Field("tiny", description="a name from `lora-edit models`, a folder, a file, a Hub id, or NAME@PLACE (docs/loading.md)")
    prompt: str = Field("", description="replaces all captions; models without a text encoder ignore it")
    trigger: str = Field("p3rs0n", description="p*, put before the caption or the prompt (paper 3.1)")
    preset: PresetName = Field("standard", description="the named preset that the other settings override")
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
    provenance: ProvenanceSettings = ProvenanceSettings()


TOP_LEVEL_SETTINGS = ("model", "prompt", "trigger", "preset", "seed")
"""Settings outside of any section."""

SECTIONS = ("video", "masks", "method", "training", "lora", "generation", "compositing", "caption", "encodings", "provenance")
"""Tables of a settings file, one for each package with settings. `[input]` is not among them: `--set` cannot change it."""


_MAX_GIVEN = 200  # characters of a value in an error message


Mark = TypeVar("Mark")


@cache
def list_marked_settings(mark: type[Mark]) -> dict[str, tuple[Mark, Any]]:
    """List the settings that carry a mark of `setting_fields.py`, as `section.setting` to the mark and the default."""
    marked = {}
    for section in SECTIONS:
        for name, field in EditSettings.model_fields[section].annotation.model_fields.items():  # type: ignore[union-attr]
            for each in field.metadata:
                if isinstance(each, mark):
                    marked[f"{section}.{name}"] = (each, field.default)
    return marked


def merge_tables(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested tables; values of `overrides` replace those of `base`."""
    merged = dict(base)
    for key, value in overrides.items():
        is_table = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge_tables(merged[key], value) if is_table else value
    return merged


def parse_assignment(text: str) -> dict[str, Any]:
    """Parse `section.setting=value`, or `name=value` for one of `TOP_LEVEL_SETTINGS`, to nested tables.

    Values are TOML; text that is not valid TOML is a string. Raises `SettingsError` for an unknown section or name.
    """
    path, equals, value = text.partition("=")
    section, dot, name = path.strip().partition(".")
    if not equals or section not in (SECTIONS if dot else TOP_LEVEL_SETTINGS):
        sections, names = ", ".join(SECTIONS), ", ".join(TOP_LEVEL_SETTINGS)
        suggestion = suggest_setting(path.strip()) if equals else ""
        raise SettingsError(
            f"--set {text}: write section.setting=value with a section of {sections}, or name=value with one of {names}{suggestion}"
        )
    try:
        parsed = _parse_toml(f"value = {value}")["value"]
    except ValueError:
        parsed = value
    return {section: {name.strip(): parsed}} if dot else {section: parsed}


def read_toml(path: Path) -> dict[str, Any]:
    """Read the tables of a settings file. Raises `SettingsError` when it is missing or malformed."""
    try:
        return _parse_toml(read_text_file(path))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); give an existing TOML file") from error
    except InputError:
        raise
    except ValueError as error:
        raise SettingsError(f"{path}: not a TOML file ({error})") from error


def _parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raises `ValueError` for anything else, also for tables or numbers that are too large to be read."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def resolve_settings(tables: Mapping[str, Any], assignments: Sequence[str] = ()) -> EditSettings:
    """Merge and validate the settings of an edit.

    Later sources override earlier ones: the model's preset with the changes of the named preset `tables["preset"]`, then `tables`, then
    the `--set` assignments. Raises `SettingsError` with the first invalid setting, its path and the violated rule.
    """
    for text in assignments:
        tables = merge_tables(tables, parse_assignment(text))
    preset = get_preset(str(tables.get("model", "tiny")), str(tables.get("preset", "standard")), _get_preset_defaults())
    try:
        return EditSettings.model_validate(merge_tables(preset, tables))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"{path}: no such setting{suggest_setting(path) or '; docs/settings.md lists them all'}") from error
        raise SettingsError(f"{path}: {first['msg'].lower()} (given: {_format_given(first['input'])})") from error


def _format_given(value: Any) -> str:
    """Format a value for an error message, shortened."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_GIVEN else f"{text[:_MAX_GIVEN]}..."


def suggest_setting(path: str) -> str:
    """Format `; did you mean X?` with the closest setting by section and name; empty when none is similar."""
    known = [f"{section}.{name}" for section in SECTIONS for name in _list_fields(section)] + list(TOP_LEVEL_SETTINGS)
    section, _, name = path.rpartition(".")
    matches = [each for each in known if each.rpartition(".")[2] == name] or get_close_matches(path, known, 1, 0.75)
    matches = matches or [f"{section}.{each}" for each in get_close_matches(name, _list_fields(section), 1, 0.7)]
    return f"; did you mean {matches[0]}?" if matches else ""


def _list_fields(section: str) -> list[str]:
    field_info = EditSettings.model_fields.get(section)
    return list(getattr(field_info.annotation, "model_fields", {})) if field_info else []


def apply_preset(settings: EditSettings, preset: str) -> EditSettings:
    """Resolve the same input and model with another named preset. Settings that were changed by hand are dropped."""
    return resolve_settings({"input": settings.input.model_dump(mode="json", exclude_none=True), "model": settings.model, "preset": preset})


def _get_preset_defaults() -> dict[str, Any]:
    """Return the paper's settings in full, from which named presets are computed."""
    return {"training": TrainingSettings().model_dump(), "generation": GenerationSettings().model_dump()}


def dump_toml(settings: EditSettings) -> str:
    """Serialize the settings to TOML. `resolve_settings` restores equal settings from what `read_toml` reads back."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))
