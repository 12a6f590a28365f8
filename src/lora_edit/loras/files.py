"""LoRA files to changes of layers and back: one record for all layouts, written so that the same tensors give the same bytes."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lora_edit.errors import ModelError
from lora_edit.loras.header import LoraHeader, read_header
from lora_edit.loras.layouts import parse_key
from lora_edit.loras.names import to_diffusers, to_original

WritableLayout = Literal["comfyui", "diffusers"]
"""The layouts that are written."""

_PEFT_HEADER = "lora_adapter_metadata"
_REWRITTEN_METADATA_KEYS = ("format", _PEFT_HEADER)


@dataclass(frozen=True)
class LayerDelta:
    """What a file adds to one layer, in the file's own precision.

    `up @ down * alpha / rank` to the weight, with `down` `[rank, in]` and `up` `[out, rank]`; `up_bias` `[out]`, scaled likewise, to the
    bias; `diff` to the weight and `diff_bias` to the bias as they are. An `alpha` of None is the rank.
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    alpha: float | None = None
    up_bias: torch.Tensor | None = None
    diff: torch.Tensor | None = None
    diff_bias: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """Rank of the pair; 0 without one."""
        return 0 if self.down is None else self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None or not self.rank else self.alpha / self.rank

    def list_tensors(self) -> list[torch.Tensor]:
        """Those that there are."""
        return [each for each in (self.down, self.up, self.up_bias, self.diff, self.diff_bias) if each is not None]


@dataclass(frozen=True)
class LoraFile:
    """A file's changes by layer, as the file spells its layers; `ignored` are keys that are no part of a LoRA."""

    path: Path
    layout: str
    base_model: str
    layers: dict[str, LayerDelta]
    ignored_keys: tuple[str, ...]
    metadata: dict[str, str]


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA of any layout in `layouts.LAYOUTS`. Raises `ModelError` for what `read_header` refuses and for damaged contents."""
    header = read_header(path)
    keys, ignored = _group_keys_by_layer(header)
    try:
        with safe_open(path, framework="pt") as file:
            found = {layer: {part: file.get_tensor(key) for part, key in parts.items()} for layer, parts in keys.items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); download or export it again") from error
    alphas = _read_peft_settings(path, header.layout, header.metadata)
    layers = {name: _build_delta_with_alpha(path, name, parts, alphas) for name, parts in found.items()}
    return LoraFile(path, header.layout, header.base_model, layers, ignored, header.metadata)


def read_lora_shapes(path: Path) -> LoraFile:
    """The file's layers and shapes, on torch's meta device: what `match` needs, from the header alone. Alphas are left out."""
    header = read_header(path)
    keys, ignored = _group_keys_by_layer(header)
    layers: dict[str, LayerDelta] = {}
    for layer, parts in keys.items():
        shapes = {part: header.shapes[key] for part, key in parts.items() if part != "alpha"}
        layers[layer] = _build_delta(path, layer, {part: torch.empty(shape, device="meta") for part, shape in shapes.items()})
    return LoraFile(path, header.layout, header.base_model, layers, ignored, header.metadata)


def _group_keys_by_layer(header: LoraHeader) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Keys by layer and part, and those that are no part of a LoRA. Raises `ModelError` when two keys say the same."""
    found: dict[str, dict[str, str]] = {}
    ignored: list[str] = []
    for key in sorted(header.shapes):
        parsed = parse_key(key)
        if parsed is None:
            ignored.append(key)
        elif found.setdefault(parsed.layer, {}).setdefault(parsed.part, key) != key:
            raise ModelError(f"{header.path}: holds two LoRAs for {parsed.layer}; give each in a file of its own")
    return found, tuple(ignored)


def _build_delta(path: Path, layer: str, parts: Mapping[str, torch.Tensor]) -> LayerDelta:
    change = LayerDelta(**parts)  # type: ignore[arg-type]
    if (change.down is None) != (change.up is None):
        raise ModelError(f"{path}: damaged, {layer} has one matrix of its pair; download or export it again")
    if change.down is not None and change.up is not None:
        if min(change.down.ndim, change.up.ndim) < 2:
            raise ModelError(f"{path}: damaged, the pair of {layer} are no matrices; download or export it again")
        ranks = change.down.shape[0], change.up.shape[1]
        if ranks[0] != ranks[1]:
            raise ModelError(f"{path}: damaged, the ranks of {layer} are {ranks[0]} and {ranks[1]}; download or export it again")
    return change


def _build_delta_with_alpha(path: Path, layer: str, parts: dict[str, torch.Tensor], peft_settings: Mapping[str, Any]) -> LayerDelta:
    alpha = parts.pop("alpha", None)
    change = _build_delta(path, layer, parts)
    if not all(bool(torch.isfinite(tensor.float()).all()) for tensor in change.list_tensors()):
        raise ModelError(f"{path}: damaged, {layer} holds numbers that are not finite; download or export it again")
    try:
        stated = _resolve_alpha(peft_settings, layer, change.rank) if alpha is None else float(alpha)
    except (AttributeError, TypeError, ValueError, RuntimeError, re.error) as error:
        raise ModelError(f"{path}: damaged, the alpha of {layer} cannot be read ({error}); download or export it again") from error
    if stated is not None and not math.isfinite(stated):
        raise ModelError(f"{path}: damaged, the alpha of {layer} is {stated}; download or export it again")
    return replace(change, alpha=stated)


def _read_peft_settings(path: Path, layout: str, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """PEFT's settings, from the file's header as diffusers writes them or from the `adapter_config.json` beside a PEFT file."""
    beside = path.with_name("adapter_config.json")
    try:
        if _PEFT_HEADER in metadata:
            stated = json.loads(metadata[_PEFT_HEADER])
            return {key.removeprefix("transformer."): value for key, value in stated.items()}
        if layout in ("peft", "bare") and beside.is_file():
            settings: dict[str, Any] = json.loads(beside.read_text("utf-8"))
            return settings
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: its PEFT settings cannot be read ({error}); export the file again") from error
    return {}


def _resolve_alpha(settings: Mapping[str, Any], layer: str, rank: int) -> float | None:
    """PEFT's rule: the first pattern that ends the layer's name, else the common value."""
    patterns = settings.get("alpha_pattern") or {}
    fitting = (value for pattern, value in patterns.items() if re.match(rf"(?:.*\.)?(?:{pattern})$", layer))
    alpha = next(fitting, settings.get("lora_alpha"))
    if alpha is None:
        return None
    return float(alpha) * (math.sqrt(rank) if settings.get("use_rslora") else 1)


def write_lora(path: Path, layers: Mapping[str, LayerDelta], layout: WritableLayout, metadata: Mapping[str, str]) -> None:
    """Write pairs, keyed by diffusers' layer names, and `metadata`; a kill leaves the old file or the new one, never half.

    `alpha` stands beside the pairs (ComfyUI) or in PEFT's settings (diffusers) as each reader expects it. In ComfyUI's layout it is left
    out where it equals the rank: every reader then takes it so, and diffusion-pipe refuses keys that it does not know.
    Raises `ModelError` when a layer has no name in the layout.
    """
    tensors: dict[str, torch.Tensor] = {}
    header = {"format": "pt", **{key: value for key, value in metadata.items() if key not in _REWRITTEN_METADATA_KEYS}}
    named = _rename_for_comfyui(path, layers) if layout == "comfyui" else {f"transformer.{name}": layers[name] for name in layers}
    for name, change in named.items():
        assert change.down is not None and change.up is not None and change.diff is None and change.diff_bias is None
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = change.down, change.up
        if layout == "comfyui" and change.scale != 1:
            tensors[f"{name}.alpha"] = torch.tensor(change.alpha)
    if layout == "diffusers":
        header[_PEFT_HEADER] = json.dumps(_build_peft_settings(layers), sort_keys=True)
    raw = save({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}, metadata=header)
    _write_atomically(path, _sort_header_keys(raw))


def _rename_for_comfyui(path: Path, layers: Mapping[str, LayerDelta]) -> dict[str, LayerDelta]:
    named: dict[str, LayerDelta] = {}
    for name in layers:
        original, parts = to_original(name) or ("", ())
        if not original:
            raise ModelError(f"{path}: {name} has no name in ComfyUI's layout; write the diffusers layout")
        if f"diffusion_model.{original}" not in named:
            if not all(part in layers for part in parts):
                raise ModelError(f"{path}: the LoRA adapts {name} but not all of {', '.join(parts)}; write the diffusers layout")
            named[f"diffusion_model.{original}"] = layers[name] if len(parts) == 1 else _fuse_deltas([layers[part] for part in parts])
    return named


def _fuse_deltas(deltas: list[LayerDelta]) -> LayerDelta:
    """Pairs of several layers as one pair of the matrix that holds their rows: `down` stacked, `up` block-diagonal, the scale within."""
    downs = [change.down for change in deltas if change.down is not None]
    ups = [change.up * change.scale for change in deltas if change.up is not None]
    joined: torch.Tensor = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    return LayerDelta(torch.cat(downs), joined.to(ups[0].dtype))


def _build_peft_settings(layers: Mapping[str, LayerDelta]) -> dict[str, Any]:
    """What diffusers reads back as `LoraConfig` (`loaders/peft.py: load_lora_adapter`)."""
    ranks = {name: change.rank for name, change in layers.items()}
    alphas = {name: float(change.rank if change.alpha is None else change.alpha) for name, change in layers.items()}
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
    counted = list(values)
    return max(counted, key=counted.count)


def _sort_header_keys(raw: bytes) -> bytes:
    """The same safetensors file with its header's keys sorted: the library writes metadata in another order each time."""
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + raw[8 + length :]


def _write_atomically(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def export_lora(source: Path, target: Path, layout: WritableLayout, *, overwrite: bool = False) -> None:
    """Write a LoRA of this package's own making in another layout, with the same tensors and metadata.

    Raises `ModelError` when the target exists and may not be replaced, is the source itself, or has another ending than `.safetensors`.
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
    """The changes of a file with dotted layer names, keyed as diffusers names them. Raises `ModelError` where that takes a model."""
    named: dict[str, LayerDelta] = {}
    for layer, change in file.layers.items():
        names = (layer,) if file.layout == "diffusers" or to_original(layer) else to_diffusers(layer)
        if names is None or len(names) > 1 or not change.rank:
            raise ModelError(f"{file.path}: {layer} cannot be renamed without its model; export a LoRA that lora-edit trained")
        named[names[0]] = change
    return named
