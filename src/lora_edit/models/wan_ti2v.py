"""Wan2.2 TI2V-5B: Wan's blocks without mask channel or image encoder, a time per token, 48 latent channels on cells of 16 pixels."""

from __future__ import annotations

import torch

from lora_edit.errors import ModelError
from lora_edit.models.catalog.facts import ModelFacts
from lora_edit.models.later import later
from lora_edit.models.loading import Components, load_components, sparing
from lora_edit.models.precision import settle
from lora_edit.models.replace import ReplaceFamily, ReplaceParts
from lora_edit.models.wan import WAN_TARGETS, WanAutoencoder
from lora_edit.models.wan_encoders import PromptEncoder
from lora_edit.models.workbench import TurnsAutoencoder, Workbench


class WanTI2V(ReplaceFamily):
    """`Family` for Wan2.2 TI2V-5B (diffusers `pipeline_wan_i2v.py` with `expand_timesteps`)."""

    def ask(self, shown: torch.Tensor, times: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """The transformer's answer; a time per token, row by row and frame by frame."""
        answer: torch.Tensor = self.transformer(shown, times, prompt_embeds, return_dict=False)[0]
        return answer


def load_ti2v(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> WanTI2V:
    """The catalogue's loader. Raises `ModelError`."""
    return build_ti2v(load_components(facts, source, device, dtype), facts, device, dtype)


def build_ti2v(components: Components, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> WanTI2V:
    """Components to a family: autoencoder in float32, all by turns on the device.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    transformer, bench = components.transformers[0], Workbench(device)
    vae = later(components.vae)
    autoencoder = TurnsAutoencoder(WanAutoencoder, vae, vae.config.z_dim, bench)
    if transformer.config.in_channels != autoencoder.z_dim:
        raise ModelError(
            f"{facts.name}: {transformer.config.in_channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; "
            "give its own vae folder"
        )
    return WanTI2V(
        ReplaceParts(
            name=facts.name,
            geometry=facts.geometry,
            transformer=sparing(settle(transformer, dtype)),
            autoencoder=autoencoder,
            embed_prompt=PromptEncoder(later(components.text_encoder), components.tokenizer, facts.text_length, bench),
            lora_targets=WAN_TARGETS,
            bench=bench,
            dtype=dtype,
        )
    )
