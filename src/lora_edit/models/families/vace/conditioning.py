"""Condition layout of VACE, which is sampled only: a branch of its own steers a frozen model by reference image, given pixels and mask.

Its input (Wan2.1 `wan/vace.py`, diffusers `pipeline_wan_vace.py`) is `[given 16 | to change 16 | mask 64]` channels, and in front one
latent frame for the reference image. The mask is 1 where it generates. The second part takes pixels to work from, such as a sketch or
depth. The source's own pixels would reveal what the edit hides; a `Sample` does not carry them, and they are grey here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.base import TransformerFamily, build_meta_tensors
from lora_edit.models.families.wan.conditioning import WAN_TARGETS
from lora_edit.models.family import EncodedSample, LatentShape
from lora_edit.models.record import ModelRecord


class VaceFamily(TransformerFamily):
    """`Family` for sampling: the sample's image is VACE's reference image, and frame 0 of the clip is given as in V_cond."""

    lora_targets = WAN_TARGETS

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode given pixels, grey in the hole, the mask, and the reference image in front."""
        assert sample.v_target is None and sample.v_blend is None, "VACE is a baseline, neither trained nor blended"
        encode, device = self.parts.autoencoder.encode, self.device
        given = (sample.m_cond[None] > 0.5).to(device)
        pixels = torch.where(given, sample.v_cond[None].to(device), torch.zeros((), device=device))
        reference = encode(sample.image[None, :, None].to(device))
        clip_channels = torch.cat([encode(pixels), encode(torch.zeros_like(pixels))], 1)
        reference_channels = torch.cat([reference, torch.zeros_like(reference)], 1)
        mask = pack_vace_mask(1 - given.float(), self.geometry.spatial_compression, self.geometry.temporal_compression)
        mask = torch.cat([torch.zeros_like(mask[:, :, :1]), mask], 2)
        condition = torch.cat([torch.cat([reference_channels, clip_channels], 2), mask], 1)
        return EncodedSample(
            condition=condition.to(self.parts.dtype),
            hole=mask.amax(1, keepdim=True),
            prompt_embeds=self.encode_prompt(sample.prompt),
        )

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict the velocity `[B, z, 1 + F, h, w]` in float32, the reference's latent frame included."""
        self.to_device()
        batch = len(latents)
        output = self.transformer(
            latents.to(self.parts.dtype),
            time * 1000,
            encoded.prompt_embeds.expand(batch, -1, -1),
            control_hidden_states=encoded.condition.expand(batch, -1, -1, -1, -1),
            return_dict=False,
        )[0]
        velocity: torch.Tensor = output.float()
        return velocity

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents `[1, z, 1 + F, h, w]` to pixels `[3, T, H, W]`, without the reference image."""
        return super().decode(latents[:, :, 1:])


def pack_vace_mask(mask: torch.Tensor, spatial_compression: int = 8, temporal_compression: int = 4) -> torch.Tensor:
    """Pack a mask `[B, 1, T, H, W]` (1 = generate) for VACE: one channel per pixel of a cell, `[B, spatial_compression^2, F, h, w]`.

    Each latent frame takes one pixel frame: of 49 those at 1, 5, 9, 13, 16, ..., 47. Frame 0, which is given, is not among them.
    """
    cells = rearrange(mask, "b 1 t (h p) (w q) -> b (p q) t h w", p=spatial_compression, q=spatial_compression)
    frames, height, width = cells.shape[2:]
    return F.interpolate(cells, size=((frames + temporal_compression - 1) // temporal_compression, height, width), mode="nearest-exact")


def build_meta_sample(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> EncodedSample:
    """Build a sample without values on torch's meta device; `latent_shape` is the clip's, without the reference image."""
    config = record.read_transformer_config()
    frames, height, width = latent_shape
    channels = {"condition": config["vace_in_channels"], "hole": 1, "target": config["out_channels"]}
    return EncodedSample(
        **build_meta_tensors(channels, (1 + frames, height, width), dtype),
        prompt_embeds=torch.empty(1, record.text_length, config["text_dim"], dtype=dtype, device="meta"),
    )
