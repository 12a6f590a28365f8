"""What a single file holds, told by its tensors' shapes alone: the configuration that a folder in diffusers' layout would state."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lora_edit.models.wan_keys import Rename, model_prefix, picture_names, text_names, transformer_names, vae_names

Shapes = Mapping[str, tuple[int, ...]]


def renames(part: str, config: Mapping[str, Any]) -> Rename:
    """How the tensors of a single file are called in the module of a part."""
    if part == "vae":
        return vae_names(config["num_res_blocks"])
    return {"text_encoder": text_names, "image_encoder": picture_names}.get(part, transformer_names)


def told(part: str, shapes: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a part's configuration that the shapes decide; `config` is the wanted one, for what they cannot tell.

    Empty when the file holds no such part.
    """
    rename, prefix = renames(part, config), model_prefix(shapes) if part.startswith("transformer") else ""
    named: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if key.startswith(prefix):
            named |= dict.fromkeys(rename(key.removeprefix(prefix)), shape)
    teller: Callable[..., dict[str, Any] | None] = _TELLERS.get(part, _transformer)
    try:
        return teller(named, config) or {}
    except (KeyError, IndexError):
        return {}


def _transformer(named: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    width, channels, *patch = named["patch_embedding.weight"]
    image = named.get("condition_embedder.image_embedder.norm1.weight")
    added = named.get("blocks.0.attn2.add_k_proj.weight")
    places = named.get("condition_embedder.image_embedder.pos_embed")
    head = config["attention_head_dim"]
    found = {
        "in_channels": channels,
        "num_attention_heads": width // head if width % head == 0 else width / head,
        "num_layers": _count(named, r"blocks\.(\d+)\."),
        "ffn_dim": named["blocks.0.ffn.net.0.proj.weight"][0],
        "text_dim": named["condition_embedder.text_embedder.linear_1.weight"][1],
        "image_dim": image and image[0],
        "added_kv_proj_dim": added and added[1],
        "pos_embed_seq_len": places and places[1],
    }
    rows, cells = named["proj_out.weight"][0], patch[0] * patch[1] * patch[2] if len(patch) == 3 else 1
    # Five dimensions are kept by safetensors; other containers flatten them, and then the module's own check decides.
    return found | ({"out_channels": rows // cells, "patch_size": patch} if len(patch) == 3 else {})


def _vae(named: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"base_dim": named["encoder.conv_in.weight"][0], "z_dim": named["post_quant_conv.weight"][0]}


def _text(named: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary, width = named["shared.weight"]
    return {"vocab_size": vocabulary, "d_model": width, "num_layers": _count(named, r"encoder\.block\.(\d+)\.")}


def _picture(named: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    patches = named["embeddings.patch_embedding.weight"]
    layers = _count(named, r"encoder\.layers\.(\d+)\.")
    return {"hidden_size": patches[0], "patch_size": patches[-1], "num_hidden_layers": layers}


_TELLERS: dict[str, Callable[..., dict[str, Any]]] = {"vae": _vae, "text_encoder": _text, "image_encoder": _picture}


def _count(named: Shapes, pattern: str) -> int:
    found = (re.match(pattern, name) for name in named)
    return 1 + max((int(match[1]) for match in found if match), default=-1)
