"""Which of a model's layers a LoRA file changes, counted, with what does not fit said in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.loras.files import LayerDelta, LoraFile
from lora_edit.loras.layouts import format_layer_pattern
from lora_edit.loras.names import flatten_name, index_flat_names


@dataclass(frozen=True)
class LayerMatch:
    """Changes by the model's own layer names; of the file's `total` layers `matched` were found, `unused` were not (as patterns)."""

    deltas: dict[str, LayerDelta]
    num_matched: int
    num_layers: int
    unused_layers: tuple[str, ...]


def match_layers(file: LoraFile, transformer: nn.Module, model: str) -> LayerMatch:
    """Find the file's layers in a model, whatever the layout's spelling. A LoRA that the model already carries does not disturb.

    Takes what `read_lora` read as well as what `sketch_lora` knows from the header. Raises `ModelError` when none is found, with what the
    file seems to be for, when shapes differ, with those found and expected, and when two of its layers are one of the model's.
    """
    linears, parameters = collect_linear_sizes(transformer), collect_parameter_shapes(transformer)
    index = index_flat_names([*linears, *{name.removesuffix(".weight").removesuffix(".bias") for name in parameters}])
    changes: dict[str, LayerDelta] = {}
    unused: list[str] = []
    faults: list[str] = []
    for layer, change in file.layers.items():
        names = index.get(flatten_name(layer), ())
        if not names or not (names[0] in linears or _fits_parameters(change, names[0], parameters)):
            unused.append(format_layer_pattern(layer))
            continue
        sizes = [linears[name] for name in names if name in linears]
        faults += _find_shape_mismatches(layer, change, sizes)
        if not changes.keys().isdisjoint(names):
            raise ModelError(f"{file.path}: holds two LoRAs for {names[0]}; give each in a file of its own")
        if not faults:
            changes |= zip(names, split_delta(change, [out for _, out in sizes]), strict=True)
    total = len(file.layers)
    if len(unused) == total:
        raise ModelError(f"{file.path}: none of its {total} layers is in {model}; it seems to be for {file.base_model}; give another LoRA")
    if faults:
        raise ModelError(
            f"{file.path}: made for another base than {model}: {faults[0]}; {len(faults)} of {total} layers differ "
            f"(it seems to be for {file.base_model}); give a LoRA for {model}"
        )
    return LayerMatch(changes, total - len(unused), total, tuple(sorted(set(unused))))


def collect_linear_sizes(transformer: nn.Module) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every linear layer, by name; parts of an adapter are left out, layers that carry one count as themselves."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, module in transformer.named_modules():
        inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
        if isinstance(inputs, int) and isinstance(outputs, int) and not _is_adapter_layer(name):
            sizes[name] = inputs, outputs
    return sizes


def collect_parameter_shapes(transformer: nn.Module) -> dict[str, torch.Size]:
    """Shapes of the base model's parameters, by the name that they have without an adapter."""
    return {name.replace(".base_layer", ""): each.shape for name, each in transformer.named_parameters() if ".lora_" not in name}


def _is_adapter_layer(name: str) -> bool:
    return ".base_layer" in name or ".lora_" in name


def _fits_parameters(delta: LayerDelta, name: str, parameters: dict[str, torch.Size]) -> bool:
    """Can full differences be added to a norm, a convolution or a bare parameter? A pair cannot."""
    if delta.rank:
        return False
    given = ((delta.diff, parameters.get(f"{name}.weight", parameters.get(name))), (delta.diff_bias, parameters.get(f"{name}.bias")))
    return all(diff is None or diff.shape == shape for diff, shape in given)


def _find_shape_mismatches(layer: str, delta: LayerDelta, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """A line when the change does not fit the linear layers; empty for other layers, which were compared already."""
    if not sizes:
        return []
    weight, bias = (sum(out for _, out in sizes), sizes[0][0]), (sum(out for _, out in sizes),)
    given: list[tuple[Sequence[int], Sequence[int]]] = []
    if delta.down is not None and delta.up is not None:
        given.append(((*delta.up.shape[:1], *delta.up.shape[2:], *delta.down.shape[1:]), weight))
    given += [(delta.diff.shape, weight)] if delta.diff is not None else []
    given += [(each.shape, bias) for each in (delta.up_bias, delta.diff_bias) if each is not None]
    wrong = [(_format_shape(found), _format_shape(expected)) for found, expected in given if tuple(found) != tuple(expected)]
    return [f"{layer} is {found} in the file and {expected} in the model" for found, expected in wrong[:1]]


def _format_shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def split_delta(delta: LayerDelta, rows: Sequence[int]) -> list[LayerDelta]:
    """A change of a matrix that holds several layers' rows, as one change for each of them."""
    if len(rows) < 2:
        return [delta]
    pieces: list[LayerDelta] = [LayerDelta(delta.down, alpha=delta.alpha)] * len(rows)
    for field in ("up", "up_bias", "diff", "diff_bias"):
        whole: torch.Tensor | None = getattr(delta, field)
        if whole is not None:
            pieces = [replace(piece, **{field: part}) for piece, part in zip(pieces, torch.split(whole, list(rows)), strict=True)]  # type: ignore[arg-type]
    return pieces
