"""Wan 2.1's own modules beside ours, with the same random weights: transformer, autoencoder and picture tower."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from transformers import CLIPVisionConfig, CLIPVisionModel

from lora_edit.loras.names import to_original
from upstream import load, sdpa, standing_in

HEADS, WIDTH, LAYERS, TEXT, CLIP = 2, 24, 2, 16, 1280
"""CLIP's width and its 257 tokens a picture are fixed in the official transformer."""
TOKENS = 257

NORMS = {"pre_layrnorm": "pre_norm", "post_layernorm": "post_norm"}
TOWER = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2", "self_attn.out_proj": "attn.proj"}
"""Layers of the picture tower: transformers' names and the official ones."""


def module(name: str, **attributes: Any) -> types.ModuleType:
    """A stand-in for a module."""
    made = types.ModuleType(name)
    vars(made).update(attributes)
    return made


def normalise(mean: list[float], std: list[float]) -> Callable[[torch.Tensor], torch.Tensor]:
    """torchvision's `Normalize`."""
    shift, scale = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    return lambda pixels: (pixels - shift) / scale


def wan_module(name: str) -> Any:
    """One of `wan/modules`, on scaled dot-product attention."""
    attention = module("attention", flash_attention=sdpa)
    return load("Wan2.1", "wan/modules", name, attention=attention, tokenizers=module("tokenizers", HuggingfaceTokenizer=None))


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """Everything random, what starts at zero or one included, so that nothing can hide."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
            parameter.copy_(drawn + int(("norm" in name and name.endswith("weight")) or "gamma" in name))
    return network.eval().requires_grad_(False)


def original_key(key: str) -> str:
    """Our names of layers (`loras/names.py`) and the few parameters that are no layer's."""
    if key == "condition_embedder.image_embedder.pos_embed":
        return "img_emb.emb_pos"
    stem, _, leaf = key.rpartition(".")
    whole, part = to_original(key), to_original(stem)
    if whole:
        return whole[0]
    return f"{part[0]}.{leaf}" if part else key


def transformers_pair(kind: str) -> tuple[Any, Any]:
    """diffusers' transformer and the official one of type `i2v` or `flf2v`, with its weights."""
    ours = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, in_channels=36, out_channels=16, text_dim=TEXT,
        freq_dim=16, ffn_dim=32, num_layers=LAYERS, image_dim=CLIP, added_kv_proj_dim=WIDTH, rope_max_seq_len=1024,
        pos_embed_seq_len=2 * TOKENS if kind == "flf2v" else None,
    )  # fmt: skip
    theirs = wan_module("model").WanModel(
        model_type=kind, in_dim=36, dim=WIDTH, ffn_dim=32, freq_dim=16, text_dim=TEXT, num_heads=HEADS, num_layers=LAYERS
    )
    randomised(ours)
    theirs.load_state_dict({original_key(key): value.clone() for key, value in ours.state_dict().items()})
    return ours, theirs.eval().requires_grad_(False)


def autoencoders_pair() -> tuple[Any, Any]:
    """diffusers' autoencoder and the official one (`WanVAE`, list in and list out)."""
    sizes = {"z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [], "temperal_downsample": [False, True, True]}
    official = wan_module("vae")
    inner = randomised(official.WanVAE_(dim=4, **sizes))
    ours = diffusers.AutoencoderKLWan(base_dim=4, **sizes).eval().requires_grad_(False)
    ours.load_state_dict(convert_wan_vae_to_diffusers(inner.state_dict()))
    theirs = official.WanVAE.__new__(official.WanVAE)
    theirs.model, theirs.dtype = inner, torch.float32
    # As its __init__ sets them, which would open a checkpoint.
    theirs.scale = [torch.tensor(ours.config.latents_mean), 1 / torch.tensor(ours.config.latents_std)]
    return ours, theirs


def picture_towers() -> tuple[Any, Any]:
    """transformers' tower and the official `CLIPModel`, at the width and number of tokens of ViT-H, two layers deep."""
    width, inner, heads, layers, patch = CLIP, 32, 16, 2, 14
    with standing_in(torchvision=module("torchvision"), torchvision__transforms=module("torchvision.transforms")):
        official = wan_module("clip")
    tower = randomised(
        official.VisionTransformer(
            image_size=224, patch_size=patch, dim=width, mlp_ratio=inner / width, out_dim=8, num_heads=heads, num_layers=layers,
            activation="gelu",
        )
    )  # fmt: skip
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, image_size=224,
        patch_size=patch, hidden_act="gelu",
    )  # fmt: skip
    ours = CLIPVisionModel(config)
    ours.load_state_dict(tower_weights(tower.state_dict(), [key for key in ours.state_dict() if "position_ids" not in key]), strict=False)
    theirs = official.CLIPModel.__new__(official.CLIPModel)
    theirs.model = types.SimpleNamespace(image_size=224, visual=tower, to=lambda device: None)
    theirs.dtype = torch.float32
    mean_and_std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    theirs.transforms = types.SimpleNamespace(transforms=[normalise(*mean_and_std)])
    return ours.eval().requires_grad_(False), theirs


def tower_weights(state: dict[str, torch.Tensor], wanted: list[str]) -> dict[str, torch.Tensor]:
    """The official tower's weights under transformers' keys; one matrix there is three here."""
    outside = {
        "embeddings.class_embedding": state["cls_embedding"].flatten(),
        "embeddings.patch_embedding.weight": state["patch_embedding.weight"],
        "embeddings.position_embedding.weight": state["pos_embedding"][0],
    }
    outside |= {f"{ours}.{leaf}": state[f"{theirs}.{leaf}"] for ours, theirs in NORMS.items() for leaf in ("weight", "bias")}
    out = {}
    for key in wanted:
        name = key.removeprefix("vision_model.")
        number, _, rest = name.removeprefix("encoder.layers.").partition(".")
        stem, _, leaf = rest.rpartition(".")
        if name in outside:
            out[key] = outside[name]
        elif stem.endswith(("q_proj", "k_proj", "v_proj")):
            out[key] = state[f"transformer.{number}.attn.to_qkv.{leaf}"].chunk(3)["qkv".index(stem[-6])]
        else:
            out[key] = state[f"transformer.{number}.{TOWER[stem]}.{leaf}"]
    return out
