"""A family's transformer on torch's meta device, with a sample to ask it about: enough to count what a step will cost, without weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKLWan

from lora_edit.models.catalog.facts import ModelFacts
from lora_edit.models.family import EncodedSample, Expert, outline_of
from lora_edit.models.precision import settle
from lora_edit.models.wan import WanAutoencoder, WanFamily, WanParts

IMAGE_TOKENS = 257
"""Of one picture, by CLIP ViT-H/14."""

Latent = tuple[int, int, int]
"""F, h, w."""


def outline_wan(facts: ModelFacts, latent: Latent, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """The first of the transformers; another one of the same model is its like."""
    config = facts.transformer_config()
    transformer = outline_of(facts)
    assert transformer is not None
    device = torch.device("meta")
    with device:
        autoencoder = WanAutoencoder(AutoencoderKLWan(z_dim=config["out_channels"]))
        pictures = torch.empty(1 + facts.last_frame, IMAGE_TOKENS, config["image_dim"], dtype=dtype) if facts.image_encoder else None
        encoded = EncodedSample(
            condition=torch.empty(1, config["in_channels"] - config["out_channels"], *latent, dtype=dtype),
            generate=torch.empty(1, 1, *latent),
            prompt_embeds=torch.empty(1, facts.text_length, config["text_dim"], dtype=dtype),
            target=torch.empty(1, config["out_channels"], *latent),
            image_embeds=pictures,
        )
    parts = WanParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=settle(transformer, dtype),
        autoencoder=autoencoder,
        embed_prompt=lambda _: encoded.prompt_embeds,
        embed_image=None,
        device=device,
        dtype=dtype,
    )
    return WanFamily(parts), encoded


OUTLINES: dict[str, Callable[[ModelFacts, Latent, torch.dtype], tuple[Expert, EncodedSample]]] = {
    "lora_edit.models.loading:load_wan": outline_wan,
}
"""By the loader of a catalogue's record."""
