"""Checkpoints of full size that take no space: headers as published files have them, and holes for the tensors.

Names and shapes come from the real classes and the official configurations, on torch's meta device. Every file is as long as its header
says (`os.truncate`), so that all checks of headers and sizes see what they would see of a published file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from torch import nn

from lora_edit.models.checkpoints.part_modules import build_empty_part
from lora_edit.models.record import ModelRecord
from single_files import TEXT, TRANSFORMER, VAE, original_picture, original_vae, renamed, weights

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "U8": 1}
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Entry:
    """A tensor of a header."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes in the file."""
        return ITEM_BYTES[self.dtype] * prod(self.shape)


def write_sparse(file: Path, entries: dict[str, Entry]) -> Path:
    """Write a safetensors file of full length whose tensors are holes."""
    header, offset = {}, 0
    for key, entry in entries.items():
        header[key] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, offset + entry.nbytes]}
        offset += entry.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + offset)
    return file


def write_shards(folder: Path, stem: str, entries: dict[str, Entry], count: int) -> Path:
    """Write shards and their index; returns the index."""
    names = [f"{stem}-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    where = {key: names[number * count // len(entries)] for number, key in enumerate(entries)}
    for name in names:
        write_sparse(folder / name, {key: entry for key, entry in entries.items() if where[key] == name})
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}), "utf-8")
    return index


@lru_cache(maxsize=16)
def _build(record: ModelRecord, part: str) -> nn.Module:
    return build_empty_part(record, part)


def to_entries(state: dict[str, Any], dtype: str) -> dict[str, Entry]:
    """Describe tensors, all in one number format."""
    return {key: Entry(dtype, tuple(tensor.shape)) for key, tensor in state.items()}


def transformer_entries(record: ModelRecord, dtype: str = "F16", prefix: str = "") -> dict[str, Entry]:
    """Wan's transformer by the original names."""
    return to_entries(renamed(weights(_build(record, record.transformer_parts[0])), TRANSFORMER, prefix), dtype)


def scaled_entries(record: ModelRecord, prefix: str = "") -> dict[str, Entry]:
    """Wan's transformer in ComfyUI's scaled 8 bits: the linear layers of the blocks with a scale each, everything else in float16."""
    entries: dict[str, Entry] = {f"{prefix}scaled_fp8": Entry("F8_E4M3", (2,))}
    for key, entry in transformer_entries(record, "F16", prefix).items():
        if re.search(r"blocks\.\d+\..*\.weight$", key) and len(entry.shape) == 2:
            entries[key] = Entry("F8_E4M3", entry.shape)
            entries[key.removesuffix("weight") + "scale_weight"] = Entry("F32", (1,))
        else:
            entries[key] = entry
    return entries


def vae_entries(record: ModelRecord, dtype: str = "BF16") -> dict[str, Entry]:
    """Wan's autoencoder by the original names; that of 2.2 nests its blocks."""
    module = _build(record, "vae")
    if not getattr(module.config, "is_residual", False):
        return to_entries(original_vae(module), dtype)
    state = {}
    for name, tensor in weights(module).items():
        name = re.sub(r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.", r"\1samples.\2.\1samples.\3.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsampler\.", r"downsamples.\1.downsamples.2.", name)
        state[re.sub(r"up_blocks\.(\d+)\.upsampler\.", r"upsamples.\1.upsamples.3.", name)] = tensor
    return to_entries(renamed(state, VAE), dtype)


def text_entries(record: ModelRecord, dtype: str = "F16", *, original: bool = False) -> dict[str, Entry]:
    """UMT5-XXL by ComfyUI's names, with its tokenizer, or by the original ones."""
    state = weights(_build(record, "text_encoder"))
    if original:
        return to_entries(renamed(state, TEXT), dtype)
    return to_entries(state, dtype) | {"spiece_model": Entry("U8", (4_548_313,))}


def picture_entries(record: ModelRecord, *, original: bool = False) -> dict[str, Entry]:
    """CLIP's image tower by ComfyUI's or the original names."""
    module = _build(record, "image_encoder")
    if original:
        return to_entries(original_picture(module), "F16")
    return to_entries({f"vision_model.{name}": tensor for name, tensor in weights(module).items()}, "F16") | {
        "visual_projection.weight": Entry("F16", (1024, 1280))
    }


def save_comfyui(record: ModelRecord, folder: Path, transformer: Callable[..., dict[str, Entry]] = transformer_entries) -> list[Path]:
    """ComfyUI's `models` with one model; returns its transformers' files."""
    names = (
        [f"{record.name}_fp16"] if len(record.transformer_parts) == 1 else [f"wan2.2_i2v_{mark}_noise_14B_fp16" for mark in ("high", "low")]
    )
    files = [write_sparse(folder / "diffusion_models" / "Wan" / f"{name}.safetensors", transformer(record)) for name in names]
    vae = "wan2.2_vae" if "2.2-ti2v" in record.name else "wan_2.1_vae"
    write_sparse(folder / "vae" / f"{vae}.safetensors", vae_entries(record))
    write_sparse(folder / "text_encoders" / "umt5_xxl_fp16.safetensors", text_entries(record))
    if record.image_encoder:
        write_sparse(folder / "clip_vision" / "clip_vision_h.safetensors", picture_entries(record))
    return files


def save_original(record: ModelRecord, folder: Path, *, pickles: Iterable[str] = ()) -> Path:
    """The publisher's own folder: shards with an index, encoders as safetensors, or as pickles where named."""
    folders = [folder] if len(record.transformer_parts) == 1 else [folder / "high_noise_model", folder / "low_noise_model"]
    for each in folders:
        write_shards(each, "diffusion_pytorch_model", transformer_entries(record, "F32"), 7)
    parts: dict[str, dict[str, Entry]] = {
        "Wan2.2_VAE" if "2.2-ti2v" in record.name else "Wan2.1_VAE": vae_entries(record),
        "models_t5_umt5-xxl-enc-bf16": text_entries(record, "BF16", original=True),
    }
    if record.image_encoder:
        parts["models_clip_open-clip-xlm-roberta-large-vit-huge-14"] = picture_entries(record, original=True)
    for name, entries in parts.items():
        if any(word in name.lower() for word in pickles):
            (folder / f"{name}.pth").write_bytes(b"PK\x03\x04")
        else:
            write_sparse(folder / f"{name}.safetensors", entries)
    tokenizer = folder / "google" / "umt5-xxl"
    tokenizer.mkdir(parents=True)
    (tokenizer / "tokenizer.json").write_text("{}", "utf-8")
    return folder


def save_diffusers(record: ModelRecord, folder: Path) -> Path:
    """A folder in diffusers' layout; of encoders and tokenizer, which no check opens, only what tells that they are there."""
    config = record.read_transformer_config()
    for part in record.transformer_parts:
        write_shards(folder / part, "diffusion_pytorch_model", to_entries(weights(_build(record, part)), "F32"), 3)
        (folder / part / "config.json").write_text(json.dumps(config), "utf-8")
    for part in ("vae", "text_encoder", *(["image_encoder"] if record.image_encoder else []), *record.other_parts):
        part_folder = folder / part
        part_folder.mkdir(parents=True, exist_ok=True)
        (part_folder / "config.json").write_text("{}", "utf-8")
        if part.startswith(("tokenizer", "image_processor", "feature_extractor")):
            (part_folder / "preprocessor_config.json").write_text("{}", "utf-8")
        else:
            write_sparse(part_folder / "model.safetensors", {"weight": Entry("F32", (1000, 1000))})
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}", "utf-8")
    if (folder / "tokenizer_2").is_dir():
        (folder / "tokenizer_2" / "tokenizer.json").write_text("{}", "utf-8")
    return folder


def save_hub_cache(record: ModelRecord, cache: Path) -> Path:
    """The Hub library's folder with the model's repository; returns the repository's folder."""
    folder = cache / f"models--{record.repo.replace('/', '--')}"
    save_diffusers(record, folder / "snapshots" / "0123abcd")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123abcd", "utf-8")
    return folder
