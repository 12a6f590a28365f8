"""Condition layouts of Wan2.2 TI2V-5B, where given tokens replace noisy ones, and of Wan2.2-Fun-5B-InP, which also has a mask channel.

Both have a time per token.
"""

from __future__ import annotations

import torch

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.token_replacement import (
    TokenReplaceFamily,
    build_token_replace_sample,
    check_size,
    compute_token_timesteps,
    compute_velocity_to,
)
from lora_edit.models.families.wan.conditioning import WAN_TARGETS, WanFamily
from lora_edit.models.family import EncodedSample, LatentShape
from lora_edit.models.record import ModelRecord


class WanTI2VFamily(TokenReplaceFamily):
    """`Family` for Wan2.2 TI2V-5B (diffusers `pipeline_wan_i2v.py` with `expand_timesteps`)."""

    lora_targets = WAN_TARGETS

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """Call the transformer with a time per token, row by row and frame by frame."""
        output: torch.Tensor = self.transformer(model_input, timesteps, prompt_embeds, return_dict=False)[0]
        return output


class WanFunTI2VFamily(WanFamily):
    """`Family` for Wan2.2-Fun-5B-InP (VideoX-Fun `pipeline_wan2_2_fun_inpaint.py`, `scripts/wan2.2_fun/train_lora.py`).

    The condition channels are Wan's. Besides, a first frame that is given whole replaces its noise, at time 0. All other cells are noisy,
    also given ones, and have the sample's time.
    """

    @property
    def condition_dtype(self) -> torch.dtype:
        """float32, because the velocity at a given first frame leads to its latents."""
        return torch.float32

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode as `WanFamily`. Raises `InputError` for sizes that the model does not take."""
        check_size(self.name, self.geometry, sample)
        return super().encode_sample(sample)

    def _split_condition(self, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return V_cond's latents, and the cells that are noisy `[1, 1, F, h, w]`: all, or all but those of a given first frame."""
        group = self.geometry.temporal_compression
        noisy = torch.ones_like(condition[:1, :1])
        noisy[:, :, 0] = 1 - condition[:1, :group, 0].amin((1, 2, 3))
        return condition[:, group:], noisy

    def _precondition(
        self, latents: torch.Tensor, time: torch.Tensor, condition: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Replace a given first frame; its velocity leads to its latents."""
        given, noisy = self._split_condition(condition)
        fixed = (1 - noisy) * compute_velocity_to(given, latents, time)
        return fixed, noisy, torch.where(noisy > 0, latents, given)

    def _compute_timesteps(self, time: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the time of each token `[B, tokens]`."""
        side = self.geometry.token_size // self.geometry.spatial_compression
        return compute_token_timesteps(1000 * time, self._split_condition(condition)[1], side)


def build_meta_sample(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> EncodedSample:
    """Build a sample without values on torch's meta device."""
    return build_token_replace_sample(record, latent_shape, dtype, text_dim=record.read_transformer_config()["text_dim"])
