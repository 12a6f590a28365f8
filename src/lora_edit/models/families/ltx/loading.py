"""LTX-Video 0.9: a time per token, tokens of one latent cell (32x32 pixels, eight frames), places told in pixels and seconds."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange

from lora_edit.errors import ModelError
from lora_edit.models.families.token_replacement import TokenReplaceFamily, TokenReplaceParts
from lora_edit.models.families.wan.encoders import PromptEncoder
from lora_edit.models.families.wan.loading import ComponentClasses, Components, enable_checkpointing, load_components
from lora_edit.models.record import Geometry, ModelFacts
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.encoding_cache import EncodingCache
from lora_edit.models.runtime.lazy_module import to_lazy_module
from lora_edit.models.runtime.precision import cast_and_freeze

_ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"
LTX_TARGETS = {
    "attention+ffn": rf"transformer_blocks\.\d+\.({_ATTENTION}|ff\.net\.(0\.proj|2))",
    "attention": rf"transformer_blocks\.\d+\.{_ATTENTION}",
    "query+key": r"transformer_blocks\.\d+\.attn[12]\.(to_q|to_k)",
}
"""The same layers as in Wan."""

LTX_CLASSES = ComponentClasses(
    vae="AutoencoderKLLTXVideo",
    text_encoder="T5EncoderModel",
)

FRAME_RATE = 25
"""The clip's rate as the model is told it: diffusers' default (`pipeline_ltx_image2video.py`). A clip of another rate looks slower or
faster to it, in training and generation alike."""

DECODE_TIMESTEP, DECODE_NOISE_SCALE = 0.05, 0.025
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
            values = (1 - DECODE_NOISE_SCALE) * values + DECODE_NOISE_SCALE * noise
            time = torch.full((len(values),), DECODE_TIMESTEP, device=values.device, dtype=self.vae.dtype)
        return self.vae.decode(values.to(self.vae.dtype), time, return_dict=False)[0].float().clamp(-1, 1)


def has_causal_fix(config: Any) -> bool:
    """Does the transformer that goes with an autoencoder of this configuration know that the first latent frame is one frame long?

    Since 0.9.5, which came with another encoder (LTX-Video `causal_fix`, diffusers `pipeline_ltx_condition.py`); before, it counts as long
    as the others (`pipeline_ltx_image2video.py`).
    """
    return "095" in config.down_block_types[0]


class UnpaddedPromptEncoder:
    """Prompt -> `[1, L, D]`, the L real tokens alone.

    The stock pipelines pass 128 tokens and a mask, whose bias of -10000 leaves the padding no weight: without it the answer is the same. As
    LTX-Video's own pipeline does and diffusers' does not, the padding is hidden from the text encoder too.
    """

    def __init__(self, prompt_encoder: PromptEncoder) -> None:
        self.prompt_encoder = prompt_encoder

    @property
    def cache(self) -> EncodingCache:
        """What was said before."""
        return self.prompt_encoder.cache

    def __call__(self, prompt: str) -> torch.Tensor:
        """The embeddings, on the bench's device."""
        embeds = self.prompt_encoder(prompt)
        return embeds[:, : max(1, int(embeds.any(-1).sum()))]


def build_video_coords(frames: int, height: int, width: int, geometry: Geometry, causal_fix: bool) -> torch.Tensor:
    """Where tokens lie, `[1, 3, F * h * w]` float32: seconds, rows and columns (pixels) of each one's start."""
    frame = torch.arange(frames, dtype=torch.float32)
    # As in the stock pipelines to the last bit: the rotary embedding multiplies a difference by up to 16000.
    seconds = frame * (geometry.temporal_compression / FRAME_RATE)
    if causal_fix:
        seconds = (frame * geometry.temporal_compression + 1 - geometry.temporal_compression).clamp(min=0) * (1 / FRAME_RATE)
    rows, columns = (torch.arange(side, dtype=torch.float32) * geometry.spatial_compression for side in (height, width))
    return torch.stack([axis.flatten() for axis in torch.meshgrid(seconds, rows, columns, indexing="ij")])[None]


class LtxFamily(TokenReplaceFamily):
    """`Family` for LTX-Video 0.9 (diffusers `pipeline_ltx_image2video.py`, `pipeline_ltx_condition.py`)."""

    def __init__(self, parts: TokenReplaceParts, causal_fix: bool) -> None:
        super().__init__(parts)
        self.causal_fix = causal_fix

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """The transformer's answer; it takes and gives a row of tokens."""
        frames, height, width = model_input.shape[2:]
        coordinates = build_video_coords(frames, height, width, self.geometry, self.causal_fix).to(model_input.device)
        answer: torch.Tensor = self.transformer(
            hidden_states=rearrange(model_input, "b z f h w -> b (f h w) z"),
            encoder_hidden_states=prompt_embeds,
            timestep=timesteps,
            encoder_attention_mask=None,
            video_coords=coordinates.expand(len(model_input), -1, -1),
            return_dict=False,
        )[0]
        return rearrange(answer, "b (f h w) z -> b z f h w", f=frames, h=height)


def load_ltx(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> LtxFamily:
    """The catalogue's loader. Raises `ModelError`."""
    return build_ltx(load_components(facts, source, device, dtype, LTX_CLASSES), facts, device, dtype)


def build_ltx(components: Components, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> LtxFamily:
    """Components to a family: autoencoder in float32, all by turns on the device.

    Raises `ModelError` for the autoencoder of 0.9.1, whose decoder draws noise that nothing seeds.
    """
    vae = to_lazy_module(components.vae)
    if any(vae.config.decoder_inject_noise):
        raise ModelError(f"{facts.name}: the decoder of 0.9.1 makes another clip each time; give the folder of another version, as 0.9.5")
    bench = DeviceManager(device)
    parts = TokenReplaceParts(
        name=facts.name,
        geometry=facts.geometry,
        transformer=enable_checkpointing(cast_and_freeze(components.transformers[0], dtype)),
        autoencoder=ManagedAutoencoder(LtxAutoencoder, vae, vae.config.latent_channels, bench),
        embed_prompt=UnpaddedPromptEncoder(
            PromptEncoder(to_lazy_module(components.text_encoder), components.tokenizer, facts.text_length, bench)
        ),
        lora_targets=LTX_TARGETS,
        device_manager=bench,
        dtype=dtype,
    )
    return LtxFamily(parts, has_causal_fix(vae.config))
