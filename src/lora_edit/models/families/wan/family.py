"""Wan 2.1 image-to-video and its relatives with the same input: [noise | packed mask | V_cond latents] (Wan2.1 `wan/image2video.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.condition_packing import pack_error, pack_mask
from lora_edit.models.families.embedded.precondition import compute_cell_std, precondition
from lora_edit.models.family import EncodedSample, Geometry
from lora_edit.models.runtime.fingerprint import compute_fingerprint

_ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"
WAN_TARGETS = {
    "attention+ffn": rf"blocks\.\d+\.({_ATTENTION}|ffn\.net\.(0\.proj|2))",
    "attention": rf"blocks\.\d+\.{_ATTENTION}",
    "query+key": r"blocks\.\d+\.attn[12]\.(to_q|to_k)",
}
"""The reference adapts every linear of a block but image key and value (LoRAEdit `models/base.py`); the paper's text, attention only."""


class Autoencoder(Protocol):
    """Pixels `[B, 3, T, H, W]` in [-1, 1] <-> normalised latents `[B, z, F, h, w]`, without randomness."""

    z_dim: int

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels to latents."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to pixels."""
        ...


class WanAutoencoder:
    """diffusers' `AutoencoderKLWan` by Wan's conventions: the posterior's mode, shifted and scaled per channel (`pipeline_wan_i2v.py`)."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.z_dim: int = vae.config.z_dim
        shape = (1, self.z_dim, 1, 1, 1)
        self.mean = torch.tensor(vae.config.latents_mean, dtype=torch.float32).view(shape)
        self.std = torch.tensor(vae.config.latents_std, dtype=torch.float32).view(shape)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels `[B, 3, T, H, W]` -> normalised latents."""
        mode = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return (mode.float() - self.mean.to(mode.device)) / self.std.to(mode.device)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised latents -> pixels `[B, 3, T, H, W]`, clamped to [-1, 1]."""
        raw = latents.float() * self.std.to(latents.device) + self.mean.to(latents.device)
        pixels: torch.Tensor = self.vae.decode(raw.to(self.vae.dtype), return_dict=False)[0]
        return pixels.float().clamp(-1, 1)


@dataclass(frozen=True)
class WanParts:
    """The loaded pieces of one checkpoint. `embed_prompt`: prompt to `[1, L, D]`; `embed_image`: what a sample shows to `[N, L, D]`.

    `hint_std` `[z]`: it was trained to refine a prediction (`Sample.hint`) instead of grey in the hole, from which the truth differs by so
    much per latent channel and unit of expected error (`families/embedded/precondition.py`); the expected error follows V_cond in its
    input.
    """

    name: str
    geometry: Geometry
    transformer: nn.Module
    autoencoder: Autoencoder
    embed_prompt: Callable[[str], torch.Tensor]
    embed_image: Callable[[Sample], torch.Tensor] | None
    device: torch.device
    dtype: torch.dtype
    last_frame: bool = False
    part: str = ""
    time_range: tuple[float, float] = (0.0, 1.0)
    hint_std: torch.Tensor | None = None


class WanFamily:
    """`Family` for every model that takes its condition as extra input channels in Wan's order."""

    def __init__(self, parts: WanParts) -> None:
        self.parts = parts
        self.name, self.geometry, self.transformer = parts.name, parts.geometry, parts.transformer
        self.z_dim = parts.autoencoder.z_dim
        self.lora_targets = WAN_TARGETS
        self.last_frame, self.part, self.time_range = parts.last_frame, parts.part, parts.time_range
        self._fingerprint = ""

    def experts(self) -> tuple[WanFamily, ...]:
        """Itself: one transformer, asked at the times of its parts."""
        return (self,)

    def to_device(self) -> None:
        """It is there from the start."""

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Prompt -> embeddings `[1, L, D]`."""
        return self.parts.embed_prompt(prompt).to(self.parts.device, self.parts.dtype)

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode V_cond whole (never a spliced latent: the autoencoder mixes frames), pack M_cond, encode V_target."""
        encode, device = self.parts.autoencoder.encode, self.parts.device
        # One encoder after the other, as they take turns on the device.
        text = self.encode_prompt(sample.prompt)
        pictures = None if self.parts.embed_image is None else self.parts.embed_image(sample).to(device, self.parts.dtype)
        mask = pack_mask(sample.m_cond[None].to(device), self.geometry.spatial_compression, self.geometry.temporal_compression)
        content, doubt = _apply_hint(sample) if self.parts.hint_std is not None else (sample.v_cond, None)
        condition = torch.cat([mask, encode(content[None].to(device))], 1)
        if doubt is not None:
            error = pack_error(doubt[None].to(device), self.geometry.spatial_compression, self.geometry.temporal_compression)
            condition = torch.cat([condition, error], 1)
        keep = (
            None
            if sample.m_blend is None
            else pack_mask(sample.m_blend[None].to(device), self.geometry.spatial_compression, self.geometry.temporal_compression)
        )
        return EncodedSample(
            condition=condition.to(self.parts.dtype),
            hole=1 - mask.amin(1, keepdim=True),
            prompt_embeds=text,
            target=None if sample.v_target is None else encode(sample.v_target[None].to(device)),
            image_embeds=pictures,
            blend_latents=None if sample.v_blend is None else encode(sample.v_blend[None].to(device)),
            blend_mask=None if keep is None else keep.amin(1, keepdim=True),
        )

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Velocity (noise - data) `[B, z, F, h, w]` in float32; the model is told `1000 * time`."""
        batch = len(latents)
        image = encoded.image_embeds
        condition = encoded.condition.expand(batch, -1, -1, -1, -1)
        expected, factor, shown = torch.zeros(()), torch.ones(()), latents
        if self.parts.hint_std is not None:
            group = self.geometry.temporal_compression
            start, error = condition[:, group : group + self.z_dim].float(), condition[:, -group:].float()
            expected, factor, shown = precondition(latents, start, time, compute_cell_std(error, self.parts.hint_std))
        out = self.transformer(
            torch.cat([shown.to(self.parts.dtype), condition], 1),
            time * 1000,
            encoded.prompt_embeds.expand(batch, -1, -1),
            encoder_hidden_states_image=None if image is None else image.repeat(batch, 1, 1),
            return_dict=False,
        )[0]
        return expected.to(out.device) + factor.to(out.device) * out.float()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `[1, z, F, h, w]` -> pixels `[3, T, H, W]` in [-1, 1] on the CPU."""
        return self.parts.autoencoder.decode(latents)[0].cpu()

    def fingerprint(self) -> str:
        """Of name and weights."""
        if not self._fingerprint:
            self._fingerprint = compute_fingerprint(self.name, self.transformer)
        return self._fingerprint


HOLE_ERROR, GIVEN_ERROR = 0.7, 2.0 / 127.5
"""Errors to expect, in [-1, 1], of a hole without a hint, and of given pixels, which pass through the autoencoder."""


def _apply_hint(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """V_cond with the hint in its withheld pixels, and the expected error `[1, T, H, W]`."""
    known = sample.m_cond > 0.5
    if sample.hint is None:
        return sample.v_cond, torch.where(known, GIVEN_ERROR, HOLE_ERROR)
    return torch.where(known, sample.v_cond, sample.hint.pixels), torch.where(known, GIVEN_ERROR, sample.hint.error)
