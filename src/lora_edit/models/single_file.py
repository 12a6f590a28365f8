"""Single files into modules: prefixes stripped, names translated, scaled 8-bit weights multiplied out, every tensor accounted for.

diffusers' own loaders guess the configuration, leave scales aside with a warning, and drop names they do not know; here a file fills the
whole module it is read for, or is refused before any of it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.catalog.headers import Header, read_header
from lora_edit.models.wan_keys import Rename, model_prefix

FLOAT8 = {"F8_E4M3", "F8_E5M2"}
PLAIN = {"F64", "F32", "F16", "BF16", *FLOAT8}
SCALES = (".scale_weight", ".weight_scale")
"""Of a layer's weight: ComfyUI's and Kijai's older name, and ComfyUI's newer one."""
ASIDE = (".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
"""What belongs to 8-bit arithmetic on activations or says how weights are stored; no weights."""
OTHERWISE = "give a bf16, fp16 or fp8 file"
FORMATS = {"float8_e4m3fn", "float8_e5m2"}


@dataclass(frozen=True)
class Source:
    """Where a parameter comes from: a tensor of a file, the `row`-th of `rows` equal parts of it, and the key of its scale, if any."""

    header: Header
    key: str
    row: int
    rows: int
    scale: tuple[Header, str] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the part."""
        first, *rest = self.header.shapes[self.key] or (1,)
        return (first // self.rows, *rest)


def sources_of(module: nn.Module, files: Sequence[Path], rename: Rename) -> dict[str, Source]:
    """Where each parameter of an empty module comes from. Raises `ModelError`, with no tensor read, when the files do not hold exactly
    this module, or keep it in a way that is not read."""
    _tie(module)
    wanted = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    linear = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    return match([read_header(file) for file in files], wanted, linear, rename)


def fill(module: nn.Module, files: Sequence[Path], rename: Rename, dtype: Callable[[str], torch.dtype]) -> nn.Module:
    """Give an empty module the weights of single files, each parameter in the number format that `dtype` says for its name.

    Parameters are on the meta device before and on the CPU afterwards. Raises as `sources_of`.
    """
    sources = sources_of(module, files, rename)
    wanted = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    for header in {id(source.header): source.header for source in sources.values()}.values():
        with _opened(header) as tensors:
            for name, source in sources.items():
                if source.header is header:
                    value = _part(tensors, source).reshape(wanted[name]).to(dtype(name))
                    set_parameter(module, name, value)
    _tie(module)
    return module


def _tie(module: nn.Module) -> None:
    """transformers' name for parameters that are one; a file has them once."""
    tie: Callable[[], None] = getattr(module, "tie_weights", lambda: None)
    tie()


def match(headers: Sequence[Header], wanted: dict[str, tuple[int, ...]], linear: set[str], rename: Rename) -> dict[str, Source]:
    """Every wanted parameter's source. Raises `ModelError` when one is missing, too many, misshapen, or stored in a way unknown here."""
    where = {key: header for header in headers for key in header.shapes}
    place, prefix = headers[0].path, model_prefix(where)
    _check_formats(headers)
    sources: dict[str, Source] = {}
    extra: list[str] = []
    for key, header in where.items():
        if not key.startswith(prefix) or key.endswith((*SCALES, *ASIDE)):
            continue
        names = rename(key.removeprefix(prefix))
        scale = next((key.removesuffix(".weight") + ending for ending in SCALES if key.removesuffix(".weight") + ending in where), None)
        for row, name in enumerate(names):
            if name not in wanted:
                extra.append(key)
                continue
            sources[name] = Source(header, key, row, len(names), (where[scale], scale) if scale else None)
    gone = [name for name in wanted if name not in sources]
    if extra or gone:
        faults = [f"{len(gone)} tensors are missing, such as {gone[0]}"] if gone else []
        faults += [f"{len(extra)} are unknown, such as {extra[0]}"] if extra else []
        raise ModelError(f"{place}: is not this model ({' and '.join(faults)}); choose the model that it is, or another file")
    for name, source in sources.items():
        if _without_ones(source.shape) != _without_ones(wanted[name]):
            raise ModelError(f"{place}: {source.key} is {list(source.shape)} instead of {list(wanted[name])}; choose the model that it is")
    _check_scales(place, sources, linear, scaled=any(key.endswith((*SCALES, "scaled_fp8")) for key in where))
    return sources


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _check_formats(headers: Sequence[Header]) -> None:
    """Layers that ComfyUI's newer files mark: only scaled 8-bit floats are read. The marks are small tensors, or in the metadata."""
    for header in headers:
        layers = dict(json.loads(header.metadata.get("_quantization_metadata", "{}")).get("layers", {}))
        marks = [key for key in header.shapes if key.endswith(".comfy_quant")]
        if marks:
            with _opened(header) as tensors:
                layers |= {key: json.loads(bytes(tensors.get_tensor(key).tolist())) for key in marks}
        for layer, mark in layers.items():
            if mark.get("format") not in FORMATS:
                raise ModelError(f"{header.path}: {layer} is stored as {mark.get('format')}, which is not read; {OTHERWISE}")


def _check_scales(place: Path, sources: dict[str, Source], linear: set[str], scaled: bool) -> None:
    for name, source in sources.items():
        kind = source.header.dtypes[source.key]
        if kind not in PLAIN:
            raise ModelError(f"{place}: {source.key} is stored as {kind}, which is not read; {OTHERWISE}")
        if scaled and kind in FLOAT8 and source.scale is None and name in linear:
            raise ModelError(f"{place}: {source.key} is scaled and its scale is missing; download it again, or {OTHERWISE}")
        if source.scale is not None:
            header, key = source.scale
            shape, rows = header.shapes[key], source.header.shapes[source.key][0]
            whole = prod(shape) == 1 or (shape[0] == rows and (prod(shape) == rows or (len(shape) == 3 and shape[2] == 1)))
            if header.dtypes[key] not in PLAIN or kind not in FLOAT8 or not whole:
                found = f"{header.dtypes[key]} {list(shape)} on {kind}"
                raise ModelError(f"{place}: the scale of {source.key} ({found}) is of a kind that is not read; {OTHERWISE}")


def _part(tensors: Any, source: Source) -> torch.Tensor:
    """The tensor, exact: 8-bit weights are multiplied out in float32."""
    value: torch.Tensor = tensors.get_tensor(source.key)
    if source.scale is not None:
        header, key = source.scale
        if header is source.header:
            scale = tensors.get_tensor(key)
        else:
            with _opened(header) as others:
                scale = others.get_tensor(key)
        value = dequantise(value, scale)
    return value if source.rows == 1 else value.chunk(source.rows)[source.row]


def dequantise(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """8-bit weight `[out, ...]` times its scale, in float32: one for all, one per row (`[out]`, `[out, 1]`), or one per block of a row
    (`[out, blocks, 1]`, as musubi-tuner writes them)."""
    exact, scale = weight.float(), scale.float()
    if scale.numel() == 1:
        return exact * scale.reshape(())
    rows = len(exact)
    return (exact.reshape(rows, scale.numel() // rows, -1) * scale.reshape(rows, -1, 1)).reshape(exact.shape)


def _opened(header: Header) -> Any:
    from safetensors import safe_open

    return safe_open(header.path, framework="pt")


def set_parameter(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put a tensor in a parameter's place, frozen; a parameter of its own kind stays what it is."""
    owner, _, last = name.rpartition(".")
    kept = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
    module.get_submodule(owner)._parameters[last] = kept


def empty(build: Callable[[], nn.Module]) -> nn.Module:
    """A module with its parameters on the meta device and its buffers, which are computed, on the CPU."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return build()
