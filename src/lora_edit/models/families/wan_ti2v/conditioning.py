"""Condition layout of Wan2.2 TI2V-5B: given tokens replace noisy ones, with a time per token."""

from __future__ import annotations

import torch

from lora_edit.models.families.token_replacement import TokenReplaceFamily, build_token_replace_sample
from lora_edit.models.families.wan.conditioning import WAN_TARGETS
from lora_edit.models.family import EncodedSample, LatentShape
from lora_edit.models.record import ModelRecord


class WanTI2VFamily(TokenReplaceFamily):
    """`Family` for Wan2.2 TI2V-5B (diffusers `pipeline_wan_i2v.py` with `expand_timesteps`)."""

    lora_targets = WAN_TARGETS

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """Call the transformer with a time per token, row by row and frame by frame."""
        output: torch.Tensor = self.transformer(model_input, timesteps, prompt_embeds, return_dict=False)[0]
        return output


def build_meta_sample(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> EncodedSample:
    """Build a sample without values on torch's meta device."""
    return build_token_replace_sample(record, latent_shape, dtype, text_dim=record.read_transformer_config()["text_dim"])
