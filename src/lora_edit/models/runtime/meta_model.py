"""A family's transformer on torch's meta device, with a sample to ask it about: enough to count what a step will cost, without weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from lora_edit.models.families.hunyuan.encoders import pack_text
from lora_edit.models.families.hunyuan.family import HunyuanFamily, HunyuanFirstFrameFamily, HunyuanParts
from lora_edit.models.families.ltx.loading import LTX_TARGETS, LtxFamily
from lora_edit.models.families.token_replacement import TokenReplaceFamily, TokenReplaceParts
from lora_edit.models.families.wan.family import WAN_TARGETS, Autoencoder, WanFamily, WanParts
from lora_edit.models.families.wan_ti2v.loading import WanTI2VFamily
from lora_edit.models.family import EncodedSample, Expert, build_meta_transformer
from lora_edit.models.record import ModelFacts
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.precision import cast_and_freeze
from lora_edit.models.runtime.step_cost import LiveMemoryTracker
from lora_edit.types import Size

CLIP_IMAGE_TOKENS = 257
"""Of one picture, by CLIP ViT-H/14."""

TEXT_DIM_KEY, POOLED_DIM_KEY = "text_embed_dim", "pooled_projection_dim"

LatentShape = tuple[int, int, int]
"""F, h, w."""


def build_meta_wan(facts: ModelFacts, latent_shape: LatentShape, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """The first of the transformers; another one of the same model is its like."""
    config, device = facts.read_transformer_config(), torch.device("meta")
    z_dim = config["out_channels"]
    encoded = _build_empty_sample(config["in_channels"] - z_dim, z_dim, facts.text_length, config["text_dim"], latent_shape, dtype)
    pictures = None
    if facts.image_encoder:
        pictures = torch.empty(1 + facts.last_frame, CLIP_IMAGE_TOKENS, config["image_dim"], dtype=dtype, device=device)
    parts = WanParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=_build_transformer(facts, dtype),
        autoencoder=_build_stub_autoencoder(z_dim),
        embed_prompt=lambda _: encoded.prompt_embeds,
        embed_image=None,
        device=device,
        dtype=dtype,
    )
    return WanFamily(parts), EncodedSample(**{**vars(encoded), "image_embeds": pictures})


def build_meta_ti2v(facts: ModelFacts, latent_shape: LatentShape, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """Wan2.2 TI2V-5B."""
    return _build_meta_token_replace(facts, latent_shape, dtype, "text_dim", WAN_TARGETS, WanTI2VFamily)


def build_meta_ltx(facts: ModelFacts, latent_shape: LatentShape, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """LTX-Video."""
    return _build_meta_token_replace(
        facts, latent_shape, dtype, "caption_channels", LTX_TARGETS, lambda parts: LtxFamily(parts, causal_fix=True)
    )


def build_meta_hunyuan(facts: ModelFacts, latent_shape: LatentShape, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """The first HunyuanVideo."""
    config = facts.read_transformer_config()
    replacing = config["image_condition_type"] == "token_replace"
    z_dim = config["out_channels"]
    encoded = _build_empty_sample(z_dim if replacing else config["in_channels"] - z_dim, z_dim, 1, 1, latent_shape, dtype)
    # Which rows are whose is read from the packed text, so that has values.
    rows = (
        torch.zeros(1, length, config[width], dtype=dtype) for length, width in ((facts.text_length, TEXT_DIM_KEY), (1, POOLED_DIM_KEY))
    )
    parts = HunyuanParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=_build_transformer(facts, dtype),
        autoencoder=_build_stub_autoencoder(z_dim),
        embed_text=lambda *_: encoded.prompt_embeds,
        embed_image=None,
        device_manager=DeviceManager(torch.device("meta")),
        dtype=dtype,
    )
    kind = HunyuanFirstFrameFamily if replacing else HunyuanFamily
    return kind(parts), EncodedSample(**{**vars(encoded), "prompt_embeds": pack_text(*rows)})


def _build_meta_token_replace(
    facts: ModelFacts,
    latent_shape: LatentShape,
    dtype: torch.dtype,
    text_dim_key: str,
    lora_targets: dict[str, str],
    family_class: Callable[[TokenReplaceParts], TokenReplaceFamily],
) -> tuple[Expert, EncodedSample]:
    config = facts.read_transformer_config()
    z_dim = config["out_channels"]
    encoded = _build_empty_sample(z_dim, z_dim, facts.text_length, config[text_dim_key], latent_shape, dtype)
    parts = TokenReplaceParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=_build_transformer(facts, dtype),
        autoencoder=_build_stub_autoencoder(z_dim),
        embed_prompt=lambda _: encoded.prompt_embeds,
        lora_targets=lora_targets,
        device_manager=DeviceManager(torch.device("meta")),
        dtype=dtype,
    )
    return family_class(parts), encoded


def _build_transformer(facts: ModelFacts, dtype: torch.dtype) -> nn.Module:
    transformer = build_meta_transformer(facts)
    assert transformer is not None
    return cast_and_freeze(transformer, dtype)


def _build_stub_autoencoder(z_dim: int) -> Autoencoder:
    return cast(Autoencoder, SimpleNamespace(z_dim=z_dim))


def _build_empty_sample(channels: int, z_dim: int, length: int, width: int, latent_shape: LatentShape, dtype: torch.dtype) -> EncodedSample:
    """`channels` of condition, a target of `z_dim`, a prompt of `length` tokens of `width`: all without values."""
    shapes: dict[str, Any] = {"condition": channels, "hole": 1, "target": z_dim}
    made = {name: torch.empty(1, count, *latent_shape, dtype=dtype, device="meta") for name, count in shapes.items()}
    return EncodedSample(**made, prompt_embeds=torch.empty(1, length, width, dtype=dtype, device="meta"))


META_MODEL_BUILDERS: dict[str, Callable[[ModelFacts, LatentShape, torch.dtype], tuple[Expert, EncodedSample]]] = {
    "lora_edit.models.families.wan.loading:load_wan": build_meta_wan,
    "lora_edit.models.families.wan_ti2v.loading:load_ti2v": build_meta_ti2v,
    "lora_edit.models.families.ltx.loading:load_ltx": build_meta_ltx,
    "lora_edit.models.families.hunyuan.loading:load_hunyuan": build_meta_hunyuan,
}
"""By the loader of a catalogue's record."""


def has_meta_model(facts: ModelFacts) -> bool:
    """Is the model here? HunyuanVideo-1.5 is not: its transformer decides by numbers, which an outline has none of."""
    return facts.loader in META_MODEL_BUILDERS and "text_embed_2_dim" not in facts.read_transformer_config()


@lru_cache(maxsize=8)
def count_codec_bytes(facts: ModelFacts, size: Size) -> tuple[int, int]:
    """The most that Wan's autoencoder holds while it encodes and while it decodes, in float32, at a frame size; zeros for others.

    It works through a clip a latent frame at a time, so that a long one takes what a short one does.
    """
    if facts.loader != "lora_edit.models.families.wan.loading:load_wan":
        return 0, 0
    import diffusers

    frames = 2 * facts.geometry.temporal_compression + 1
    with torch.device("meta"), torch.no_grad():
        vae: Any = diffusers.AutoencoderKLWan()
        latent = torch.empty(
            1, vae.config.z_dim, 3, size.height // facts.geometry.spatial_compression, size.width // facts.geometry.spatial_compression
        )
        with LiveMemoryTracker() as encoding:
            vae.encode(torch.empty(1, 3, frames, size.height, size.width))
        with LiveMemoryTracker() as decoding:
            vae.decode(latent)
    weights = sum(each.nbytes for each in vae.parameters())
    return encoding.peak_bytes + weights, decoding.peak_bytes + weights
