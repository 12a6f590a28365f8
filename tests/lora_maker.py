"""A tiny random Wan image-to-video transformer, random LoRA pairs for it, and the layouts in which programs write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from lora_edit.loras.files import LayerDelta
from lora_edit.loras.names import flatten_name, to_original
from lora_edit.models.families.base import FamilyParts
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.record import Geometry
from lora_edit.models.runtime.device_manager import DeviceManager
from tiny_random import random_record, tiny_random_family

LAYERS = tuple(
    f"blocks.{block}.{name}"
    for block in (0, 1)
    for name in (
        "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
        "attn2.add_k_proj", "attn2.add_v_proj", "ffn.net.0.proj", "ffn.net.2",
    )
)  # fmt: skip
WIDTH, FFN = 24, 32
LAYOUTS = ("diffusers", "peft", "comfyui", "down-up", "musubi", "kohya", "bare")


def image_to_video_transformer(seed: int = 0) -> WanTransformer3DModel:
    """Wan 2.1 I2V with CLIP image tokens, two blocks."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16, text_dim=16, freq_dim=16,
            ffn_dim=FFN, num_layers=2, image_dim=8, added_kv_proj_dim=WIDTH, rope_max_seq_len=32,
        )  # fmt: skip
    return transformer.eval().requires_grad_(False)


def image_to_video_family(seed: int = 0, name: str = "wan-random") -> WanFamily:
    """A family around it that has no codec of use."""
    codec = tiny_random_family().parts.autoencoder
    record, transformer = random_record(name, Geometry(8, 4, 16, 81, 32 * 32)), image_to_video_transformer(seed)
    manager = DeviceManager(torch.device("cpu"))
    return WanFamily(FamilyParts(record, transformer, codec, lambda _: torch.zeros(1, 12, 16), None, manager, torch.float32))


@torch.no_grad()
def velocity(transformer: torch.nn.Module) -> torch.Tensor:
    """The output for one fixed input."""
    draw = torch.Generator().manual_seed(7)
    latents, text, image = (torch.randn(shape, generator=draw) for shape in ((1, 36, 3, 4, 4), (1, 12, 16), (1, 257, 8)))
    out: torch.Tensor = transformer(latents, torch.tensor([300.0]), text, encoder_hidden_states_image=image, return_dict=False)[0]
    return out


def random_changes(
    rank: int = 4, alpha: float | None = 8.0, dtype: torch.dtype = torch.float32, layers: Iterable[str] = LAYERS, scale: float = 0.1
) -> dict[str, LayerDelta]:
    """Pairs that change something, by diffusers' names."""
    draw = torch.Generator().manual_seed(3)
    changes = {}
    for name in layers:
        inputs, outputs = (FFN if name.endswith("net.2") else WIDTH), (FFN if name.endswith("net.0.proj") else WIDTH)
        down, up = (torch.randn(shape, generator=draw).mul(scale).to(dtype) for shape in ((rank, inputs), (outputs, rank)))
        changes[name] = LayerDelta(down, up, alpha)
    return changes


def spelled(layout: str, changes: dict[str, LayerDelta]) -> dict[str, torch.Tensor]:
    """The tensors as a program of that layout writes them (PEFT and diffusers keep alpha elsewhere)."""
    tensors: dict[str, torch.Tensor] = {}
    for name, change in changes.items():
        original = (to_original(name) or ("",))[0]
        layer, down, up = {
            "diffusers": (f"transformer.{name}", "lora_A", "lora_B"),
            "peft": (f"base_model.model.{name}", "lora_A", "lora_B"),
            "comfyui": (f"diffusion_model.{original}", "lora_A", "lora_B"),
            "down-up": (f"diffusion_model.{original}", "lora_down", "lora_up"),
            "musubi": (f"lora_unet_{flatten_name(original)}", "lora_down", "lora_up"),
            "kohya": (f"lora_unet__{flatten_name(name)}", "lora_down", "lora_up"),
            "bare": (original, "lora_A.default", "lora_B.default"),
        }[layout]
        assert change.down is not None and change.up is not None
        tensors[f"{layer}.{down}.weight"], tensors[f"{layer}.{up}.weight"] = change.down.clone(), change.up.clone()
        if layout not in ("diffusers", "peft") and change.alpha is not None:
            tensors[f"{layer}.alpha"] = torch.tensor(change.alpha)
    return tensors


def write(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    """A safetensors file of other people's making."""
    save_file(tensors, path, metadata=metadata or None)
    return path
