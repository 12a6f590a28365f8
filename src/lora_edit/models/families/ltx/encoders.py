"""LTX-Video's autoencoder and text encoder."""

from __future__ import annotations

from typing import Any

import torch

from lora_edit.models.families.wan.encoders import PromptEncoder

TILE_SIZE, TILE_STRIDE = 256, 192
"""Pixels per side of a tile, and from one to the next, as Wan's autoencoder has them."""

DECODE_TIMESTEP, DECODE_NOISE_SCALE = 0.05, 0.025
"""Decoders from 0.9.1 on perform the last denoising step: they take latents with a little noise, and its time (LTX-Video `configs/`)."""


class LtxAutoencoder:
    """diffusers' `AutoencoderKLLTXVideo` without randomness.

    It uses the posterior's mode, where the stock pipelines draw a sample: a clip then has the same latents in training and generation. A
    decoder that takes noise gets the same noise each time.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.z_dim: int = vae.config.latent_channels
        shape = (1, self.z_dim, 1, 1, 1)
        self.mean, self.std = vae.latents_mean.float().view(shape), vae.latents_std.float().view(shape) / vae.config.scaling_factor

    def set_tiling(self, tiled: bool) -> None:
        """Process frames in overlapping tiles, or whole. Tiles are smaller than diffusers' own, which save nothing at the native size."""
        if tiled:
            self.vae.enable_tiling(
                tile_sample_min_height=TILE_SIZE,
                tile_sample_min_width=TILE_SIZE,
                tile_sample_stride_height=TILE_STRIDE,
                tile_sample_stride_width=TILE_STRIDE,
            )
        else:
            self.vae.disable_tiling()

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pixels `[B, 3, T, H, W]` to normalised latents."""
        mode = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return (mode.float() - self.mean) / self.std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents to pixels `[B, 3, T, H, W]`, clamped to [-1, 1]."""
        values, time = latents.float() * self.std + self.mean, None
        if self.vae.config.timestep_conditioning:
            noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(0)).to(values.device)
            values = (1 - DECODE_NOISE_SCALE) * values + DECODE_NOISE_SCALE * noise
            time = torch.full((len(values),), DECODE_TIMESTEP, device=values.device, dtype=self.vae.dtype)
        return self.vae.decode(values.to(self.vae.dtype), time, return_dict=False)[0].float().clamp(-1, 1)


def has_causal_fix(config: Any) -> bool:
    """Check by an autoencoder's configuration whether its transformer counts the first latent frame as one frame long.

    Transformers do so since 0.9.5, which came with another encoder (LTX-Video `causal_fix`, diffusers `pipeline_ltx_condition.py`). Older
    ones count it as long as the others (`pipeline_ltx_image2video.py`).
    """
    return "095" in config.down_block_types[0]


class UnpaddedPromptEncoder:
    """Prompt -> `[1, L, D]`, the L real tokens alone.

    The stock pipelines pass 128 tokens and a mask, whose bias of -10000 leaves the padding without weight: the output is the same without
    it. The padding is hidden from the text encoder too, as in LTX-Video's own pipeline but not in diffusers'.
    """

    def __init__(self, prompt_encoder: PromptEncoder) -> None:
        self.prompt_encoder = prompt_encoder

    def __call__(self, prompt: str) -> torch.Tensor:
        """Return the embeddings on the device manager's device."""
        embeds = self.prompt_encoder(prompt)
        return embeds[:, : max(1, int(embeds.any(-1).sum()))]
