"""From what a person calls a model to its facts and the place of its weights.

A model is called by a known name (`wan2.1-i2v-480p`), by a folder in diffusers' layout, by a Hub repository (`org/name`), by
`NAME@PLACE` (a known model from a folder, a file or a repository; docs/loading.md), or by `module:NAME`, a `ModelFacts` of somebody
else's package. Packages also add names with the entry-point group `lora_edit.families`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lora_edit.errors import ModelError
from lora_edit.models.catalog.facts import Geometry, ModelFacts, Preset, differences
from lora_edit.models.catalog.headers import INDEX, PICKLE_ENDINGS, read_config, read_header, shards
from lora_edit.models.catalog.hub import hub_folder
from lora_edit.models.catalog.known import KNOWN
from lora_edit.models.catalog.places import GGUF, find
from lora_edit.models.catalog.presets import named_preset
from lora_edit.models.catalog.shapes import told

GROUP = "lora_edit.families"
FILES = (".safetensors", INDEX, GGUF, *PICKLE_ENDINGS)


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
    if not at and model.lower().endswith(FILES):
        return _identify_file(Path(model).absolute()), _absolute(model)
    if ":" in model and not at:
        return (facts := _facts_at(model)), facts.repo
    models = all_models()
    for facts in models:
        if facts.repo and facts.repo.lower() == model.lower():
            return facts, facts.repo
    if (folder := hub_folder(model)) is not None:
        return _identify(folder, model), model
    raise ModelError(
        f"model {model!r} is unknown; this version has {', '.join(facts.name for facts in models)} (see `lora-edit models`), and takes a "
        "folder in diffusers' layout, a .safetensors file or a downloaded Hub repository"
    )


def _called(name: str) -> ModelFacts | None:
    """The model of that name. Of the installed packages only the one that adds it is imported, so a broken one troubles nobody else."""
    for facts in KNOWN:
        if facts.name == name:
            return facts
    return next((_facts_at(point.value) for point in entry_points(group=GROUP, name=name)), None)


def check_stand_in(model: str | None, trained_on: str, trained: bool) -> None:
    """Raise `ModelError` when a model cannot generate with a LoRA that was trained on another checkpoint: it has to be the same model."""
    if model is None:
        return
    own, other = locate(trained_on)[0].name, locate(model)[0].name
    if own != other:
        raise ModelError(f"--model {model}: is {other} and the run's LoRA was trained on {own}; give another checkpoint of {own}")
    if not trained:
        raise ModelError(f"--model {model}: stands in for a model whose LoRA is trained; train the run first with `lora-edit train`")


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


def short_window_of(model: str) -> int | None:
    """How many frames training may see at a time when memory is short; None for a model that is not found, which nothing trains."""
    try:
        return locate(model)[0].short_window
    except ModelError:
        return None


def takes_first_frame_only(model: str) -> int | None:
    """The longest clip of a model that cannot be told which part of a frame is given; None for all others and for one not found."""
    try:
        facts = locate(model)[0]
    except ModelError:
        return None
    return None if facts.spatial_mask else facts.geometry.max_frames


def weights_at(facts: ModelFacts, source: str) -> Path | None:
    """The folder or file that the model's transformers are read from; None when parts of the model are missing."""
    try:
        found = find(facts, source)
    except ModelError:
        return None
    if found.lacking:
        return None
    place = found.places[facts.parts[0]]
    return place.folder.parent if place.folder else place.files[0]


def _identify(folder: Path, called: str = "") -> ModelFacts:
    """The known model whose transformer is configured like the folder's; where several are, the one whose repository it is called after."""

    def has_parts(facts: ModelFacts) -> bool:
        return all((folder / part / "config.json").is_file() for part in facts.parts)

    return _choose(read_config(folder), called or str(folder), called or str(folder.resolve()), has_parts)


def _identify_file(file: Path) -> ModelFacts:
    """The known model whose transformer a single file is, by its header."""
    if file.suffix == GGUF:
        raise ModelError(f"{file}: does not say which model it is; give it as NAME@{file} (`lora-edit models`)")
    shapes = {key: shape for each in shards(file) for key, shape in read_header(each).shapes.items()}
    readable = [facts for facts in all_models() if facts.companions]
    found = told("transformer", shapes, readable[0].transformer_config())
    if not found:
        first = next(iter(shapes), "missing")
        raise ModelError(f"{file}: holds no transformer of Wan's (its first tensor is {first!r}); give its checkpoint")

    def has_parts(facts: ModelFacts) -> bool:
        try:
            return facts in readable and bool(find(facts, str(file)))
        except ModelError:
            return False

    return _choose(found, str(file), str(file), has_parts)


def _choose(found: dict[str, Any], place: str, called: str, has_parts: Callable[[ModelFacts], bool]) -> ModelFacts:
    """The one model that a configuration fits and that has all its transformers; `called` may decide between several."""
    known = [facts for facts in all_models() if facts.config]
    fitting = [facts for facts in known if has_parts(facts) and not differences(found, facts.transformer_config())]
    named = [facts for facts in fitting if facts.repo and facts.repo.rpartition("/")[2].lower() in called.lower()]
    chosen = named if len(named) == 1 else fitting
    if len(chosen) == 1:
        return chosen[0]
    if fitting:
        raise ModelError(f"{place}: fits {', '.join(facts.name for facts in fitting)}; say which as NAME@{place}")
    nearest = min(known, key=lambda facts: len(differences(found, facts.transformer_config())))
    faults = "; ".join(differences(found, nearest.transformer_config())[:3]) or f"no {' and '.join(nearest.parts)}"
    raise ModelError(f"{place}: holds no known model; nearest is {nearest.name} ({faults}); choose another (`lora-edit models`)")


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
    return str(Path(source).absolute()) if Path(source).exists() else source
