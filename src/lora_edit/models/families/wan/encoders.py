"""Wan's autoencoder, text and image encoders.

UMT5's output is padded with zeros to a fixed length. CLIP's output is its last but one layer for the frame stretched to a square.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from lora_edit.conditioning.sample import Sample
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.lazy_module import LazyModule

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Statistics of pixels in [0, 1] in CLIP's training, used by Wan's normalisation (Wan2.1 `wan/modules/clip.py`)."""

_QUOTES = {0x2018: "'", 0x2019: "'", 0x201B: "'", 0x201C: '"', 0x201D: '"', 0x201F: '"'}


class WanAutoencoder:
    """diffusers' `AutoencoderKLWan` by Wan's conventions: the posterior's mode, shifted and scaled per channel (`pipeline_wan_i2v.py`)."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.z_dim: int = vae.config.z_dim
        shape = (1, self.z_dim, 1, 1, 1)
        self.mean = torch.tensor(vae.config.latents_mean, dtype=torch.float32).view(shape)
        self.std = torch.tensor(vae.config.latents_std, dtype=torch.float32).view(shape)

    def set_tiling(self, tiled: bool) -> None:
        """Process frames in overlapping tiles, or whole."""
        self.vae.enable_tiling() if tiled else self.vae.disable_tiling()

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pixels `[B, 3, T, H, W]` to normalised latents."""
        mode = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return (mode.float() - self.mean.to(mode.device)) / self.std.to(mode.device)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents to pixels `[B, 3, T, H, W]`, clamped to [-1, 1]."""
        raw = latents.float() * self.std.to(latents.device) + self.mean.to(latents.device)
        pixels: torch.Tensor = self.vae.decode(raw.to(self.vae.dtype), return_dict=False)[0]
        return pixels.float().clamp(-1, 1)


@cache
def _build_character_map() -> dict[int, str]:
    wide = {code: unicodedata.normalize("NFKC", chr(code)) for code in (*range(0xFB00, 0xFB07), *range(0xFF01, 0xFFF0))}
    return wide | {0x3000: " "} | _QUOTES


def clean_prompt(text: str) -> str:
    """Clean a prompt as for Wan's tokenizer in training (Wan2.1 `wan/modules/tokenizers.py`).

    The result has composed characters, straight quotes, characters of ordinary width, no ligatures, no HTML entities and single spaces.
    Upstream, ftfy also repairs mis-decoded text.
    """
    plain = unicodedata.normalize("NFC", html.unescape(html.unescape(text.translate(_build_character_map()))))
    return " ".join(plain.split())


class PromptEncoder:
    """Prompt -> `[1, max_length, D]`: exactly `max_length` tokens, zero behind the real ones.

    The length is fixed: Wan's cross-attention separates image from text tokens by counting `max_length` from the end (diffusers
    `transformer_wan.py`). Encoder outputs are cached with `EncodingCache`; the encoder is on the device only to compute them.
    """

    def __init__(self, encoder: LazyModule, tokenizer: Callable[..., Any], max_length: int, device_manager: DeviceManager) -> None:
        self.encoder, self.tokenizer, self.max_length, self.device_manager = encoder, tokenizer, max_length, device_manager
        self.cache = device_manager.create_encoding_cache(encoder)

    def __call__(self, prompt: str) -> torch.Tensor:
        """Return the embeddings on the device manager's device."""
        return self.cache(lambda: self._encode(prompt), prompt, str(self.max_length))

    @torch.no_grad()
    def _encode(self, prompt: str) -> torch.Tensor:
        tokens = self.tokenizer(
            [clean_prompt(prompt)],
            padding="max_length",
            max_length=self.max_length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        encoder = self.device_manager.load(self.encoder)
        ids, mask = (tokens[key].to(self.device_manager.device) for key in ("input_ids", "attention_mask"))
        hidden: torch.Tensor = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden.masked_fill(mask[..., None] == 0, 0)


class ImageEncoder:
    """Images of a sample -> `[N, L, D]`: the first frame, and the last one for models that take both."""

    def __init__(self, encoder: LazyModule, last_frame: bool, device_manager: DeviceManager) -> None:
        self.encoder, self.last_frame, self.device_manager = encoder, last_frame, device_manager
        self.cache = device_manager.create_encoding_cache(encoder)

    def __call__(self, sample: Sample) -> torch.Tensor:
        """Return the tokens of the last but one layer for each image."""
        images = torch.stack([sample.image, get_last_image(sample)] if self.last_frame else [sample.image])
        return self.cache(lambda: self._encode(images), images)

    @torch.no_grad()
    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        encoder = self.device_manager.load(self.encoder)
        pixels = resize_for_clip(images.float(), encoder.config.image_size).to(self.device_manager.device, encoder.dtype)
        embeds: torch.Tensor = encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return embeds


def get_last_image(sample: Sample) -> torch.Tensor:
    """Return the last frame `[3, H, W]` where it is given whole, else the first (a clip of one frame, or a baseline that withholds it)."""
    given = sample.num_frames > 1 and bool((sample.m_cond[:, -1] > 0.5).all())
    return sample.v_cond[:, -1] if given else sample.image


def resize_for_clip(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Resize and normalise images `[N, 3, H, W]` in [-1, 1] to CLIP's input `[N, 3, size, size]`.

    The whole frame is stretched to the square without antialiasing, as in Wan's training (Wan2.1 `wan/modules/clip.py`). CLIP's own
    processor would cut off the sides, two fifths of a wide frame.
    """
    small = F.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (small - (2 * mean - 1)) / (2 * std)
