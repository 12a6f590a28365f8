"""Condition layout of Wan 2.1 image-to-video and of the models with the same input.

The transformer takes [noise | packed mask | V_cond latents] (Wan2.1 `wan/image2video.py`).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.base import TransformerFamily, build_meta_tensors
from lora_edit.models.families.condition_packing import pack_mask
from lora_edit.models.family import EncodedSample, LatentShape
from lora_edit.models.record import ModelRecord

_ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"
WAN_TARGETS = {
    "attention+ffn": rf"blocks\.\d+\.({_ATTENTION}|ffn\.net\.(0\.proj|2))",
    "attention": rf"blocks\.\d+\.{_ATTENTION}",
    "query+key": r"blocks\.\d+\.attn[12]\.(to_q|to_k)",
}
"""Layers of a LoRA by `lora.targets`. The reference adapts every linear layer of a block except image key and value (LoRAEdit
`models/base.py`); the paper's text says attention only."""

CLIP_IMAGE_TOKENS = 257
"""Tokens of one image by CLIP ViT-H/14."""


class WanFamily(TransformerFamily):
    """`Family` for every model that takes its condition as extra input channels in Wan's order."""

    lora_targets = WAN_TARGETS

    @property
    def condition_dtype(self) -> torch.dtype:
        """Number format of the condition channels."""
        return self.parts.dtype

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode V_cond whole (never a spliced latent: the autoencoder mixes frames), pack M_cond, encode V_target."""
        encode, device = self.parts.autoencoder.encode, self.device
        # One encoder after the other, because they take turns on the device.
        prompt_embeds = self.encode_prompt(sample.prompt)
        image_embeds = None if self.parts.image_encoder is None else self.parts.image_encoder(sample).to(device, self.parts.dtype)
        mask = self._pack_mask(sample.m_cond)
        blend_mask = None if sample.m_blend is None else self._pack_mask(sample.m_blend)
        return EncodedSample(
            condition=self._encode_condition(sample, mask).to(self.condition_dtype),
            hole=1 - mask.amin(1, keepdim=True),
            prompt_embeds=prompt_embeds,
            target=None if sample.v_target is None else encode(sample.v_target[None].to(device)),
            image_embeds=image_embeds,
            blend_latents=None if sample.v_blend is None else encode(sample.v_blend[None].to(device)),
            blend_mask=None if blend_mask is None else blend_mask.amin(1, keepdim=True),
        )

    def _pack_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Pack a mask `[1, T, H, W]` on the autoencoder's grid, `[1, temporal_compression, F, h, w]`."""
        return pack_mask(mask[None].to(self.device), self.geometry.spatial_compression, self.geometry.temporal_compression)

    def _encode_condition(self, sample: Sample, mask: torch.Tensor) -> torch.Tensor:
        """Build the condition channels: the packed mask, then V_cond's latents."""
        return torch.cat([mask, self.parts.autoencoder.encode(sample.v_cond[None].to(self.device))], 1)

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict the velocity (noise - data) `[B, z, F, h, w]` in float32; the transformer takes `1000 * time`."""
        self.to_device()
        batch = len(latents)
        image = encoded.image_embeds
        condition = encoded.condition.expand(batch, -1, -1, -1, -1)
        skip, scale, model_input = self._precondition(latents, time, condition)
        output = self.transformer(
            torch.cat([model_input, condition], 1).to(self.parts.dtype),
            self._compute_timesteps(time, condition),
            encoded.prompt_embeds.expand(batch, -1, -1),
            encoder_hidden_states_image=None if image is None else image.repeat(batch, 1, 1),
            return_dict=False,
        )[0]
        return skip.to(output.device) + scale.to(output.device) * output.float()

    def _precondition(
        self, latents: torch.Tensor, time: torch.Tensor, condition: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return a term to add to the transformer's output, the factor of that output, and the transformer's input latents."""
        return torch.zeros(()), torch.ones(()), latents

    def _compute_timesteps(self, time: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the transformer's times in [0, 1000]: one per sample `[B]`."""
        return time * 1000


def build_meta_sample(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> EncodedSample:
    """Build a sample without values on torch's meta device."""
    config = record.read_transformer_config()
    z_dim = config["out_channels"]
    sample = EncodedSample(
        **build_meta_tensors({"condition": config["in_channels"] - z_dim, "hole": 1, "target": z_dim}, latent_shape, dtype),
        prompt_embeds=torch.empty(1, record.text_length, config["text_dim"], dtype=dtype, device="meta"),
    )
    if not record.image_encoder:
        return sample
    images = torch.empty(1 + record.last_frame, CLIP_IMAGE_TOKENS, config["image_dim"], dtype=dtype, device="meta")
    return replace(sample, image_embeds=images)
