"""A model family of the real classes with random weights, small enough for unit tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import WanTransformer3DModel

from lora_edit.models.families.base import FamilyParts
from lora_edit.models.families.embedded.encoders import LappedCodec
from lora_edit.models.families.embedded.record import TINY
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.record import Geometry, ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager


def random_record(name: str, geometry: Geometry) -> ModelRecord:
    """A record of a model with random weights."""
    return replace(TINY, name=name, geometry=geometry)


def tiny_random_family(seed: int = 0, max_frames: int = 9, blocks: int = 2) -> WanFamily:
    """Blocks of width 24 over a block codec with eight channels; frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(
            patch_size=(1, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=8 + 4 + 8, out_channels=8, text_dim=8,
            freq_dim=16, ffn_dim=32, num_layers=blocks, rope_max_seq_len=32,
        )  # fmt: skip
        codec = LappedCodec(z_dim=8)
    transformer.eval().requires_grad_(False)
    codec.eval().requires_grad_(False)
    record, manager = random_record("random", Geometry(8, 4, 8, max_frames, 32 * 32)), DeviceManager(torch.device("cpu"))
    return WanFamily(FamilyParts(record, transformer, codec, lambda prompt: torch.zeros(1, 1, 8), None, manager, torch.float32))
