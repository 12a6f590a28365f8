"""The configuration of a single file, inferred from its tensors' shapes: what a folder in diffusers' layout states in its `config.json`."""

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
    """Return the function that renames a single file's keys to those of a part's module."""
    if part == "vae":
        return build_vae_key_renamer(config["num_res_blocks"])
    return {"text_encoder": rename_text_encoder_key, "image_encoder": rename_image_encoder_key}.get(part, rename_transformer_key)


def infer_config(part: str, shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    """Infer the keys of a part's configuration that follow from shapes; `config` is the expected one, for values that do not.

    Returns an empty configuration when the file holds no such part.
    """
    rename, prefix = get_key_renamer(part, config), find_model_prefix(shapes) if part.startswith("transformer") else ""
    renamed: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if key.startswith(prefix):
            renamed |= dict.fromkeys(rename(key.removeprefix(prefix)), shape)
    infer: Callable[..., dict[str, Any] | None] = _CONFIG_READERS.get(part, _infer_transformer_config)
    try:
        return infer(renamed, config) or {}
    except (KeyError, IndexError):
        return {}


def _infer_transformer_config(shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    width, channels, *patch = shapes["patch_embedding.weight"]
    image = shapes.get("condition_embedder.image_embedder.norm1.weight")
    added = shapes.get("blocks.0.attn2.add_k_proj.weight")
    positions = shapes.get("condition_embedder.image_embedder.pos_embed")
    head_dim = config["attention_head_dim"]
    inferred = {
        "in_channels": channels,
        "num_attention_heads": width // head_dim if width % head_dim == 0 else width / head_dim,
        "num_layers": _count_blocks(shapes, r"blocks\.(\d+)\."),
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        "image_dim": image and image[0],
        "added_kv_proj_dim": added and added[1],
        "pos_embed_seq_len": positions and positions[1],
    }
    rows, cells = shapes["proj_out.weight"][0], patch[0] * patch[1] * patch[2] if len(patch) == 3 else 1
    # safetensors keeps five dimensions; other containers flatten them, and then the module's own check decides.
    return inferred | ({"out_channels": rows // cells, "patch_size": patch} if len(patch) == 3 else {})


def _infer_vae_config(shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    # Decoders that enlarge the picture have the same encoder and more output channels.
    base_dim, in_channels = shapes["encoder.conv_in.weight"][:2]
    z_dim, out_channels = shapes["post_quant_conv.weight"][0], shapes["decoder.conv_out.weight"][0]
    return {"base_dim": base_dim, "z_dim": z_dim, "in_channels": in_channels, "out_channels": out_channels}


def _infer_text_encoder_config(shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary, width = shapes["shared.weight"]
    return {"vocab_size": vocabulary, "d_model": width, "num_layers": _count_blocks(shapes, r"encoder\.block\.(\d+)\.")}


def _infer_image_encoder_config(shapes: TensorShapes, config: Mapping[str, Any]) -> dict[str, Any]:
    patches = shapes["embeddings.patch_embedding.weight"]
    layers = _count_blocks(shapes, r"encoder\.layers\.(\d+)\.")
    if not layers:
        raise KeyError("encoder.layers")  # a transformer has a patch embedding too
    return {"hidden_size": patches[0], "patch_size": patches[-1], "num_hidden_layers": layers}


_CONFIG_READERS: dict[str, Callable[..., dict[str, Any]]] = {
    "vae": _infer_vae_config,
    "text_encoder": _infer_text_encoder_config,
    "image_encoder": _infer_image_encoder_config,
}


def _count_blocks(shapes: TensorShapes, pattern: str) -> int:
    matches = (re.match(pattern, name) for name in shapes)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)
