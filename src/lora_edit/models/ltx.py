"""LTX-Video 0.9: a time per token, tokens of one latent cell (32x32 pixels, eight frames), places told in pixels and seconds."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange

from lora_edit.errors import ModelError
from lora_edit.models.catalog.facts import Geometry, ModelFacts
from lora_edit.models.encodings import Known
from lora_edit.models.later import later
from lora_edit.models.loading import Components, Kinds, load_components, sparing
from lora_edit.models.precision import settle
from lora_edit.models.replace import ReplaceFamily, ReplaceParts
from lora_edit.models.wan_encoders import PromptEncoder
from lora_edit.models.workbench import TurnsAutoencoder, Workbench

_ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"
LTX_TARGETS = {
    "attention+ffn": rf"transformer_blocks\.\d+\.({_ATTENTION}|ff\.net\.(0\.proj|2))",
    "attention": rf"transformer_blocks\.\d+\.{_ATTENTION}",
    "query+key": r"transformer_blocks\.\d+\.attn[12]\.(to_q|to_k)",
}
"""The same layers as in Wan."""

LTX_KINDS = Kinds(
    vae="AutoencoderKLLTXVideo",
    text_encoder="T5EncoderModel",
)

FRAME_RATE = 25
"""The clip's rate as the model is told it: diffusers' default (`pipeline_ltx_image2video.py`). A clip of another rate looks slower or
faster to it, in training and generation alike."""

DECODE_TIME, DECODE_NOISE = 0.05, 0.025
"""Decoders from 0.9.1 on take the last step of denoising: they get latents with a little noise, and its time (LTX-Video `configs/`)."""


class LtxAutoencoder:
    """diffusers' `AutoencoderKLLTXVideo` without randomness.

    The posterior's mode stands for it, where the stock pipelines draw from it: the same clip then has the same latents in training and
    generation. A decoder that takes noise gets the same noise each time.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.z_dim: int = vae.config.latent_channels
        shape = (1, self.z_dim, 1, 1, 1)
        self.mean, self.std = vae.latents_mean.float().view(shape), vae.latents_std.float().view(shape) / vae.config.scaling_factor

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels `[B, 3, T, H, W]` -> normalised latents."""
        mode = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return (mode.float() - self.mean) / self.std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised latents -> pixels `[B, 3, T, H, W]`, clamped to [-1, 1]."""
        values, time = latents.float() * self.std + self.mean, None
        if self.vae.config.timestep_conditioning:
            noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(0)).to(values.device)
            values = (1 - DECODE_NOISE) * values + DECODE_NOISE * noise
            time = torch.full((len(values),), DECODE_TIME, device=values.device, dtype=self.vae.dtype)
        return self.vae.decode(values.to(self.vae.dtype), time, return_dict=False)[0].float().clamp(-1, 1)


def has_exact_times(config: Any) -> bool:
    """Does the transformer that goes with an autoencoder of this configuration know that the first latent frame is one frame long?

    Since 0.9.5, which came with another encoder (LTX-Video `causal_fix`, diffusers `pipeline_ltx_condition.py`); before, it counts as long
    as the others (`pipeline_ltx_image2video.py`).
    """
    return "095" in config.down_block_types[0]


class RealTokens:
    """Prompt -> `[1, L, D]`, the L real tokens alone.

    The stock pipelines pass 128 tokens and a mask, whose bias of -10000 leaves the padding no weight: without it the answer is the same. As
    LTX-Video's own pipeline does and diffusers' does not, the padding is hidden from the text encoder too.
    """

    def __init__(self, padded: PromptEncoder) -> None:
        self.padded = padded

    @property
    def known(self) -> Known:
        """What was said before."""
        return self.padded.known

    def __call__(self, prompt: str) -> torch.Tensor:
        """The embeddings, on the bench's device."""
        embeds = self.padded(prompt)
        return embeds[:, : max(1, int(embeds.any(-1).sum()))]


def places(frames: int, height: int, width: int, geometry: Geometry, exact_times: bool) -> torch.Tensor:
    """Where tokens lie, `[1, 3, F * h * w]` float32: seconds, rows and columns (pixels) of each one's start."""
    frame = torch.arange(frames, dtype=torch.float32)
    # As in the stock pipelines to the last bit: the rotary embedding multiplies a difference by up to 16000.
    seconds = frame * (geometry.group / FRAME_RATE)
    if exact_times:
        seconds = (frame * geometry.group + 1 - geometry.group).clamp(min=0) * (1 / FRAME_RATE)
    rows, columns = (torch.arange(side, dtype=torch.float32) * geometry.cell for side in (height, width))
    return torch.stack([axis.flatten() for axis in torch.meshgrid(seconds, rows, columns, indexing="ij")])[None]


class Ltx(ReplaceFamily):
    """`Family` for LTX-Video 0.9 (diffusers `pipeline_ltx_image2video.py`, `pipeline_ltx_condition.py`)."""

    def __init__(self, parts: ReplaceParts, exact_times: bool) -> None:
        super().__init__(parts)
        self.exact_times = exact_times

    def ask(self, shown: torch.Tensor, times: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """The transformer's answer; it takes and gives a row of tokens."""
        frames, height, width = shown.shape[2:]
        coordinates = places(frames, height, width, self.geometry, self.exact_times).to(shown.device)
        answer: torch.Tensor = self.transformer(
            hidden_states=rearrange(shown, "b z f h w -> b (f h w) z"),
            encoder_hidden_states=prompt_embeds,
            timestep=times,
            encoder_attention_mask=None,
            video_coords=coordinates.expand(len(shown), -1, -1),
            return_dict=False,
        )[0]
        return rearrange(answer, "b (f h w) z -> b z f h w", f=frames, h=height)


def load_ltx(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> Ltx:
    """The catalogue's loader. Raises `ModelError`."""
    return build_ltx(load_components(facts, source, device, dtype, LTX_KINDS), facts, device, dtype)


def build_ltx(components: Components, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> Ltx:
    """Components to a family: autoencoder in float32, all by turns on the device.

    Raises `ModelError` for the autoencoder of 0.9.1, whose decoder draws noise that nothing seeds.
    """
    vae = later(components.vae)
    if any(vae.config.decoder_inject_noise):
        raise ModelError(f"{facts.name}: the decoder of 0.9.1 makes another clip each time; give the folder of another version, as 0.9.5")
    bench = Workbench(device)
    parts = ReplaceParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=sparing(settle(components.transformers[0], dtype)),
        autoencoder=TurnsAutoencoder(LtxAutoencoder, vae, vae.config.latent_channels, bench),
        embed_prompt=RealTokens(PromptEncoder(later(components.text_encoder), components.tokenizer, facts.text_length, bench)),
        lora_targets=LTX_TARGETS,
        bench=bench,
        dtype=dtype,
    )
    return Ltx(parts, has_exact_times(vae.config))
