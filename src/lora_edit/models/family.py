"""What a model family is: three facts and four verbs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import nn

from lora_edit.conditioning.sample import Sample
from lora_edit.errors import ModelError


@dataclass(frozen=True)
class Geometry:
    """The model's grid: `cell` pixels per latent cell, `group` frames per later latent frame, `token` pixels per token side,
    `max_frames` (`group * k + 1`) it was trained for, and `area`, the pixels of a frame it works best at."""

    cell: int
    group: int
    token: int
    max_frames: int
    area: int


@dataclass(frozen=True)
class EncodedSample:
    """A `Sample` in latent space, batch of one.

    `condition` `[1, C, F, h, w]` is concatenated to the noisy latents; `target` `[1, z, F, h, w]` is None at inference; `generate`
    `[1, 1, F, h, w]` is 1 where anything in the cell is to be generated; `blend` and `blend_keep` belong to the feature-level baseline.
    """

    condition: torch.Tensor
    generate: torch.Tensor
    prompt_embeds: torch.Tensor
    target: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    blend: torch.Tensor | None = None
    blend_keep: torch.Tensor | None = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """F, h, w."""
        frames, height, width = self.condition.shape[2:]
        return frames, height, width


class Family(Protocol):
    """One pretrained image-to-video model, seen by the training and the denoising loop alike."""

    name: str
    geometry: Geometry
    lora_targets: dict[str, str]
    """Regular expressions over module names of `transformer`, by `lora.targets` setting."""
    transformer: nn.Module
    z_dim: int

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Prompt -> embeddings `[1, L, D]`."""
        ...

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Pixels and mask -> what the transformer takes; serves training and inference."""
        ...

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Noisy latents `[B, z, F, h, w]` at `time` `[B]` in [0, 1] -> velocity (noise - data), same shape."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `[1, z, F, h, w]` -> pixels `[3, T, H, W]` in [-1, 1]."""
        ...

    def fingerprint(self) -> str:
        """A short hash of the weights that decide an encoding: part of every cache key."""
        ...


FAMILIES: dict[str, str] = {"tiny": "lora_edit.models.tiny:load_tiny"}
"""Model name -> `module:loader`; a family's module is imported only when it is asked for."""

OUTLINES: dict[str, str] = {"tiny": "lora_edit.models.tiny:outline_tiny"}
"""Model name -> `module:function` that gives its transformer's layers and shapes without weights."""


def load_family(name: str, device: torch.device, dtype: torch.dtype) -> Family:
    """Load a model by name. Raises `ModelError` for an unknown one."""
    if name not in FAMILIES:
        raise ModelError(f"model {name!r} is unknown; this version has {', '.join(sorted(FAMILIES))} (see `lora-edit models`)")
    module, _, loader = FAMILIES[name].partition(":")
    family: Any = getattr(import_module(module), loader)(device, dtype)
    return family


def load_outline(name: str) -> nn.Module | None:
    """The model's transformer on torch's meta device: names and shapes, no weights read. None where a model has no outline."""
    if name not in OUTLINES:
        return None
    module, _, function = OUTLINES[name].partition(":")
    outline: nn.Module = getattr(import_module(module), function)()
    return outline
