"""Condition layout of LTX-Video 0.9: given tokens replace noisy ones, with a time and a position per token.

A token is one latent cell, 32x32 pixels and eight frames. Positions are in pixels and seconds.
"""

from __future__ import annotations

import torch
from einops import rearrange

from lora_edit.models.families.base import DEFAULT_FRAME_RATE, FamilyParts
from lora_edit.models.families.token_replacement import TokenReplaceFamily, build_token_replace_sample
from lora_edit.models.family import EncodedSample, LatentShape
from lora_edit.models.record import Geometry, ModelRecord

_ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"
LTX_TARGETS = {
    "attention+ffn": rf"transformer_blocks\.\d+\.({_ATTENTION}|ff\.net\.(0\.proj|2))",
    "attention": rf"transformer_blocks\.\d+\.{_ATTENTION}",
    "query+key": r"transformer_blocks\.\d+\.attn[12]\.(to_q|to_k)",
}
"""Layers of a LoRA by `lora.targets`; the same layers as in Wan."""


def build_video_coords(
    frames: int, height: int, width: int, geometry: Geometry, causal_fix: bool, frame_rate: float = DEFAULT_FRAME_RATE
) -> torch.Tensor:
    """Build the start positions of tokens, `[1, 3, F * h * w]` float32: seconds, then rows and columns in pixels."""
    frame = torch.arange(frames, dtype=torch.float32)
    # As in the stock pipelines to the last bit: the rotary embedding multiplies a difference by up to 16000.
    seconds = frame * (geometry.temporal_compression / frame_rate)
    if causal_fix:
        seconds = (frame * geometry.temporal_compression + 1 - geometry.temporal_compression).clamp(min=0) * (1 / frame_rate)
    rows, columns = (torch.arange(side, dtype=torch.float32) * geometry.spatial_compression for side in (height, width))
    return torch.stack([axis.flatten() for axis in torch.meshgrid(seconds, rows, columns, indexing="ij")])[None]


class LtxFamily(TokenReplaceFamily):
    """`Family` for LTX-Video 0.9 (diffusers `pipeline_ltx_image2video.py`, `pipeline_ltx_condition.py`)."""

    lora_targets = LTX_TARGETS

    def __init__(self, parts: FamilyParts, causal_fix: bool) -> None:
        super().__init__(parts)
        self.causal_fix = causal_fix

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """Call the transformer, whose input and output are rows of tokens."""
        frames, height, width = model_input.shape[2:]
        coords = build_video_coords(frames, height, width, self.geometry, self.causal_fix, self.frame_rate).to(model_input.device)
        output: torch.Tensor = self.transformer(
            hidden_states=rearrange(model_input, "b z f h w -> b (f h w) z"),
            encoder_hidden_states=prompt_embeds,
            timestep=timesteps,
            encoder_attention_mask=None,
            video_coords=coords.expand(len(model_input), -1, -1),
            return_dict=False,
        )[0]
        return rearrange(output, "b (f h w) z -> b z f h w", f=frames, h=height)


def build_meta_sample(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> EncodedSample:
    """Build a sample without values on torch's meta device."""
    return build_token_replace_sample(record, latent_shape, dtype, text_dim=record.read_transformer_config()["caption_channels"])
