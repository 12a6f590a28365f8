"""The start of training from a LoRA file (`lora.init`): its pairs instead of random ones, with further ranks that have no effect yet."""

from __future__ import annotations

import re

import torch

from lora_edit.errors import ModelError
from lora_edit.loras.extra_loras import infer_expert
from lora_edit.loras.files import LoraFile, read_lora, read_lora_shapes
from lora_edit.loras.layouts import format_layer_pattern
from lora_edit.loras.match import LayerMatch, collect_linear_sizes, match_layers
from lora_edit.models.family import Expert, Family, load_meta_family
from lora_edit.training.lora import get_lora_parameters
from lora_edit.training.settings import LoraSettings


def check_initial_lora(settings: LoraSettings, model: str) -> None:
    """Check the file of `lora.init` by its header and the model's layers, before the model is loaded. Raises `ModelError`.

    Models whose layers are known only once they are loaded are checked before their first step.
    """
    if settings.init is None:
        return
    file = read_lora_shapes(settings.init)
    _check_pairs(file, settings)
    family = load_meta_family(model)
    if family is not None:
        _match_adapted_layers(file, family.experts()[0], settings)


def apply_initial_lora(family: Family, expert: Expert, settings: LoraSettings) -> list[str]:
    """Write the file's pairs into the LoRA that `add_lora` made; the expert then predicts as with the file.

    A pair of a smaller rank fills the first rows; the others keep their random `A` and a `B` of zero, so that they have no effect and can
    be trained. A file for another expert is not used. Returns notes. Raises `ModelError` when the file does not fit.
    """
    assert settings.init is not None
    file = read_lora(settings.init)
    part = infer_expert(file, [each.part for each in family.experts()])
    if part not in ("", expert.part):
        return [f"{settings.init.name}: is for the {part} expert; the {expert.part} expert starts anew"]
    _check_pairs(file, settings)
    match, adapted = _match_adapted_layers(file, expert, settings)
    parameters = get_lora_parameters(expert)
    own_scale = (settings.alpha or settings.rank) / settings.rank
    with torch.no_grad():
        for name in adapted:
            delta = match.deltas[name]
            down, up = (next(each for key, each in parameters.items() if key.startswith(f"{name}.lora_{side}.")) for side in "AB")
            assert delta.down is not None and delta.up is not None
            down[: delta.rank] = delta.down.to(down)
            up.zero_()
            up[:, : delta.rank] = delta.up.to(up) * (delta.scale / own_scale)
    return _describe_match(file, match, adapted, len(parameters) // 2)


def _check_pairs(file: LoraFile, settings: LoraSettings) -> None:
    """Raise `ModelError` for a larger rank, and for changes that are no pairs."""
    rank = max(delta.rank for delta in file.layers.values())
    if rank > settings.rank:
        raise ModelError(f"{file.path}: has rank {rank} and lora.rank is {settings.rank}; set lora.rank to {rank} or more to start from it")
    for layer, delta in file.layers.items():
        if any(each is not None for each in (delta.diff, delta.diff_bias, delta.up_bias)):
            raise ModelError(
                f"{file.path}: changes {layer} by more than a pair of matrices, which training cannot start from; give a plain LoRA"
            )


def _match_adapted_layers(file: LoraFile, expert: Expert, settings: LoraSettings) -> tuple[LayerMatch, list[str]]:
    """Match the file with the model; returns the match and those of its layers that `lora.targets` adapts.

    Raises `ModelError` when nothing remains, and for layers that other targets would adapt, which the LoRA would lose.
    """
    match = match_layers(file, expert.transformer, expert.name)
    sizes = collect_linear_sizes(expert.transformer)

    def find_layers(targets: str) -> list[str]:
        return [name for name in match.deltas if name in sizes and re.fullmatch(expert.lora_targets[targets], name)]

    adapted = find_layers(settings.targets)
    for targets in expert.lora_targets:
        lost = [name for name in find_layers(targets) if name not in adapted]
        if lost:
            raise ModelError(
                f"{file.path}: has {len(lost)} layers ({format_layer_pattern(lost[0])}) that lora.targets = {settings.targets} leaves out; "
                f"set lora.targets to {targets}"
            )
    if not adapted:
        raise ModelError(f"{file.path}: none of its layers is among those that {expert.name} trains; start without lora.init")
    return match, adapted


def _describe_match(file: LoraFile, match: LayerMatch, adapted: list[str], num_trained: int) -> list[str]:
    """Describe the layers of the file that are not used, and those of the model that start anew; empty when all fit."""
    untrained = sorted({format_layer_pattern(name) for name in match.deltas if name not in adapted})
    unused = [*match.unused_layers, *untrained]
    notes = [f"{file.path.name}: not used: {', '.join(unused[:4])}{', ...' if len(unused) > 4 else ''}"] if unused else []
    if len(adapted) < num_trained:
        notes.append(f"{file.path.name}: starts {len(adapted)} of {num_trained} layers; the others start anew")
    return notes
