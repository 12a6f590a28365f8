"""From the name of a model to its record and the source of its weights.

A name is a known one (`wan2.1-i2v-480p`), a folder in diffusers' layout, a Hub repository (`org/name`), `NAME@PLACE` (a known model from a
folder, a file or a repository; docs/loading.md), or `module:NAME`, a `ModelRecord` of another package. Packages also add names with the
entry-point group `lora_edit.families`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.headers import INDEX_SUFFIX, PICKLE_SUFFIXES, find_shards, read_config, read_header
from lora_edit.models.checkpoints.hub import find_snapshot_folder
from lora_edit.models.checkpoints.infer_config import infer_config
from lora_edit.models.checkpoints.layout import GGUF_SUFFIX, find_parts, resolve_model_folder
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.presets import build_named_preset
from lora_edit.models.record import Geometry, ModelRecord, Preset, find_differences, import_target

ENTRY_POINT_GROUP = "lora_edit.families"
OTHER_FAMILIES = {"LTX-Video": r"\b(patchify_proj|adaln_single)\.", "HunyuanVideo": r"\b(double_blocks|single_blocks)\.0\."}
"""Families whose single files are not read, and keys by which these are recognised."""
FILE_SUFFIXES = (".safetensors", INDEX_SUFFIX, GGUF_SUFFIX, *PICKLE_SUFFIXES)


def list_models() -> list[ModelRecord]:
    """List the known models, then those of installed packages. A known name cannot be redefined."""
    records = {record.name: record for record in KNOWN_MODELS}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name not in records:
            records[point.name] = _import_record(point.value)
    return list(records.values())


def locate_model(model: str) -> tuple[ModelRecord, str]:
    """Find a model's record, and the folder or repository of its weights. Raises `ModelError`."""
    name, at, source = model.partition("@")
    known = _find_by_name(name)
    if known is not None and bool(at) == bool(source):
        return known, _make_absolute(source) if at else known.repo
    if Path(model).is_dir():
        return _identify_folder(resolve_model_folder(Path(model).absolute())), _make_absolute(model)
    if not at and model.lower().endswith(FILE_SUFFIXES):
        return _identify_file(Path(model).absolute()), _make_absolute(model)
    if ":" in model and not at:
        return (record := _import_record(model)), record.repo
    models = list_models()
    for record in models:
        if record.repo and record.repo.lower() == model.lower():
            return record, record.repo
    if (folder := find_snapshot_folder(model)) is not None:
        return _identify_folder(folder, model), model
    raise ModelError(
        f"model {model!r} is unknown; this version has {', '.join(record.name for record in models)} (see `lora-edit models`), and takes a "
        "folder in diffusers' layout, a .safetensors file or a downloaded Hub repository"
    )


def _find_by_name(name: str) -> ModelRecord | None:
    """Find the model of that name. Imports only the package that adds it, so a broken package affects its own models only."""
    for record in KNOWN_MODELS:
        if record.name == name:
            return record
    return next((_import_record(point.value) for point in entry_points(group=ENTRY_POINT_GROUP, name=name)), None)


def check_substitute_model(model: str | None, training_model: str, has_lora: bool) -> None:
    """Raise `ModelError` for generating with a LoRA that was trained on another model; another checkpoint of one model is allowed."""
    if model is None:
        return
    trained, other = locate_model(training_model)[0].name, locate_model(model)[0].name
    if trained != other:
        raise ModelError(f"--model {model}: is {other} and the run's LoRA was trained on {trained}; give another checkpoint of {trained}")
    if not has_lora:
        raise ModelError(f"--model {model}: stands in for a model whose LoRA is trained; train the run first with `lora-edit train`")


def get_preset(model: str, name: str = "standard", defaults: Preset | None = None) -> Preset:
    """Return the differences from the settings' `defaults` for a model and a named preset; empty for an unknown model."""
    try:
        record = locate_model(model)[0]
    except ModelError:
        return {}
    own, defaults = record.preset(), defaults or {}
    standard = {section: defaults.get(section, {}) | own.get(section, {}) for section in {*defaults, *own}}
    named = build_named_preset(name, standard, record.short_window)
    return {section: own.get(section, {}) | named.get(section, {}) for section in {*own, *named}}


def reads_prompts(model: str) -> bool:
    """Check whether a model takes a prompt; False for an unknown model."""
    try:
        return locate_model(model)[0].reads_prompts
    except ModelError:
        return False


def get_last_frame_max_frames(model: str) -> int | None:
    """Return the longest clip of a model that needs the edited last frame too; None for all others and for an unknown model."""
    try:
        record = locate_model(model)[0]
    except ModelError:
        return None
    return record.geometry.max_frames if record.last_frame else None


def get_geometry(model: str) -> Geometry | None:
    """Return the model's grid; None for an unknown model."""
    try:
        return locate_model(model)[0].geometry
    except ModelError:
        return None


def get_short_window(model: str) -> int | None:
    """Return the frames per training window when memory is short; None for an unknown model."""
    try:
        return locate_model(model)[0].short_window
    except ModelError:
        return None


def get_first_frame_only_max_frames(model: str) -> int | None:
    """Return the longest clip of a model without a mask in space; None for all others and for an unknown model."""
    try:
        record = locate_model(model)[0]
    except ModelError:
        return None
    return None if record.spatial_mask else record.geometry.max_frames


def find_weights(record: ModelRecord, source: str) -> Path | None:
    """Find the folder or file of the model's transformers; None when parts of the model are missing."""
    try:
        checkpoint = find_parts(record, source)
    except ModelError:
        return None
    if checkpoint.missing:
        return None
    part_files = checkpoint.parts[record.transformer_parts[0]]
    return part_files.folder.parent if part_files.folder else part_files.files[0]


def _identify_folder(folder: Path, repo: str = "") -> ModelRecord:
    """Identify a folder by its transformer's configuration; where several models fit, by the repository in its name."""

    def has_parts(record: ModelRecord) -> bool:
        return all((folder / part / "config.json").is_file() for part in record.transformer_parts)

    return _choose_model(read_config(folder), repo or str(folder), repo or str(folder.resolve()), has_parts)


def _identify_file(file: Path) -> ModelRecord:
    """Identify a single file by its header."""
    if file.suffix == GGUF_SUFFIX:
        raise ModelError(f"{file}: does not say which model it is; give it as NAME@{file} (`lora-edit models`)")
    shapes = {key: shape for each in find_shards(file) for key, shape in read_header(each).shapes.items()}
    readable = [record for record in list_models() if record.companions_config]
    config = infer_config("transformer", shapes, readable[0].read_transformer_config())
    if not config:
        for name, pattern in OTHER_FAMILIES.items():
            if any(re.search(pattern, key) for key in shapes):
                raise ModelError(f"{file}: holds {name}, whose single files are not read; give a folder in diffusers' layout")
        first_key = next(iter(shapes), "missing")
        raise ModelError(f"{file}: holds no transformer of Wan's (its first tensor is {first_key!r}); give its checkpoint")

    def has_parts(record: ModelRecord) -> bool:
        try:
            return record in readable and bool(find_parts(record, str(file)))
        except ModelError:
            return False

    return _choose_model(config, str(file), str(file), has_parts)


def _choose_model(config: dict[str, Any], source: str, name_hint: str, has_parts: Callable[[ModelRecord], bool]) -> ModelRecord:
    """Choose the one model that fits a configuration and whose transformers all exist; `name_hint` decides between several."""
    known = [record for record in list_models() if record.config]
    fitting = [record for record in known if not find_differences(config, record.read_transformer_config()) and has_parts(record)]
    named = [record for record in fitting if record.repo and record.repo.rpartition("/")[2].lower() in name_hint.lower()]
    matches = named if len(named) == 1 else fitting
    if len(matches) == 1:
        return matches[0]
    if fitting:
        raise ModelError(f"{source}: fits {', '.join(record.name for record in fitting)}; say which as NAME@{source}")
    nearest = min(known, key=lambda record: len(find_differences(config, record.read_transformer_config())))
    faults = "; ".join(find_differences(config, nearest.read_transformer_config())[:3]) or f"no {' and '.join(nearest.transformer_parts)}"
    raise ModelError(f"{source}: holds no known model; nearest is {nearest.name} ({faults}); choose another (`lora-edit models`)")


def _import_record(target: str) -> ModelRecord:
    try:
        record = import_target(target)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"model {target!r}: {error}; install the package or correct module:NAME") from error
    if not isinstance(record, ModelRecord):
        raise ModelError(f"model {target!r} is a {type(record).__name__}; name a ModelRecord (docs/add-a-family.md)")
    return record


def _make_absolute(source: str) -> str:
    return str(Path(source).absolute()) if Path(source).exists() else source
