"""Reading and writing of LoRA files: one record for all layouts; the same tensors give the same bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lora_edit.atomic_files import write_bytes
from lora_edit.errors import ModelError
from lora_edit.loras.header import LoraHeader, read_header
from lora_edit.loras.layouts import parse_key
from lora_edit.loras.names import select_namings, to_diffusers, to_original
from lora_edit.text_files import parse_json, read_bytes_file

WritableLayout = Literal["comfyui", "diffusers"]
"""Layouts that can be written."""

_PEFT_HEADER = "lora_adapter_metadata"
_REWRITTEN_METADATA_KEYS = ("format", _PEFT_HEADER)
_MAX_QUANTIFIERS = 3
"""Repetitions in a pattern of layer names; the time to match a pattern can grow exponentially with them."""


@dataclass(frozen=True)
class LayerDelta:
    """The delta of one layer, in the file's precision.

    The weight's delta is `up @ down * alpha / rank + diff`, with `down` `[rank, in]` and `up` `[out, rank]`; the bias' delta is
    `up_bias * alpha / rank + diff_bias`, with `up_bias` `[out]`. An `alpha` of None equals the rank.
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    alpha: float | None = None
    up_bias: torch.Tensor | None = None
    diff: torch.Tensor | None = None
    diff_bias: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """The rank of the pair; 0 without one."""
        return 0 if self.down is None else self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None or not self.rank else self.alpha / self.rank

    def list_tensors(self) -> list[torch.Tensor]:
        """Return the tensors that are not None."""
        return [each for each in (self.down, self.up, self.up_bias, self.diff, self.diff_bias) if each is not None]


@dataclass(frozen=True)
class LoraFile:
    """A file's deltas by layer, with the file's layer names; `ignored_keys` are not part of a LoRA."""

    path: Path
    layout: str
    base_model: str
    layers: dict[str, LayerDelta]
    ignored_keys: tuple[str, ...]
    metadata: dict[str, str]


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA of any layout in `layouts.LAYOUTS`. Raises `ModelError` as `read_header` does, and for damaged contents."""
    header = read_header(path)
    keys, ignored = _group_keys_by_layer(header)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {layer: {part: file.get_tensor(key) for part, key in parts.items()} for layer, parts in keys.items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); download or export it again") from error
    alphas = _read_peft_settings(path, header.layout, header.metadata)
    layers = {name: _build_delta_with_alpha(path, name, parts, alphas) for name, parts in tensors.items()}
    return LoraFile(path, header.layout, header.base_model, layers, ignored, header.metadata)


def read_lora_shapes(path: Path) -> LoraFile:
    """Read the file's layers and shapes from its header, as meta tensors for `match_layers`, without alphas. Raises `ModelError`."""
    header = read_header(path)
    keys, ignored = _group_keys_by_layer(header)
    layers: dict[str, LayerDelta] = {}
    for layer, parts in keys.items():
        shapes = {part: header.shapes[key] for part, key in parts.items() if part != "alpha"}
        layers[layer] = _build_delta(path, layer, {part: torch.empty(shape, device="meta") for part, shape in shapes.items()})
    return LoraFile(path, header.layout, header.base_model, layers, ignored, header.metadata)


def _group_keys_by_layer(header: LoraHeader) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Group keys by layer and part; returns the groups and the keys that are not part of a LoRA.

    Raises `ModelError` when two keys have the same layer and part.
    """
    groups: dict[str, dict[str, str]] = {}
    ignored: list[str] = []
    for key in sorted(header.shapes):
        parsed = parse_key(key)
        if parsed is None:
            ignored.append(key)
        elif groups.setdefault(parsed.layer, {}).setdefault(parsed.part, key) != key:
            raise ModelError(f"{header.path}: holds two LoRAs for {parsed.layer}; give each in a file of its own")
    return groups, tuple(ignored)


def _build_delta(path: Path, layer: str, parts: Mapping[str, torch.Tensor]) -> LayerDelta:
    delta = LayerDelta(**parts)  # type: ignore[arg-type]
    if (delta.down is None) != (delta.up is None):
        raise ModelError(f"{path}: damaged, {layer} has one matrix of its pair; download or export it again")
    if delta.down is not None and delta.up is not None:
        if min(delta.down.ndim, delta.up.ndim) < 2:
            raise ModelError(f"{path}: damaged, the tensors of {layer} are not matrices; download or export it again")
        ranks = delta.down.shape[0], delta.up.shape[1]
        if ranks[0] != ranks[1]:
            raise ModelError(f"{path}: damaged, the ranks of {layer} are {ranks[0]} and {ranks[1]}; download or export it again")
    return delta


def _build_delta_with_alpha(path: Path, layer: str, parts: dict[str, torch.Tensor], peft_settings: Mapping[str, Any]) -> LayerDelta:
    alpha = parts.pop("alpha", None)
    delta = _build_delta(path, layer, parts)
    if not all(bool(torch.isfinite(tensor.float()).all()) for tensor in delta.list_tensors()):
        raise ModelError(f"{path}: damaged, {layer} holds numbers that are not finite; download or export it again")
    try:
        resolved_alpha = _resolve_alpha(peft_settings, layer, delta.rank) if alpha is None else float(alpha)
    except (AttributeError, TypeError, ValueError, RuntimeError, re.error) as error:
        raise ModelError(f"{path}: damaged, the alpha of {layer} cannot be read ({error}); download or export it again") from error
    if resolved_alpha is not None and not math.isfinite(resolved_alpha):
        raise ModelError(f"{path}: damaged, the alpha of {layer} is {resolved_alpha}; download or export it again")
    return replace(delta, alpha=resolved_alpha)


def _read_peft_settings(path: Path, layout: str, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """Read PEFT's settings, from the file's header as diffusers writes them or from `adapter_config.json` next to a PEFT file."""
    config_path = path.with_name("adapter_config.json")
    try:
        if _PEFT_HEADER in metadata:
            header_settings = parse_json(metadata[_PEFT_HEADER])
            return {key.removeprefix("transformer."): value for key, value in header_settings.items()}
        if layout in ("peft", "bare") and config_path.is_file():
            settings: dict[str, Any] = dict(parse_json(read_bytes_file(config_path)))
            return settings
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: its PEFT settings cannot be read ({error}); export the file again") from error
    return {}


def _resolve_alpha(settings: Mapping[str, Any], layer: str, rank: int) -> float | None:
    """Resolve alpha by PEFT's rule: the first pattern that matches the end of the layer's name, else the common value."""
    patterns = settings.get("alpha_pattern") or {}
    if any(sum(map(pattern.count, "*+{")) > _MAX_QUANTIFIERS for pattern in patterns):
        raise ValueError("its pattern is too complex")
    matches = (value for pattern, value in patterns.items() if re.match(rf"(?:.*\.)?(?:{pattern})$", layer))
    alpha = next(matches, settings.get("lora_alpha"))
    if alpha is None:
        return None
    return float(alpha) * (math.sqrt(rank) if settings.get("use_rslora") else 1)


def write_lora(path: Path, layers: Mapping[str, LayerDelta], layout: WritableLayout, metadata: Mapping[str, str]) -> None:
    """Write pairs, keyed by diffusers' layer names, and `metadata` atomically.

    `alpha` is written next to the pairs (ComfyUI) or in PEFT's settings (diffusers), as readers of the layout expect it. ComfyUI's layout
    omits it where it equals the rank: that is every reader's default, and diffusion-pipe rejects unknown keys. Raises `ModelError` when a
    layer has no name in the layout.
    """
    tensors: dict[str, torch.Tensor] = {}
    header = {"format": "pt", **{key: value for key, value in metadata.items() if key not in _REWRITTEN_METADATA_KEYS}}
    renamed = _rename_for_comfyui(path, layers) if layout == "comfyui" else {f"transformer.{name}": layers[name] for name in layers}
    for name, delta in renamed.items():
        assert delta.down is not None and delta.up is not None and delta.diff is None and delta.diff_bias is None
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = delta.down, delta.up
        if layout == "comfyui" and delta.scale != 1:
            tensors[f"{name}.alpha"] = torch.tensor(delta.alpha)
    if layout == "diffusers":
        header[_PEFT_HEADER] = json.dumps(_build_peft_settings(layers), sort_keys=True)
    raw = save({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}, metadata=header)
    write_bytes(path, _sort_header_keys(raw))


def _rename_for_comfyui(path: Path, layers: Mapping[str, LayerDelta]) -> dict[str, LayerDelta]:
    renamed: dict[str, LayerDelta] = {}
    namings = select_namings(layers)
    for name in layers:
        original, parts = to_original(name, namings) or ("", ())
        if not original:
            raise ModelError(f"{path}: {name} has no name in ComfyUI's layout; write the diffusers layout")
        if f"diffusion_model.{original}" not in renamed:
            if not all(part in layers for part in parts):
                raise ModelError(f"{path}: the LoRA adapts {name} but not all of {', '.join(parts)}; write the diffusers layout")
            renamed[f"diffusion_model.{original}"] = layers[name] if len(parts) == 1 else _fuse_deltas([layers[part] for part in parts])
    return renamed


def _fuse_deltas(deltas: list[LayerDelta]) -> LayerDelta:
    """Fuse the pairs of several layers into one pair for the matrix of their rows: `down` stacked, `up` block-diagonal and scaled."""
    downs = [delta.down for delta in deltas if delta.down is not None]
    ups = [delta.up * delta.scale for delta in deltas if delta.up is not None]
    fused_up: torch.Tensor = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    return LayerDelta(torch.cat(downs), fused_up.to(ups[0].dtype))


def _build_peft_settings(layers: Mapping[str, LayerDelta]) -> dict[str, Any]:
    """Build the settings that diffusers reads as `LoraConfig` (`loaders/peft.py: load_lora_adapter`)."""
    ranks = {name: delta.rank for name, delta in layers.items()}
    alphas = {name: float(delta.rank if delta.alpha is None else delta.alpha) for name, delta in layers.items()}
    rank, alpha = _find_most_common(ranks.values()), _find_most_common(alphas.values())
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": sorted(layers),
        "rank_pattern": {re.escape(name): value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {re.escape(name): value for name, value in alphas.items() if value != alpha},
    }
    return {f"transformer.{key}": value for key, value in settings.items()}


def _find_most_common(values: Iterable[Any]) -> Any:
    items = list(values)
    return max(items, key=items.count)


def _sort_header_keys(raw: bytes) -> bytes:
    """Sort the keys of a safetensors file's header; the library writes metadata in a different order each time."""
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + raw[8 + length :]


def export_lora(source: Path, target: Path, layout: WritableLayout, *, overwrite: bool = False) -> None:
    """Write a LoRA of this package in another layout, with the same tensors and metadata.

    Raises `ModelError` when the target exists and `overwrite` is False, is the source itself, or has another suffix than `.safetensors`.
    """
    if target.suffix != ".safetensors":
        raise ModelError(f"{target}: a LoRA is a safetensors file; end the name in .safetensors")
    if target.exists() and (target.is_dir() or target.samefile(source)):
        raise ModelError(f"{target}: is {'a folder' if target.is_dir() else 'the LoRA of the run itself'}; choose another name")
    if target.exists() and not overwrite:
        raise ModelError(f"{target}: exists already; choose another name or give --overwrite")
    file = read_lora(source)
    write_lora(target, rename_to_diffusers(file), layout, file.metadata)


def rename_to_diffusers(file: LoraFile) -> dict[str, LayerDelta]:
    """Rename a file's dotted layers to diffusers' names. Raises `ModelError` where that is impossible without the model."""
    renamed: dict[str, LayerDelta] = {}
    namings = select_namings(file.layers)
    for layer, delta in file.layers.items():
        is_diffusers_name = file.layout == "diffusers" or to_original(layer, namings)
        names = (layer,) if is_diffusers_name else to_diffusers(layer, namings)
        if names is None or len(names) > 1 or not delta.rank:
            raise ModelError(f"{file.path}: {layer} cannot be renamed without its model; export a LoRA that lora-edit trained")
        renamed[names[0]] = delta
    return renamed
