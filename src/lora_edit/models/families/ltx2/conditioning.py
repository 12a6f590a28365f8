"""Condition layout of LTX-2: given tokens replace noisy ones, with a time per token, and the sound is left out.

This is the `mask` condition of LTX-2's own trainer (`ltx_trainer/training_strategies/flexible.py`): given tokens are clean, at time 0, and
without loss. A token is one latent cell, 32x32 pixels and eight frames. Positions are in pixels and seconds.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from einops import rearrange
from torch import nn

from lora_edit.models.families.base import FamilyParts
from lora_edit.models.families.ltx.conditioning import LTX_TARGETS
from lora_edit.models.families.token_replacement import TokenReplaceFamily, build_token_replace_sample
from lora_edit.models.family import EncodedSample, LatentShape
from lora_edit.models.record import ModelRecord

SOUND_LAYERS = ("audio_attn1", "audio_attn2", "audio_ff", "audio_to_video_attn", "video_to_audio_attn")
"""Modules of a block that only the sound needs: 5.6 of 19 billion parameters."""

FRAME_RATE = 24.0
"""Frame rate of every clip in the model's input: upstream's default. A clip of another rate appears slower or faster to the model, in
training and generation alike."""


class SilentLayer(nn.Module):
    """Replacement for a layer of the sound, which has no effect on the picture: returns its input."""

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return `hidden_states`."""
        return hidden_states


def remove_sound_layers(transformer: Any) -> None:
    """Replace the blocks' layers of the sound in place, so that they take no memory."""
    for block, name in product(transformer.transformer_blocks, SOUND_LAYERS):
        setattr(block, name, SilentLayer())


class Ltx2Family(TokenReplaceFamily):
    """`Family` for LTX-2.3 and LTX-2.5 (diffusers `pipeline_ltx2_condition.py`).

    The transformer has a stream of sound beside that of the picture. The attention between the two is switched off, which is the model
    without sound (LTX-2 `ltx_core/model/transformer`: a modality of None). The sound's stream gets one empty token, because diffusers'
    class needs one, and its large layers are removed.
    """

    lora_targets = LTX_TARGETS

    def __init__(self, parts: FamilyParts) -> None:
        super().__init__(parts)
        remove_sound_layers(self.transformer)

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """Call the transformer, whose input and output are rows of tokens."""
        batch, _, frames, height, width = model_input.shape
        config: Any = self.transformer.config
        time = timesteps.amax(1)  # of the noisy tokens; the prompt's modulation follows it

        def build_silence(channels: int) -> torch.Tensor:
            return model_input.new_zeros(batch, 1, channels)

        output: torch.Tensor = self.transformer(
            hidden_states=rearrange(model_input, "b z f h w -> b (f h w) z"),
            audio_hidden_states=build_silence(config.audio_in_channels),
            encoder_hidden_states=prompt_embeds,
            audio_encoder_hidden_states=build_silence(config.audio_cross_attention_dim),
            timestep=timesteps,
            audio_timestep=time,
            sigma=time,
            num_frames=frames,
            height=height,
            width=width,
            fps=FRAME_RATE,
            audio_num_frames=1,
            isolate_modalities=True,
            use_cross_timestep=True,
            return_dict=False,
        )[0]
        return rearrange(output, "b (f h w) z -> b z f h w", f=frames, h=height)


def build_meta_sample(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> EncodedSample:
    """Build a sample without values on torch's meta device."""
    return build_token_replace_sample(record, latent_shape, dtype, text_dim=record.read_transformer_config()["cross_attention_dim"])
