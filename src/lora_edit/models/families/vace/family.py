"""VACE as a family that samples only: reference picture, kept pixels and mask steer a frozen model by a branch of its own.

What it is given (Wan2.1 `wan/vace.py`, diffusers `pipeline_wan_vace.py`): `[kept 16 | to be changed 16 | mask 64]` channels, and in front
one latent frame for the reference picture. Its mask is 1 where it generates. The second part is meant for pixels to work from, a sketch or
depth; the source's own would give away what the edit hides. A `Sample` does not carry them, and they are grey here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

from lora_edit.conditioning.sample import Sample
from lora_edit.errors import ModelError
from lora_edit.models.families.wan.encoders import PromptEncoder
from lora_edit.models.families.wan.experts import ManagedWanFamily
from lora_edit.models.families.wan.family import WanAutoencoder, WanParts
from lora_edit.models.families.wan.loading import Components, enable_checkpointing, load_components
from lora_edit.models.family import EncodedSample
from lora_edit.models.record import ModelFacts
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import to_lazy_module
from lora_edit.models.runtime.precision import cast_and_freeze


class VaceFamily(ManagedWanFamily):
    """`Family` for sampling: the sample's image is VACE's reference picture, and frame 0 of the clip is given as it is in V_cond."""

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Kept pixels, grey for what is to be generated, the mask, and the reference picture in front."""
        assert sample.v_target is None and sample.v_blend is None, "VACE is compared with, neither trained nor blended"
        encode, device = self.parts.autoencoder.encode, self.parts.device
        given = (sample.m_cond[None] > 0.5).to(device)
        kept = torch.where(given, sample.v_cond[None].to(device), torch.zeros((), device=device))
        reference = encode(sample.image[None, :, None].to(device))
        shown = torch.cat([encode(kept), encode(torch.zeros_like(kept))], 1)
        front = torch.cat([reference, torch.zeros_like(reference)], 1)
        mask = pack_vace_mask(1 - given.float(), self.geometry.spatial_compression, self.geometry.temporal_compression)
        mask = torch.cat([torch.zeros_like(mask[:, :, :1]), mask], 2)
        condition = torch.cat([torch.cat([front, shown], 2), mask], 1)
        return EncodedSample(
            condition=condition.to(self.parts.dtype),
            hole=mask.amax(1, keepdim=True),
            prompt_embeds=self.encode_prompt(sample.prompt),
        )

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Velocity `[B, z, 1 + F, h, w]` in float32, the reference's latent frame included."""
        self.to_device()
        batch = len(latents)
        out = self.transformer(
            latents.to(self.parts.dtype),
            time * 1000,
            encoded.prompt_embeds.expand(batch, -1, -1),
            control_hidden_states=encoded.condition.expand(batch, -1, -1, -1, -1),
            return_dict=False,
        )[0]
        velocity: torch.Tensor = out.float()
        return velocity

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `[1, z, 1 + F, h, w]` -> pixels `[3, T, H, W]`, without the reference picture."""
        return super().decode(latents[:, :, 1:])


def pack_vace_mask(mask: torch.Tensor, spatial_compression: int = 8, temporal_compression: int = 4) -> torch.Tensor:
    """A mask `[B, 1, T, H, W]` (1 = to generate) as VACE takes it: every pixel of a cell a channel, `[B, cell * cell, F, h, w]`.

    Latent frames look at one pixel frame each, of 49 at 1, 5, 9, 13, 16, ..., 47. That frame 0 is given does not show.
    """
    cells = rearrange(mask, "b 1 t (h p) (w q) -> b (p q) t h w", p=spatial_compression, q=spatial_compression)
    frames, height, width = cells.shape[2:]
    return F.interpolate(cells, size=((frames + temporal_compression - 1) // temporal_compression, height, width), mode="nearest-exact")


def load_vace(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> VaceFamily:
    """From a folder in diffusers' layout or a Hub repository. Raises `ModelError`."""
    return build_vace(load_components(facts, source, device, dtype), facts, device, dtype)


def build_vace(components: Components, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> VaceFamily:
    """Components to a family, number formats and turns on the device as for the other Wans. Raises `ModelError`."""
    bench = DeviceManager(device)
    vae = to_lazy_module(components.vae)
    autoencoder = ManagedAutoencoder(WanAutoencoder, vae, vae.config.z_dim, bench)
    config = components.transformers[0].config
    channels = 2 * autoencoder.z_dim + facts.geometry.spatial_compression**2
    if config.vace_in_channels != channels:
        raise ModelError(f"{facts.name}: {config.vace_in_channels} control channels, {channels} expected; give its own vae folder")
    prompts = PromptEncoder(to_lazy_module(components.text_encoder), components.tokenizer, facts.text_length, bench)
    parts = WanParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=enable_checkpointing(cast_and_freeze(components.transformers[0], dtype)),
        autoencoder=autoencoder,
        embed_prompt=prompts,
        embed_image=None,
        device=device,
        dtype=dtype,
    )
    return VaceFamily(parts, bench)
