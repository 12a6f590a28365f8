"""Checkpoints of the models without a mask channel, with their real classes and random weights, small enough for unit tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from lora_edit.models.families.ltx.loading import build_ltx
from lora_edit.models.families.ltx.record import LTX_VIDEO
from lora_edit.models.families.token_replacement import TokenReplaceFamily
from lora_edit.models.families.wan.loading import Components
from lora_edit.models.families.wan_ti2v.loading import build_ti2v
from lora_edit.models.families.wan_ti2v.record import WAN22_TI2V_5B
from lora_edit.models.record import ModelRecord
from tiny_wan import WIDTH, tiny_tokenizer

REPLACERS = {record.name: record for record in (WAN22_TI2V_5B, LTX_VIDEO)}
LATENTS = 8
SMALL = {
    "WanTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": WIDTH, "freq_dim": 16, "ffn_dim": 32, "num_layers": 1,
        "rope_max_seq_len": 64, "in_channels": LATENTS, "out_channels": LATENTS,
    },
    "LTXVideoTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 12, "caption_channels": WIDTH, "cross_attention_dim": 24, "num_layers": 1,
        "in_channels": LATENTS, "out_channels": LATENTS,
    },
}  # fmt: skip


def tiny_config(record: ModelRecord) -> dict[str, Any]:
    """Return the record's configuration with small widths and depths."""
    config = record.read_transformer_config()
    return config | SMALL[config["_class_name"]]


def tiny_transformer(record: ModelRecord, seed: int = 0) -> Any:
    """Build the model's own class; parameters that start at zero are filled, so that they have an effect."""
    config = tiny_config(record)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = getattr(diffusers, config.pop("_class_name"))(**config)
        for parameter in transformer.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    return transformer.eval().requires_grad_(False)


def wan_vae() -> Any:
    """Build Wan2.2's residual autoencoder: patches of two pixels, then stride 8."""
    return diffusers.AutoencoderKLWan(
        base_dim=4, decoder_base_dim=4, z_dim=LATENTS, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16, scale_factor_temporal=4,
        latents_mean=[0.1 * n for n in range(LATENTS)], latents_std=[1 + 0.1 * n for n in range(LATENTS)],
    )  # fmt: skip


def ltx_vae(newer: bool = True) -> Any:
    """Build the autoencoder of 0.9.5, whose decoder performs the last denoising step, or of 0.9.0."""
    shared: dict[str, Any] = {"latent_channels": LATENTS, "scaling_factor": 1.0}
    if newer:
        shared |= {
            "block_out_channels": (4, 4, 8, 8, 8), "down_block_types": ("LTXVideo095DownBlock3D",) * 4, "layers_per_block": (1,) * 5,
            "decoder_block_out_channels": (8, 16, 32), "decoder_layers_per_block": (1,) * 4, "spatio_temporal_scaling": (True,) * 4,
            "decoder_spatio_temporal_scaling": (True,) * 3, "decoder_inject_noise": (False,) * 4,
            "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"), "upsample_residual": (True,) * 3,
            "upsample_factor": (2, 2, 2), "timestep_conditioning": True, "spatial_compression_ratio": 32, "temporal_compression_ratio": 8,
        }  # fmt: skip
    else:
        shared |= {
            "block_out_channels": (4, 4, 8, 8), "decoder_block_out_channels": (4, 4, 8, 8), "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1,) * 5,
        }  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(**shared)
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, LATENTS))
    vae.latents_std.copy_(torch.linspace(0.5, 1.5, LATENTS))
    return vae


def ending_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of whole words with an end token, as T5's: every prompt has a real token."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    ending = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", tokenizer.convert_tokens_to_ids("</s>"))])
    tokenizer.backend_tokenizer.post_processor = ending
    return tokenizer


def tiny_components(record: ModelRecord, seed: int = 0, newer: bool = True) -> Components:
    """Build every part of one model; `newer` selects LTX-Video's autoencoder."""
    sizes = {"vocab_size": 32, "d_model": WIDTH, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    transformer = tiny_transformer(record, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        if record is WAN22_TI2V_5B:
            return Components((transformer,), wan_vae().eval(), UMT5EncoderModel(UMT5Config(**sizes)).eval(), tiny_tokenizer())
        return Components((transformer,), ltx_vae(newer).eval(), T5EncoderModel(T5Config(**sizes)).eval(), ending_tokenizer())


def tiny_family(record: ModelRecord, parts: Components) -> TokenReplaceFamily:
    """Build the family in float32 on the CPU."""
    build: Any = build_ti2v if record is WAN22_TI2V_5B else build_ltx
    family: TokenReplaceFamily = build(parts, record, torch.device("cpu"), torch.float32)
    return family


def save_tiny(record: ModelRecord, folder: Path) -> ModelRecord:
    """Write the parts in diffusers' layout; returns a record that the folder matches, for clips of at most 17 small frames."""
    parts: Any = tiny_components(record)
    parts.transformers[0].save_pretrained(folder / "transformer")
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(parts, name).save_pretrained(folder / name)
    wanted = folder / "wanted.json"
    wanted.write_text(json.dumps(tiny_config(record)), "utf-8")
    return replace(record, config=str(wanted), geometry=replace(record.geometry, max_frames=17, native_area=64 * 96))
