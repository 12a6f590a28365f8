"""What a single file holds, told by its tensors' shapes alone: the configuration that a folder in diffusers' layout would state."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lora_edit.models.families.wan.key_names import (
    KeyRenamer,
    build_vae_key_renamer,
    find_model_prefix,
    rename_image_encoder_key,
    rename_text_encoder_key,
    rename_transformer_key,
)

TensorShapes = Mapping[str, tuple[int, ...]]


def get_key_renamer(part: str, config: Mapping[str, Any]) -> KeyRenamer:
    """How the tensors of a single file are called in the module of a part."""
    if part == "vae":
        return build_vae_key_renamer(config["num_res_blocks"])
    return {"text_encoder": rename_text_encoder_key, "image_encoder": rename_image_encoder_key}.get(part, rename_transformer_key)


def infer_config(part: str, shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a part's configuration that the shapes decide; `config` is the wanted one, for what they cannot tell.

    Empty when the file holds no such part.
    """
    rename, prefix = get_key_renamer(part, config), find_model_prefix(shapes) if part.startswith("transformer") else ""
    named: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if key.startswith(prefix):
            named |= dict.fromkeys(rename(key.removeprefix(prefix)), shape)
    teller: Callable[..., dict[str, Any] | None] = _CONFIG_READERS.get(part, _infer_transformer_config)
    try:
        return teller(named, config) or {}
    except (KeyError, IndexError):
        return {}


def _infer_transformer_config(shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    width, channels, *patch = shapes["patch_embedding.weight"]
    image = shapes.get("condition_embedder.image_embedder.norm1.weight")
    added = shapes.get("blocks.0.attn2.add_k_proj.weight")
    places = shapes.get("condition_embedder.image_embedder.pos_embed")
    head = config["attention_head_dim"]
    found = {
        "in_channels": channels,
        "num_attention_heads": width // head if width % head == 0 else width / head,
        "num_layers": _count_blocks(shapes, r"blocks\.(\d+)\."),
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        "image_dim": image and image[0],
        "added_kv_proj_dim": added and added[1],
        "pos_embed_seq_len": places and places[1],
    }
    rows, cells = shapes["proj_out.weight"][0], patch[0] * patch[1] * patch[2] if len(patch) == 3 else 1
    # Five dimensions are kept by safetensors; other containers flatten them, and then the module's own check decides.
    return found | ({"out_channels": rows // cells, "patch_size": patch} if len(patch) == 3 else {})


def _infer_vae_config(shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"base_dim": shapes["encoder.conv_in.weight"][0], "z_dim": shapes["post_quant_conv.weight"][0]}


def _infer_text_encoder_config(shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary, width = shapes["shared.weight"]
    return {"vocab_size": vocabulary, "d_model": width, "num_layers": _count_blocks(shapes, r"encoder\.block\.(\d+)\.")}


def _infer_image_encoder_config(shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    patches = shapes["embeddings.patch_embedding.weight"]
    layers = _count_blocks(shapes, r"encoder\.layers\.(\d+)\.")
    return {"hidden_size": patches[0], "patch_size": patches[-1], "num_hidden_layers": layers}


_CONFIG_READERS: dict[str, Callable[..., dict[str, Any]]] = {
    "vae": _infer_vae_config,
    "text_encoder": _infer_text_encoder_config,
    "image_encoder": _infer_image_encoder_config,
}


def _count_blocks(shapes: TensorShapes, pattern: str) -> int:
    found = (re.match(pattern, name) for name in shapes)
    return 1 + max((int(match[1]) for match in found if match), default=-1)
