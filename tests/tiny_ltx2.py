"""Checkpoints of LTX-2 with its real classes and random weights, small enough for unit tests."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from lora_edit.models.families.ltx2.loading import Ltx2Components, build_ltx2
from lora_edit.models.families.ltx2.record import LTX_23, LTX_25
from lora_edit.models.record import ModelRecord
from tiny_wan import tiny_tokenizer

LTX2S = {record.name: record for record in (LTX_23, LTX_25)}
LATENTS, TEXT, VIDEO, AUDIO, TOKENS, LAYERS = 8, 16, 24, 12, 32, 2
SMALL = {
    "in_channels": LATENTS, "out_channels": LATENTS, "num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": VIDEO,
    "audio_in_channels": 4, "audio_out_channels": 4, "audio_num_attention_heads": 2, "audio_attention_head_dim": 6,
    "audio_cross_attention_dim": AUDIO, "caption_channels": TEXT, "num_layers": 1,
}  # fmt: skip


def tiny_config(record: ModelRecord) -> dict[str, Any]:
    """Return the record's configuration with small widths and depths; values that distinguish the versions stay."""
    return record.read_transformer_config() | SMALL


def fill_zeros(module: Any) -> Any:
    """Fill parameters that start at zero, so that they have an effect."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return module.eval().requires_grad_(False)


def tiny_vae() -> Any:
    """Build the autoencoder, 32x32 pixels and eight frames a cell."""
    vae = diffusers.AutoencoderKLLTX2Video(
        latent_channels=LATENTS, block_out_channels=(4, 4, 8, 8), decoder_block_out_channels=(4, 8, 8, 16), layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=(True,) * 4, decoder_spatio_temporal_scaling=(True,) * 4,
        decoder_inject_noise=(False,) * 5, downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        upsample_type=("spatiotemporal", "spatiotemporal", "temporal", "spatial"), upsample_residual=(False,) * 4,
        upsample_factor=(2, 2, 1, 2), timestep_conditioning=False, encoder_spatial_padding_mode="zeros",
        decoder_spatial_padding_mode="zeros", spatial_compression_ratio=32, temporal_compression_ratio=8,
    )  # fmt: skip
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, LATENTS))
    vae.latents_std.copy_(torch.linspace(0.5, 1.5, LATENTS))
    return vae.eval()


def tiny_text_encoder(record: ModelRecord) -> Any:
    """Build a Gemma of the version's class."""
    sizes = {
        "vocab_size": 32, "hidden_size": TEXT, "intermediate_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8,
    }  # fmt: skip
    if record is LTX_23:
        vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28,
                  "patch_size": 14}  # fmt: skip
        return Gemma3ForConditionalGeneration(Gemma3Config(text_config=sizes, vision_config=vision)).eval()
    return Gemma4UnifiedForConditionalGeneration(
        Gemma4UnifiedConfig(text_config=sizes | {"global_head_dim": 8}, vision_config=None, audio_config=None)
    ).eval()


def tiny_connectors() -> LTX2TextConnectors:
    """Build the connectors with one learned register for two tokens."""
    shared: dict[str, Any] = {}
    for name, heads, width in (("video", 2, VIDEO), ("audio", 2, AUDIO)):
        shared |= {
            f"{name}_connector_num_attention_heads": heads, f"{name}_connector_attention_head_dim": width // heads,
            f"{name}_connector_num_layers": 1, f"{name}_connector_num_learnable_registers": TOKENS // 2, f"{name}_gated_attn": True,
            f"{name}_hidden_dim": width,
        }  # fmt: skip
    connectors: LTX2TextConnectors = fill_zeros(
        LTX2TextConnectors(
            caption_channels=TEXT, text_proj_in_factor=LAYERS + 1, connector_rope_base_seq_len=64, rope_type="split",
            per_modality_projections=True, proj_bias=True, **shared,
        )
    )  # fmt: skip
    return connectors


def tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of whole words that pads on the left."""
    words = tiny_tokenizer()
    words.padding_side = "left"
    return words


def tiny_components(record: ModelRecord, seed: int = 0) -> Ltx2Components:
    """Build every part of one model."""
    config = tiny_config(record)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = fill_zeros(getattr(diffusers, config.pop("_class_name"))(**config))
        return Ltx2Components(transformer, tiny_vae(), tiny_text_encoder(record), tokenizer(), tiny_connectors())


def tiny_family(record: ModelRecord, parts: Ltx2Components) -> Any:
    """Build the family in float32 on the CPU, from a copy of the transformer, whose layers of the sound it removes."""
    copied = replace(parts, transformer=deepcopy(parts.transformer))
    return build_ltx2(copied, replace(record, text_length=TOKENS), torch.device("cpu"), torch.float32)


def save_tiny(record: ModelRecord, folder: Path) -> ModelRecord:
    """Write the parts in diffusers' layout; returns a record that the folder matches, for clips of at most 17 small frames."""
    parts: Any = tiny_components(record)
    parts.transformer.save_pretrained(folder / record.transformer_parts[0])
    for name in ("vae", "text_encoder", "tokenizer", "connectors"):
        getattr(parts, name).save_pretrained(folder / name)
    wanted = folder / "wanted.json"
    wanted.write_text(json.dumps(tiny_config(record)), "utf-8")
    return replace(record, config=str(wanted), text_length=TOKENS, geometry=replace(record.geometry, max_frames=17, native_area=64 * 96))
