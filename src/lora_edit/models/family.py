"""What a model family is: its facts and four verbs; and what its experts are, which training works on."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import nn

from lora_edit.conditioning.sample import Sample
from lora_edit.models.checkpoints.locate import locate_model
from lora_edit.models.record import Geometry as Geometry
from lora_edit.models.record import ModelFacts


@dataclass(frozen=True)
class EncodedSample:
    """A `Sample` in latent space, batch of one.

    `condition` `[1, C, F, h, w]` is concatenated to the noisy latents, or stands in their place where `generate` is 0, as the family does;
    `target` `[1, z, F, h, w]` is None at inference; `generate` `[1, 1, F, h, w]` is 1 where anything in the cell is to be generated;
    `image_embeds` `[N, L, D]` has one row per picture shown to the image encoder; `blend` and `blend_keep` belong to the feature-level
    baseline.
    """

    condition: torch.Tensor
    hole: torch.Tensor
    prompt_embeds: torch.Tensor
    target: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    blend_latents: torch.Tensor | None = None
    blend_mask: torch.Tensor | None = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """F, h, w."""
        frames, height, width = self.condition.shape[2:]
        return frames, height, width


class Expert(Protocol):
    """One transformer of a family and the times it is asked at: what a LoRA is fitted to. Most families have one, for all times."""

    name: str
    """The family's."""
    part: str
    """Its name within the family; empty when it is the only one."""
    time_range: tuple[float, float]
    """It is asked at `times[0] <= t < times[1]`, and at t = 1 when that is the end."""
    lora_targets: dict[str, str]
    """Regular expressions over module names of `transformer`, by `lora.targets` setting."""
    transformer: nn.Module

    def to_device(self) -> None:
        """Bring the transformer to the device, before an optimiser takes hold of its parameters there."""
        ...

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """As the family's, from this expert whatever the time; comes to the device by itself."""
        ...


class Family(Protocol):
    """One pretrained image-to-video model, seen by the training and the denoising loop alike."""

    name: str
    geometry: Geometry
    z_dim: int
    last_frame: bool
    """It is shown the last frame beside the first: training and inference give both."""

    def experts(self) -> tuple[Expert, ...]:
        """What LoRAs are fitted to, in the order in which generation asks them."""
        ...

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


def load_family(model: str, device: torch.device, dtype: torch.dtype) -> Family:
    """Load a model by any of the names that `locate` takes; its module is imported only now. Raises `ModelError`."""
    return load_record(*locate_model(model), device, dtype)


def load_record(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> Family:
    """Load the model that `facts` describe from `source`, a folder, file or Hub repository. Raises `ModelError`."""
    module, _, loader = facts.loader.partition(":")
    family: Any = getattr(import_module(module), loader)(facts, source, device, dtype)
    return family


def load_meta_transformer(model: str) -> nn.Module | None:
    """The model's transformer on torch's meta device: layers and shapes, no weights read. None for a model without a configuration.

    Raises `ModelError` for a model that is not found.
    """
    return build_meta_transformer(locate_model(model)[0])


def build_meta_transformer(facts: ModelFacts) -> nn.Module | None:
    """The same from the model's record. None for a model without a configuration."""
    config = facts.read_transformer_config()
    if not config:
        return None
    import diffusers

    with torch.device("meta"):
        outline: nn.Module = getattr(diffusers, config["_class_name"]).from_config(config)
    return outline
