"""The interface of a model family: one pretrained image-to-video model as training and sampling use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from lora_edit.conditioning.sample import Sample
from lora_edit.models.checkpoints.locate import locate_model
from lora_edit.models.record import Geometry as Geometry
from lora_edit.models.record import ModelRecord, import_target

if TYPE_CHECKING:
    from lora_edit.models.runtime.device_manager import DeviceManager

LatentShape = tuple[int, int, int]
"""Latent frames, rows and columns: F, h, w."""


@dataclass(frozen=True)
class EncodedSample:
    """A `Sample` in latent space, with a batch of one.

    - `condition` `[1, C, F, h, w]`: concatenated to the noisy latents, or put in their place where `hole` is 0, as the family does.
    - `hole` `[1, 1, F, h, w]`: 1 where any part of the cell is to be generated.
    - `prompt_embeds` `[1, L, D]`.
    - `target` `[1, z, F, h, w]`: the latents to learn; None at inference.
    - `image_embeds` `[N, L, D]`: one row per image given to the image encoder.
    - `blend_latents` and `blend_mask`: used by the feature-level baseline only.
    """

    condition: torch.Tensor
    hole: torch.Tensor
    prompt_embeds: torch.Tensor
    target: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    blend_latents: torch.Tensor | None = None
    blend_mask: torch.Tensor | None = None

    @property
    def latent_shape(self) -> LatentShape:
        """F, h, w."""
        frames, height, width = self.condition.shape[2:]
        return frames, height, width


class Autoencoder(Protocol):
    """Pixels `[B, 3, T, H, W]` in [-1, 1] <-> normalised latents `[B, z, F, h, w]`, without randomness."""

    z_dim: int

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pixels to latents."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to pixels."""
        ...


class TiledAutoencoder(Autoencoder, Protocol):
    """An autoencoder that can process a frame in overlapping tiles, which takes less memory and differs slightly."""

    def set_tiling(self, tiled: bool) -> None:
        """Process frames in tiles, or whole."""
        ...


class Expert(Protocol):
    """One transformer of a family and the times at which it predicts. A LoRA is fitted to one expert; most families have one."""

    name: str
    """Name of the family."""
    part: str
    """Name within the family; empty for the only expert."""
    time_range: tuple[float, float]
    """Times of this expert: `time_range[0] <= t < time_range[1]`, and t = 1 when that is the end."""
    lora_targets: dict[str, str]
    """Regular expressions over module names of `transformer`, by `lora.targets` setting."""
    transformer: nn.Module

    def to_device(self) -> None:
        """Move the transformer to the device, before an optimiser refers to its parameters."""
        ...

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict as `Family.predict_velocity`, with this expert at any time. Moves the transformer to the device."""
        ...


class Family(Protocol):
    """One pretrained image-to-video model, as the training and the denoising loop use it."""

    name: str
    geometry: Geometry
    z_dim: int
    last_frame: bool
    """Whether training and inference give the model the last frame as well as the first."""
    frame_rate: float
    """Frames per second of the clip; LTX-Video's input depends on it."""
    device_manager: DeviceManager
    """Owner of placement: block swapping, offloaded activations, tiled decoding and encoding caches."""

    def experts(self) -> tuple[Expert, ...]:
        """Return the experts in the order in which generation uses them."""
        ...

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Encode a prompt to embeddings `[1, L, D]`."""
        ...

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode pixels and mask to the transformer's inputs. Training and inference share this method."""
        ...

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict the velocity (noise - data) of noisy latents `[B, z, F, h, w]` at `time` `[B]` in [0, 1]; same shape."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents `[1, z, F, h, w]` to pixels `[3, T, H, W]` in [-1, 1]."""
        ...

    def fingerprint(self) -> str:
        """Return a short hash of the weights; it is part of the training key."""
        ...


def load_family(model: str, device: torch.device, dtype: torch.dtype) -> Family:
    """Load a model by any name that `locate_model` takes. Raises `ModelError`."""
    return load_record(*locate_model(model), device, dtype)


def load_record(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> Family:
    """Load the model of a record from `source`, a folder, file or Hub repository. Imports the family's module only now.

    Raises `ModelError`.
    """
    family: Family = import_target(record.loader)(record, source, device, dtype)
    return family


def load_meta_family(model: str) -> Family | None:
    """Build a model's family on torch's meta device: layers and shapes without weights. None for a model that cannot be built there.

    Raises `ModelError` for an unknown model.
    """
    record = locate_model(model)[0]
    return load_record(record, "", torch.device("meta"), torch.float32) if record.meta_sample else None


def load_meta_transformer(model: str) -> nn.Module | None:
    """Build a model's transformer on torch's meta device: layers and shapes without weights. None for a model without a configuration.

    Raises `ModelError` for an unknown model.
    """
    return build_meta_transformer(locate_model(model)[0])


def build_meta_transformer(record: ModelRecord) -> nn.Module | None:
    """Build a record's transformer on torch's meta device. None for a record without a configuration."""
    config: dict[str, Any] = record.read_transformer_config()
    if not config:
        return None
    import diffusers

    with torch.device("meta"):
        transformer: nn.Module = getattr(diffusers, config["_class_name"]).from_config(config)
    return transformer
