"""A family's transformer on torch's meta device, with a sample to ask it about: enough to count what a step will cost, without weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from lora_edit.models.catalog.facts import ModelFacts
from lora_edit.models.cost import LiveBytes
from lora_edit.models.family import EncodedSample, Expert, outline_of
from lora_edit.models.hunyuan import HunyuanFamily, HunyuanFirstFrame, HunyuanParts
from lora_edit.models.hunyuan_encoders import pack_text
from lora_edit.models.ltx import LTX_TARGETS, Ltx
from lora_edit.models.precision import settle
from lora_edit.models.replace import ReplaceFamily, ReplaceParts
from lora_edit.models.wan import WAN_TARGETS, Autoencoder, WanFamily, WanParts
from lora_edit.models.wan_ti2v import WanTI2V
from lora_edit.models.workbench import Workbench
from lora_edit.types import Size

IMAGE_TOKENS = 257
"""Of one picture, by CLIP ViT-H/14."""

TEXT, POOLED = "text_embed_dim", "pooled_projection_dim"

Latent = tuple[int, int, int]
"""F, h, w."""


def outline_wan(facts: ModelFacts, latent: Latent, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """The first of the transformers; another one of the same model is its like."""
    config, device = facts.transformer_config(), torch.device("meta")
    z_dim = config["out_channels"]
    encoded = _blank(config["in_channels"] - z_dim, z_dim, facts.text_length, config["text_dim"], latent, dtype)
    pictures = None
    if facts.image_encoder:
        pictures = torch.empty(1 + facts.last_frame, IMAGE_TOKENS, config["image_dim"], dtype=dtype, device=device)
    parts = WanParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=_transformer(facts, dtype),
        autoencoder=_autoencoder(z_dim),
        embed_prompt=lambda _: encoded.prompt_embeds,
        embed_image=None,
        device=device,
        dtype=dtype,
    )
    return WanFamily(parts), EncodedSample(**{**vars(encoded), "image_embeds": pictures})


def outline_ti2v(facts: ModelFacts, latent: Latent, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """Wan2.2 TI2V-5B."""
    return _replaced(facts, latent, dtype, "text_dim", WAN_TARGETS, WanTI2V)


def outline_ltx(facts: ModelFacts, latent: Latent, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """LTX-Video."""
    return _replaced(facts, latent, dtype, "caption_channels", LTX_TARGETS, lambda parts: Ltx(parts, exact_times=True))


def outline_hunyuan(facts: ModelFacts, latent: Latent, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """The first HunyuanVideo."""
    config = facts.transformer_config()
    replacing = config["image_condition_type"] == "token_replace"
    z_dim = config["out_channels"]
    encoded = _blank(z_dim if replacing else config["in_channels"] - z_dim, z_dim, 1, 1, latent, dtype)
    # Which rows are whose is read from the packed text, so that has values.
    rows = (torch.zeros(1, length, config[width], dtype=dtype) for length, width in ((facts.text_length, TEXT), (1, POOLED)))
    parts = HunyuanParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=_transformer(facts, dtype),
        autoencoder=_autoencoder(z_dim),
        embed_text=lambda *_: encoded.prompt_embeds,
        embed_image=None,
        bench=Workbench(torch.device("meta")),
        dtype=dtype,
    )
    kind = HunyuanFirstFrame if replacing else HunyuanFamily
    return kind(parts), EncodedSample(**{**vars(encoded), "prompt_embeds": pack_text(*rows)})


def _replaced(
    facts: ModelFacts,
    latent: Latent,
    dtype: torch.dtype,
    text: str,
    targets: dict[str, str],
    family: Callable[[ReplaceParts], ReplaceFamily],
) -> tuple[Expert, EncodedSample]:
    config = facts.transformer_config()
    z_dim = config["out_channels"]
    encoded = _blank(z_dim, z_dim, facts.text_length, config[text], latent, dtype)
    parts = ReplaceParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=_transformer(facts, dtype),
        autoencoder=_autoencoder(z_dim),
        embed_prompt=lambda _: encoded.prompt_embeds,
        lora_targets=targets,
        bench=Workbench(torch.device("meta")),
        dtype=dtype,
    )
    return family(parts), encoded


def _transformer(facts: ModelFacts, dtype: torch.dtype) -> nn.Module:
    transformer = outline_of(facts)
    assert transformer is not None
    return settle(transformer, dtype)


def _autoencoder(z_dim: int) -> Autoencoder:
    return cast(Autoencoder, SimpleNamespace(z_dim=z_dim))


def _blank(channels: int, z_dim: int, length: int, width: int, latent: Latent, dtype: torch.dtype) -> EncodedSample:
    """`channels` of condition, a target of `z_dim`, a prompt of `length` tokens of `width`: all without values."""
    shapes: dict[str, Any] = {"condition": channels, "generate": 1, "target": z_dim}
    made = {name: torch.empty(1, count, *latent, dtype=dtype, device="meta") for name, count in shapes.items()}
    return EncodedSample(**made, prompt_embeds=torch.empty(1, length, width, dtype=dtype, device="meta"))


OUTLINES: dict[str, Callable[[ModelFacts, Latent, torch.dtype], tuple[Expert, EncodedSample]]] = {
    "lora_edit.models.loading:load_wan": outline_wan,
    "lora_edit.models.wan_ti2v:load_ti2v": outline_ti2v,
    "lora_edit.models.ltx:load_ltx": outline_ltx,
    "lora_edit.models.hunyuan_loading:load_hunyuan": outline_hunyuan,
}
"""By the loader of a catalogue's record."""


def outlined(facts: ModelFacts) -> bool:
    """Is the model here? HunyuanVideo-1.5 is not: its transformer decides by numbers, which an outline has none of."""
    return facts.loader in OUTLINES and "text_embed_2_dim" not in facts.transformer_config()


@lru_cache(maxsize=8)
def codec_bytes(facts: ModelFacts, size: Size) -> tuple[int, int]:
    """The most that Wan's autoencoder holds while it encodes and while it decodes, in float32, at a frame size; zeros for others.

    It works through a clip a latent frame at a time, so that a long one takes what a short one does.
    """
    if facts.loader != "lora_edit.models.loading:load_wan":
        return 0, 0
    import diffusers

    frames = 2 * facts.geometry.group + 1
    with torch.device("meta"), torch.no_grad():
        vae: Any = diffusers.AutoencoderKLWan()
        latent = torch.empty(1, vae.config.z_dim, 3, size.height // facts.geometry.cell, size.width // facts.geometry.cell)
        with LiveBytes() as encoding:
            vae.encode(torch.empty(1, 3, frames, size.height, size.width))
        with LiveBytes() as decoding:
            vae.decode(latent)
    weights = sum(each.nbytes for each in vae.parameters())
    return encoding.most + weights, decoding.most + weights
