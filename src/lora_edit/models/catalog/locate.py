"""From what a person calls a model to its facts and the place of its weights.

A model is called by a known name (`wan2.1-i2v-480p`), by a folder in diffusers' layout, by a Hub repository (`org/name`), by
`NAME@FOLDER` or `NAME@org/name` (a known model from there), or by `module:NAME`, a `ModelFacts` of somebody else's package. Packages
also add names with the entry-point group `lora_edit.families`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lora_edit.errors import ModelError
from lora_edit.models.catalog.facts import Geometry, ModelFacts, Preset, differences
from lora_edit.models.catalog.known import KNOWN
from lora_edit.models.catalog.presets import named_preset

GROUP = "lora_edit.families"


def all_models() -> list[ModelFacts]:
    """The known models, then those that installed packages add. A name that is known already stays what it was."""
    found = {facts.name: facts for facts in KNOWN}
    for point in entry_points(group=GROUP):
        if point.name not in found:
            found[point.name] = _facts_at(point.value)
    return list(found.values())


def locate(model: str) -> tuple[ModelFacts, str]:
    """The model's facts, and the folder or repository its weights come from. Raises `ModelError`."""
    name, at, source = model.partition("@")
    known = _called(name)
    if known is not None and bool(at) == bool(source):
        return known, _absolute(source) if at else known.repo
    if Path(model).is_dir():
        return _identify(Path(model).absolute()), _absolute(model)
    if ":" in model and not at:
        return (facts := _facts_at(model)), facts.repo
    models = all_models()
    for facts in models:
        if facts.repo and facts.repo.lower() == model.lower():
            return facts, facts.repo
    if model.count("/") == 1 and (folder := hub_folder(model)) is not None:
        return _identify(folder, model), model
    raise ModelError(
        f"model {model!r} is unknown; this version has {', '.join(facts.name for facts in models)} (see `lora-edit models`), and takes a "
        "folder in diffusers' layout or a downloaded Hub repository"
    )


def _called(name: str) -> ModelFacts | None:
    """The model of that name. Of the installed packages only the one that adds it is imported, so a broken one troubles nobody else."""
    for facts in KNOWN:
        if facts.name == name:
            return facts
    return next((_facts_at(point.value) for point in entry_points(group=GROUP, name=name)), None)


def preset_of(model: str, name: str = "standard", defaults: Preset | None = None) -> Preset:
    """What differs from the settings' `defaults` for a model and a named preset; empty for a model that is not found, whose settings are
    then as given."""
    try:
        facts = locate(model)[0]
    except ModelError:
        return {}
    own, defaults = facts.preset(), defaults or {}
    spelled = {room: defaults.get(room, {}) | own.get(room, {}) for room in {*defaults, *own}}
    named = named_preset(name, spelled, facts.short_window)
    return {room: own.get(room, {}) | named.get(room, {}) for room in {*own, *named}}


def reads_prompts(model: str) -> bool:
    """Does the model take a prompt? One that is not found takes none."""
    try:
        return locate(model)[0].reads_prompts
    except ModelError:
        return False


def needs_last_frame(model: str) -> int | None:
    """The longest clip of a model that has to be shown the edited last frame too; None for all others and for one that is not found."""
    try:
        facts = locate(model)[0]
    except ModelError:
        return None
    return facts.geometry.max_frames if facts.last_frame else None


def geometry_of(model: str) -> Geometry | None:
    """The model's grid; None for one that is not found."""
    try:
        return locate(model)[0].geometry
    except ModelError:
        return None


def hub_folder(repo: str) -> Path | None:
    """The newest downloaded snapshot of a Hub repository that holds a transformer's configuration; None when there is none."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
    whole = [folder for folder in snapshots.glob("*") if (folder / "transformer" / "config.json").is_file()]
    return max(whole, key=lambda folder: folder.stat().st_mtime, default=None)


def weights_at(facts: ModelFacts, source: str) -> Path | None:
    """The folder that holds weights of all the model's transformers, downloaded or given; None when some are missing."""
    folder = Path(source) if source and Path(source).is_dir() else hub_folder(source) if source.count("/") == 1 else None
    if folder is None or not all(any((folder / part).glob("*.safetensors")) for part in facts.parts):
        return None
    return folder


def read_config(folder: Path, part: str = "transformer") -> dict[str, Any]:
    """`part/config.json` of a folder in diffusers' layout. Raises `ModelError` when it is missing or no JSON."""
    path = folder / part / "config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(
            f"{folder}: no {part}/config.json, so this is no model in diffusers' layout; give the folder that has it"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path}: not a JSON file ({error}); download it again") from error
    return found


def _identify(folder: Path, called: str = "") -> ModelFacts:
    """The known model whose transformer is configured like the folder's; where several are, the one whose repository it is called after."""
    found = read_config(folder)
    fitting = list(_fitting(folder, found))
    place = (called or str(folder.resolve())).lower()
    named = [facts for facts in fitting if facts.repo and facts.repo.rpartition("/")[2].lower() in place]
    chosen = named if len(named) == 1 else fitting
    if len(chosen) == 1:
        return chosen[0]
    if fitting:
        names = ", ".join(facts.name for facts in fitting)
        raise ModelError(f"{called or folder}: fits {names}; say which as NAME@{called or folder}")
    nearest = min((facts for facts in all_models() if facts.config), key=lambda facts: len(differences(found, facts.transformer_config())))
    faults = "; ".join(differences(found, nearest.transformer_config())[:3]) or f"no {' and '.join(nearest.parts)}"
    raise ModelError(f"{called or folder}: holds no known model; nearest is {nearest.name} ({faults}); choose another (`lora-edit models`)")


def _fitting(folder: Path, found: dict[str, Any]) -> Iterator[ModelFacts]:
    for facts in all_models():
        wanted = facts.transformer_config()
        halves = all((folder / part / "config.json").is_file() for part in facts.parts)
        if wanted and halves and not differences(found, wanted):
            yield facts


def _facts_at(target: str) -> ModelFacts:
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"model {target!r}: {error}; install the package or correct module:NAME") from error
    if not isinstance(found, ModelFacts):
        raise ModelError(f"model {target!r} is a {type(found).__name__}; name a ModelFacts (docs/add-a-family.md)")
    return found


def _absolute(source: str) -> str:
    return str(Path(source).absolute()) if Path(source).is_dir() else source
