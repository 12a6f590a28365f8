"""A VACE with its real classes and random weights, small enough for unit tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch

from lora_edit.models.families.vace.record import VACE_1_3B
from lora_edit.models.families.wan.loading import Components
from lora_edit.models.record import ModelRecord
from tiny_wan import WANS, WIDTH, tiny_components

SMALL = {
    "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": WIDTH, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2,
    "rope_max_seq_len": 64, "vace_layers": [0, 1],
}  # fmt: skip


def tiny_vace() -> Components:
    """Build every part; parameters that start at zero are filled, so that the control branch has an effect."""
    config: dict[str, Any] = VACE_1_3B.read_transformer_config() | SMALL
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = getattr(diffusers, config.pop("_class_name"))(**config)
        for parameter in transformer.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    rest = tiny_components(WANS["wan2.2-i2v-a14b"])
    return replace(rest, transformers=(transformer.eval().requires_grad_(False),))


def save_tiny_vace(folder: Path) -> ModelRecord:
    """Write the parts in diffusers' layout; returns a record that the folder matches, for small frames."""
    parts: Any = tiny_vace()
    parts.transformers[0].save_pretrained(folder / "transformer")
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(parts, name).save_pretrained(folder / name)
    wanted = folder / "wanted.json"
    wanted.write_text(json.dumps(VACE_1_3B.read_transformer_config() | SMALL), "utf-8")
    return replace(VACE_1_3B, config=str(wanted), geometry=replace(VACE_1_3B.geometry, max_frames=9, native_area=32 * 32))
