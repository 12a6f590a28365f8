"""A model family of the real classes with random weights, small enough for unit tests."""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel

from lora_edit.models.families.embedded.autoencoder import LappedCodec
from lora_edit.models.families.wan.family import WanFamily, WanParts
from lora_edit.models.family import Geometry


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
    geometry = Geometry(8, 4, 8, max_frames, 32 * 32)
    return WanFamily(
        WanParts("random", geometry, transformer, codec, lambda prompt: torch.zeros(1, 1, 8), None, torch.device("cpu"), torch.float32)
    )
