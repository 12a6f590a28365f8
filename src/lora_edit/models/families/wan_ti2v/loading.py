"""Wan2.2 TI2V-5B: Wan's blocks without mask channel or image encoder, a time per token, 48 latent channels on cells of 16 pixels."""

from __future__ import annotations

import torch

from lora_edit.errors import ModelError
from lora_edit.models.families.token_replacement import TokenReplaceFamily, TokenReplaceParts
from lora_edit.models.families.wan.encoders import PromptEncoder
from lora_edit.models.families.wan.family import WAN_TARGETS, WanAutoencoder
from lora_edit.models.families.wan.loading import Components, enable_checkpointing, load_components
from lora_edit.models.record import ModelFacts
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import to_lazy_module
from lora_edit.models.runtime.precision import cast_and_freeze


class WanTI2VFamily(TokenReplaceFamily):
    """`Family` for Wan2.2 TI2V-5B (diffusers `pipeline_wan_i2v.py` with `expand_timesteps`)."""

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """The transformer's answer; a time per token, row by row and frame by frame."""
        answer: torch.Tensor = self.transformer(model_input, timesteps, prompt_embeds, return_dict=False)[0]
        return answer


def load_ti2v(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> WanTI2VFamily:
    """The catalogue's loader. Raises `ModelError`."""
    return build_ti2v(load_components(facts, source, device, dtype), facts, device, dtype)


def build_ti2v(components: Components, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> WanTI2VFamily:
    """Components to a family: autoencoder in float32, all by turns on the device.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    transformer, bench = components.transformers[0], DeviceManager(device)
    vae = to_lazy_module(components.vae)
    autoencoder = ManagedAutoencoder(WanAutoencoder, vae, vae.config.z_dim, bench)
    if transformer.config.in_channels != autoencoder.z_dim:
        raise ModelError(
            f"{facts.name}: {transformer.config.in_channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; "
            "give its own vae folder"
        )
    return WanTI2VFamily(
        TokenReplaceParts(
            name=facts.name,
            geometry=facts.geometry,
            transformer=enable_checkpointing(cast_and_freeze(transformer, dtype)),
            autoencoder=autoencoder,
            embed_prompt=PromptEncoder(to_lazy_module(components.text_encoder), components.tokenizer, facts.text_length, bench),
            lora_targets=WAN_TARGETS,
            device_manager=bench,
            dtype=dtype,
        )
    )
