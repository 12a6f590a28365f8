"""A family's transformer on torch's meta device, with a sample to ask it about: enough to count what a step will cost, without weights."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from lora_edit.models.catalog.facts import ModelFacts
from lora_edit.models.family import EncodedSample, Expert, outline_of
from lora_edit.models.ltx import LTX_TARGETS, Ltx
from lora_edit.models.precision import settle
from lora_edit.models.replace import ReplaceFamily, ReplaceParts
from lora_edit.models.wan import WAN_TARGETS, Autoencoder, WanFamily, WanParts
from lora_edit.models.wan_ti2v import WanTI2V
from lora_edit.models.workbench import Workbench

IMAGE_TOKENS = 257
"""Of one picture, by CLIP ViT-H/14."""

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
}
"""By the loader of a catalogue's record."""
