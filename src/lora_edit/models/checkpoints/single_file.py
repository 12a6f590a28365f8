"""Single files into modules: prefixes removed, keys renamed, scaled 8-bit weights dequantized, every tensor accounted for.

diffusers' own loaders guess the configuration, ignore scales with a warning, and drop unknown keys. Here a file either fills the whole
module, or is refused before any of it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.headers import Header, read_header
from lora_edit.models.families.wan.key_names import KeyRenamer, find_model_prefix
from lora_edit.models.runtime.quantization import QuantizedLinear

FLOAT8_DTYPES = {"F8_E4M3", "F8_E5M2"}
SUPPORTED_DTYPES = {"F64", "F32", "F16", "BF16", *FLOAT8_DTYPES}
SCALE_SUFFIXES = (".scale_weight", ".weight_scale")
"""Suffixes of a weight's scale: ComfyUI's and Kijai's older name, and ComfyUI's newer one."""
IGNORED_SUFFIXES = (".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
"""Suffixes of tensors for 8-bit arithmetic on activations and of storage marks; no weights."""
IGNORED_PREFIXES = ("model_type.",)
"""Prefixes of tensors that name the kind of a model (Kijai's first-and-last-frame file)."""
_BLOCK_WEIGHT_PATTERN = re.compile(r"blocks\.\d+\..*\.weight$")
FORMAT_ADVICE = "give a bf16, fp16 or fp8 file"
QUANTIZED_FORMATS = {"float8_e4m3fn", "float8_e5m2"}


@dataclass(frozen=True)
class TensorSource:
    """Source of a parameter: a tensor of a file, chunk `chunk` of `num_chunks` equal ones, and file and key of its scale, if any."""

    header: Header
    key: str
    chunk: int
    num_chunks: int
    scale_source: tuple[Header, str] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the chunk."""
        first, *rest = self.header.shapes[self.key] or (1,)
        return (first // self.num_chunks, *rest)


def find_tensor_sources(module: nn.Module, files: Sequence[Path], rename_key: KeyRenamer) -> dict[str, TensorSource]:
    """Find the source of each parameter of an empty module, without reading a tensor.

    Raises `ModelError` when the files do not hold exactly this module, or store it in an unsupported way.
    """
    expected_shapes, linear_weights = list_parameters(module)
    return match_tensors([read_header(file) for file in files], expected_shapes, linear_weights, rename_key)


def list_parameters(module: nn.Module) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """List the shapes of a module's parameters by name, shared ones once, and the names of its linear layers' weights."""
    _tie_weights(module)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    return shapes, {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}


def load_weights(
    module: nn.Module,
    files: Sequence[Path],
    rename_key: KeyRenamer,
    get_dtype: Callable[[str], torch.dtype],
    *,
    keep_float8: bool = False,
) -> nn.Module:
    """Load the weights of single files into an empty module, each parameter in the number format that `get_dtype` returns for its name.

    With `keep_float8`, linear layers of blocks that a file holds in 8 bits stay in them and are dequantized as they compute. Parameters are
    on the meta device before and on the CPU afterwards. Raises as `find_tensor_sources`.
    """
    sources = find_tensor_sources(module, files, rename_key)
    expected_shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    for header in {id(source.header): source.header for source in sources.values()}.values():
        with _open_file(header) as tensors:
            for name, source in sources.items():
                if source.header is not header:
                    continue
                if keep_float8 and keeps_float8(name, source):
                    _set_float8_layer(module, name, tensors.get_tensor(source.key), _read_scale(tensors, source))
                else:
                    value = _read_tensor(tensors, source).reshape(expected_shapes[name]).to(get_dtype(name))
                    set_parameter(module, name, value)
    _tie_weights(module)
    return module


def _tie_weights(module: nn.Module) -> None:
    """Tie shared parameters of transformers' modules; a file holds them once."""
    tie: Callable[[], None] = getattr(module, "tie_weights", lambda: None)
    tie()


def match_tensors(
    headers: Sequence[Header], expected_shapes: dict[str, tuple[int, ...]], linear_weights: set[str], rename_key: KeyRenamer
) -> dict[str, TensorSource]:
    """Match every expected parameter to a source.

    Raises `ModelError` for missing, additional or misshapen tensors, and for unsupported storage.
    """
    headers_by_key = {key: header for header in headers for key in header.shapes}
    path, prefix = headers[0].path, find_model_prefix(headers_by_key)
    _check_formats(headers)
    sources: dict[str, TensorSource] = {}
    extra: list[str] = []
    for key, header in headers_by_key.items():
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or name.startswith(IGNORED_PREFIXES) or key.endswith((*SCALE_SUFFIXES, *IGNORED_SUFFIXES)):
            continue
        names = rename_key(key.removeprefix(prefix))
        scale = next((name for suffix in SCALE_SUFFIXES if (name := key.removesuffix(".weight") + suffix) in headers_by_key), None)
        for chunk, name in enumerate(names):
            if name not in expected_shapes:
                extra.append(key)
                continue
            sources[name] = TensorSource(header, key, chunk, len(names), (headers_by_key[scale], scale) if scale else None)
    missing = [name for name in expected_shapes if name not in sources]
    if extra or missing:
        faults = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
        faults += [f"{len(extra)} are unknown, such as {extra[0]}"] if extra else []
        raise ModelError(f"{path}: is not this model ({' and '.join(faults)}); choose the model that it is, or another file")
    for name, source in sources.items():
        if _drop_unit_dimensions(source.shape) != _drop_unit_dimensions(expected_shapes[name]):
            raise ModelError(
                f"{path}: {source.key} is {list(source.shape)} instead of {list(expected_shapes[name])}; choose the model that it is"
            )
    _check_scales(path, sources, linear_weights, has_scales=any(key.endswith((*SCALE_SUFFIXES, "scaled_fp8")) for key in headers_by_key))
    return sources


def _drop_unit_dimensions(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _check_formats(headers: Sequence[Header]) -> None:
    """Check the storage marks of ComfyUI's newer files, in small tensors or the metadata: only scaled 8-bit floats are supported."""
    for header in headers:
        layers = dict(json.loads(header.metadata.get("_quantization_metadata", "{}")).get("layers", {}))
        marks = [key for key in header.shapes if key.endswith(".comfy_quant")]
        if marks:
            with _open_file(header) as tensors:
                layers |= {key: json.loads(bytes(tensors.get_tensor(key).tolist())) for key in marks}
        for layer, mark in layers.items():
            if mark.get("format") not in QUANTIZED_FORMATS:
                raise ModelError(f"{header.path}: {layer} is stored as {mark.get('format')}, which is not read; {FORMAT_ADVICE}")


def _check_scales(path: Path, sources: dict[str, TensorSource], linear_weights: set[str], has_scales: bool) -> None:
    for name, source in sources.items():
        kind = source.header.dtypes[source.key]
        if kind not in SUPPORTED_DTYPES:
            raise ModelError(f"{path}: {source.key} is stored as {kind}, which is not read; {FORMAT_ADVICE}")
        if has_scales and kind in FLOAT8_DTYPES and source.scale_source is None and name in linear_weights:
            raise ModelError(f"{path}: {source.key} is scaled and its scale is missing; download it again, or {FORMAT_ADVICE}")
        if source.scale_source is not None:
            header, key = source.scale_source
            shape, rows = header.shapes[key], source.header.shapes[source.key][0]
            is_supported = prod(shape) == 1 or (shape[0] == rows and (prod(shape) == rows or (len(shape) == 3 and shape[2] == 1)))
            if header.dtypes[key] not in SUPPORTED_DTYPES or kind not in FLOAT8_DTYPES or not is_supported:
                storage = f"{header.dtypes[key]} {list(shape)} on {kind}"
                raise ModelError(f"{path}: the scale of {source.key} ({storage}) is of a kind that is not read; {FORMAT_ADVICE}")


def keeps_float8(name: str, source: TensorSource) -> bool:
    """Check whether a parameter can stay in 8 bits: a matrix of a block, with no scale, one, or one per row."""
    kind, shape = source.header.dtypes[source.key], source.shape
    if kind not in FLOAT8_DTYPES or source.num_chunks > 1 or len(shape) != 2 or not _BLOCK_WEIGHT_PATTERN.search(name):
        return False
    return source.scale_source is None or prod(source.scale_source[0].shapes[source.scale_source[1]]) in (1, shape[0])


def _set_float8_layer(module: nn.Module, name: str, weight: torch.Tensor, scale: torch.Tensor) -> None:
    path = name.removesuffix(".weight")
    linear = module.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    module.set_submodule(path, QuantizedLinear.from_stored(linear, weight, scale.reshape(-1, 1)))


def _read_scale(tensors: Any, source: TensorSource) -> torch.Tensor:
    """Read the scale of a weight; 1 without one."""
    if source.scale_source is None:
        return torch.ones(1)
    header, key = source.scale_source
    if header is source.header:
        scale: torch.Tensor = tensors.get_tensor(key)
        return scale
    with _open_file(header) as others:
        scale = others.get_tensor(key)
        return scale


def _read_tensor(tensors: Any, source: TensorSource) -> torch.Tensor:
    """Read a tensor; 8-bit weights are dequantized in float32."""
    value: torch.Tensor = tensors.get_tensor(source.key)
    if source.scale_source is not None:
        value = dequantize_scaled_weight(value, _read_scale(tensors, source))
    return value if source.num_chunks == 1 else value.chunk(source.num_chunks)[source.chunk]


def dequantize_scaled_weight(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Multiply an 8-bit weight `[out, ...]` by its scale, in float32.

    There is one scale for all, one per row (`[out]`, `[out, 1]`), or one per block of a row (`[out, blocks, 1]`, as by musubi-tuner).
    """
    exact, scale = weight.float(), scale.float()
    if scale.numel() == 1:
        return exact * scale.reshape(())
    rows = len(exact)
    return (exact.reshape(rows, scale.numel() // rows, -1) * scale.reshape(rows, -1, 1)).reshape(exact.shape)


def _open_file(header: Header) -> Any:
    from safetensors import safe_open

    return safe_open(header.path, framework="pt")


def set_parameter(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Replace a parameter by a frozen tensor; a subclass of `nn.Parameter` is kept as it is."""
    owner, _, attribute = name.rpartition(".")
    parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
    module.get_submodule(owner)._parameters[attribute] = parameter


def build_empty_module(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module with its parameters on the meta device and its buffers, which are computed, on the CPU."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return build()
