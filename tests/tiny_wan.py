"""Checkpoints of the catalogue's Wan models with their real classes and random weights, small enough for unit tests, as folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.families.wan.loading import Components
from lora_edit.models.families.wan.record import WAN_LOADER
from lora_edit.models.record import ModelRecord

WANS = {record.name: record for record in KNOWN_MODELS if record.loader == WAN_LOADER}
PICTURE, PATCH, WIDTH = 32, 16, 16
TOKENS = (PICTURE // PATCH) ** 2 + 1
"""Tokens of one image."""


def tiny_config(record: ModelRecord) -> dict[str, Any]:
    """Return the record's configuration with small widths and depths; values that distinguish models stay."""
    config = record.read_transformer_config()
    small = {
        "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": WIDTH, "freq_dim": 16, "ffn_dim": 32, "num_layers": 1,
        "rope_max_seq_len": 64,
    }  # fmt: skip
    if config["image_dim"]:
        small |= {"image_dim": WIDTH, "added_kv_proj_dim": 24}
    if config["pos_embed_seq_len"]:
        small |= {"pos_embed_seq_len": 2 * TOKENS}
    return config | small


def tiny_transformer(record: ModelRecord) -> Any:
    """Build the family's own class; parameters that start at zero are filled, so that they have an effect."""
    config = tiny_config(record)
    transformer = getattr(diffusers, config.pop("_class_name"))(**config)
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return transformer.eval().requires_grad_(False)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of whole words, without an end token."""
    words = ["<pad>", "<unk>", "p3rs0n,", "a", "red", "green", "coat"]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def tiny_components(record: ModelRecord, seed: int = 0) -> Components:
    """Build every part of one model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = diffusers.AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        )
        text = UMT5Config(vocab_size=32, d_model=WIDTH, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
        picture = CLIPVisionConfig(
            hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=PICTURE, patch_size=PATCH,
            hidden_act="gelu",
        )  # fmt: skip
        return Components(
            transformers=tuple(tiny_transformer(record) for _ in record.transformer_parts),
            vae=vae.eval(),
            text_encoder=UMT5EncoderModel(text).eval(),
            tokenizer=tiny_tokenizer(),
            image_encoder=CLIPVisionModel(picture).eval() if record.image_encoder else None,
        )


def save_tiny(record: ModelRecord, folder: Path) -> ModelRecord:
    """Write the parts in diffusers' layout; returns a record that the folder matches, for clips of at most nine small frames."""
    parts: Any = tiny_components(record)
    for name, transformer in zip(record.transformer_parts, parts.transformers, strict=True):
        transformer.save_pretrained(folder / name)
    for name in ("vae", "text_encoder", "tokenizer", "image_encoder"):
        if getattr(parts, name) is not None:
            getattr(parts, name).save_pretrained(folder / name)
    wanted = folder / "wanted.json"
    wanted.write_text(json.dumps(tiny_config(record)), "utf-8")
    return replace(record, config=str(wanted), geometry=replace(record.geometry, max_frames=9, native_area=32 * 48))
