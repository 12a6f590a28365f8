"""Matching of a LoRA file's layers with a model's, with counts and errors for layers that do not match."""

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
    """Deltas by the model's layer names.

    Of the file's `num_layers` layers, the model has `num_matched`; `unused_layers` are patterns of the others.
    """

    deltas: dict[str, LayerDelta]
    num_matched: int
    num_layers: int
    unused_layers: tuple[str, ...]


def match_layers(file: LoraFile, transformer: nn.Module, model: str) -> LayerMatch:
    """Find the file's layers in a model, in any layout's spelling. Adapters that the model already has are ignored.

    `file` is the result of `read_lora` or `read_lora_shapes`. Raises `ModelError`

    - when no layer matches, with the model that the file seems to be for;
    - when shapes differ, with the actual and expected ones;
    - when two of its layers are the same layer of the model.
    """
    linears, parameters = collect_linear_sizes(transformer), collect_parameter_shapes(transformer)
    index = index_flat_names([*linears, *{name.removesuffix(".weight").removesuffix(".bias") for name in parameters}])
    deltas: dict[str, LayerDelta] = {}
    unused: list[str] = []
    mismatches: list[str] = []
    for layer, delta in file.layers.items():
        names = index.get(flatten_name(layer), ())
        if not names or not (names[0] in linears or _fits_parameters(delta, names[0], parameters)):
            unused.append(format_layer_pattern(layer))
            continue
        sizes = [linears[name] for name in names if name in linears]
        mismatches += _find_shape_mismatches(layer, delta, sizes)
        if not deltas.keys().isdisjoint(names):
            raise ModelError(f"{file.path}: holds two LoRAs for {names[0]}; give each in a file of its own")
        if not mismatches:
            deltas |= zip(names, split_delta(delta, [out for _, out in sizes]), strict=True)
    total = len(file.layers)
    if len(unused) == total:
        raise ModelError(f"{file.path}: none of its {total} layers is in {model}; it seems to be for {file.base_model}; give another LoRA")
    if mismatches:
        raise ModelError(
            f"{file.path}: made for another base than {model}: {mismatches[0]}; {len(mismatches)} of {total} layers differ "
            f"(it seems to be for {file.base_model}); give a LoRA for {model}"
        )
    return LayerMatch(deltas, total - len(unused), total, tuple(sorted(set(unused))))


def collect_linear_sizes(transformer: nn.Module) -> dict[str, tuple[int, int]]:
    """Collect the input and output sizes of every linear layer by name, without the adapters' own layers."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, module in transformer.named_modules():
        inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
        if isinstance(inputs, int) and isinstance(outputs, int) and not _is_adapter_layer(name):
            sizes[name] = inputs, outputs
    return sizes


def collect_parameter_shapes(transformer: nn.Module) -> dict[str, torch.Size]:
    """Collect the shapes of the base model's parameters, by their names without an adapter."""
    return {name.replace(".base_layer", ""): each.shape for name, each in transformer.named_parameters() if ".lora_" not in name}


def _is_adapter_layer(name: str) -> bool:
    return ".base_layer" in name or ".lora_" in name


def _fits_parameters(delta: LayerDelta, name: str, parameters: dict[str, torch.Size]) -> bool:
    """Return whether full differences fit a norm, a convolution or a bare parameter; a pair never does."""
    if delta.rank:
        return False
    pairs = ((delta.diff, parameters.get(f"{name}.weight", parameters.get(name))), (delta.diff_bias, parameters.get(f"{name}.bias")))
    return all(diff is None or diff.shape == shape for diff, shape in pairs)


def _find_shape_mismatches(layer: str, delta: LayerDelta, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Describe the first shape mismatch with linear layers, as a list of at most one line; empty for other layers."""
    if not sizes:
        return []
    weight, bias = (sum(out for _, out in sizes), sizes[0][0]), (sum(out for _, out in sizes),)
    comparisons: list[tuple[Sequence[int], Sequence[int]]] = []
    if delta.down is not None and delta.up is not None:
        comparisons.append(((*delta.up.shape[:1], *delta.up.shape[2:], *delta.down.shape[1:]), weight))
    comparisons += [(delta.diff.shape, weight)] if delta.diff is not None else []
    comparisons += [(each.shape, bias) for each in (delta.up_bias, delta.diff_bias) if each is not None]
    mismatches = [(_format_shape(actual), _format_shape(expected)) for actual, expected in comparisons if tuple(actual) != tuple(expected)]
    return [f"{layer} is {actual} in the file and {expected} in the model" for actual, expected in mismatches[:1]]


def _format_shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def split_delta(delta: LayerDelta, rows: Sequence[int]) -> list[LayerDelta]:
    """Split the delta of a matrix that contains the rows of several layers into one delta per layer."""
    if len(rows) < 2:
        return [delta]
    pieces: list[LayerDelta] = [LayerDelta(delta.down, alpha=delta.alpha)] * len(rows)
    for field in ("up", "up_bias", "diff", "diff_bias"):
        whole: torch.Tensor | None = getattr(delta, field)
        if whole is not None:
            pieces = [replace(piece, **{field: part}) for piece, part in zip(pieces, torch.split(whole, list(rows)), strict=True)]  # type: ignore[arg-type]
    return pieces
