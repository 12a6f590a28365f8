"""A checkpoint of Wan2.2-Fun-5B-InP with its real classes and random weights, small enough for unit tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import UMT5Config, UMT5EncoderModel

from lora_edit.models.families.wan.loading import Components
from lora_edit.models.families.wan_ti2v.record import WAN22_FUN_5B
from lora_edit.models.record import ModelRecord
from tiny_replace import LATENTS, SMALL, wan_vae
from tiny_wan import WIDTH, tiny_tokenizer


def tiny_config() -> dict[str, Any]:
    """Return the record's configuration with small widths and depths: noise, four mask channels, latents."""
    return WAN22_FUN_5B.read_transformer_config() | SMALL["WanTransformer3DModel"] | {"in_channels": 2 * LATENTS + 4}


def tiny_components(seed: int = 0) -> Components:
    """Build every part; parameters that start at zero are filled, so that they have an effect."""
    config = tiny_config()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = getattr(diffusers, config.pop("_class_name"))(**config)
        for parameter in transformer.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        text = UMT5Config(vocab_size=32, d_model=WIDTH, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
        return Components((transformer.eval().requires_grad_(False),), wan_vae().eval(), UMT5EncoderModel(text).eval(), tiny_tokenizer())


def save_tiny(folder: Path) -> ModelRecord:
    """Write the parts in diffusers' layout; returns a record that the folder matches, for clips of at most 17 small frames."""
    parts: Any = tiny_components()
    parts.transformers[0].save_pretrained(folder / "transformer")
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(parts, name).save_pretrained(folder / name)
    wanted = folder / "wanted.json"
    wanted.write_text(json.dumps(tiny_config()), "utf-8")
    return replace(
        WAN22_FUN_5B, config=str(wanted), companions_config="", geometry=replace(WAN22_FUN_5B.geometry, max_frames=17, native_area=64 * 96)
    )
