"""Families of one or two transformers: what they share, and the function that composes them from their parts.

A family is a record, an autoencoder, a text encoder, an optional image encoder, its transformers, and a condition layout: the subclass of
`TransformerFamily` that encodes a sample and calls the transformer. The same function builds it with weights and on torch's meta device.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from lora_edit.conditioning.sample import Sample
from lora_edit.errors import ModelError
from lora_edit.models.family import Autoencoder, EncodedSample, LatentShape
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.fingerprint import compute_fingerprint
from lora_edit.models.runtime.lazy_module import LazyModule
from lora_edit.models.runtime.precision import cast_and_freeze

DEFAULT_FRAME_RATE = 25.0
"""Frames per second where no clip is known: diffusers' default for the models whose input depends on it (`pipeline_ltx_image2video.py`)."""

HIGH_NOISE, LOW_NOISE = "high-noise", "low-noise"
"""Names of two experts."""


@dataclass(frozen=True)
class FamilyParts:
    """The parts of one expert and its family.

    - `text_encoder`: prompt to `[1, L, D]`; HunyuanVideo's takes the first frame or None as well.
    - `image_encoder`: the images of a sample to `[N, L, D]`; None for models without one.
    - `dtype`: number format of the transformer's inputs.
    - `part`, `time_range`: as in `Expert`.
    """

    record: ModelRecord
    transformer: nn.Module
    autoencoder: Autoencoder
    text_encoder: Callable[..., torch.Tensor]
    image_encoder: Callable[..., torch.Tensor] | None
    device_manager: DeviceManager
    dtype: torch.dtype
    part: str = ""
    time_range: tuple[float, float] = (0.0, 1.0)


class TransformerFamily(ABC):
    """`Family` of one transformer, which is its only `Expert`. Subclasses define the condition layout."""

    lora_targets: dict[str, str]

    def __init__(self, parts: FamilyParts) -> None:
        self.parts = parts
        self.name, self.geometry, self.last_frame = parts.record.name, parts.record.geometry, parts.record.last_frame
        self.transformer, self.device_manager = parts.transformer, parts.device_manager
        self.part, self.time_range = parts.part, parts.time_range
        self.z_dim = parts.autoencoder.z_dim
        self.frame_rate = DEFAULT_FRAME_RATE
        self._fingerprint = ""

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self.device_manager.device

    @abstractmethod
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode pixels and mask to the transformer's inputs."""

    @abstractmethod
    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict the velocity (noise - data) `[B, z, F, h, w]` in float32."""

    def experts(self) -> tuple[TransformerFamily, ...]:
        """Return the family itself: one transformer, for the times of its parts."""
        return (self,)

    def to_device(self) -> None:
        """Move the transformer to the device and the module on it back to main memory."""
        self.device_manager.load(self.transformer)

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Encode a prompt to embeddings `[1, L, D]`."""
        return self.parts.text_encoder(prompt).to(self.device, self.parts.dtype)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents `[1, z, F, h, w]` to pixels `[3, T, H, W]` in [-1, 1] on the CPU."""
        return self.parts.autoencoder.decode(latents)[0].cpu()

    def fingerprint(self) -> str:
        """Hash the name and the transformer's first and last weights."""
        if not self._fingerprint:
            self._fingerprint = compute_fingerprint(self.name, self.transformer)
        return self._fingerprint


class ExpertPair:
    """Two experts as one family: `high` predicts from the start of its time range on, `low` below it (Wan2.2 I2V-A14B).

    Both share autoencoder, encoders and device manager, so a sample encoded by one serves both.
    """

    def __init__(self, high: TransformerFamily, low: TransformerFamily) -> None:
        assert high.time_range[0] == low.time_range[1] and high.part != low.part
        self.high, self.low = high, low
        self.name, self.geometry, self.z_dim, self.last_frame = high.name, high.geometry, high.z_dim, high.last_frame
        self.device_manager = high.device_manager
        self.frame_rate = DEFAULT_FRAME_RATE

    def experts(self) -> tuple[TransformerFamily, ...]:
        """Return the high-noise expert, then the low-noise one."""
        return self.high, self.low

    def select_expert(self, time: torch.Tensor) -> TransformerFamily:
        """Return the expert for times `[B]`, all on one side of the boundary; compared as model times, as in diffusers."""
        above = 1000 * time >= 1000 * self.high.time_range[0]
        assert bool(above.all()) or not bool(above.any()), "a batch may not cross the boundary between experts"
        return self.high if bool(above.all()) else self.low

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Encode a prompt to embeddings `[1, L, D]`."""
        return self.high.encode_prompt(prompt)

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode pixels and mask to the inputs of both transformers."""
        return self.high.encode_sample(sample)

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict the velocity with the expert for the time."""
        return self.select_expert(time).predict_velocity(latents, time, encoded)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents `[1, z, F, h, w]` to pixels `[3, T, H, W]` in [-1, 1]."""
        return self.high.decode(latents)

    def fingerprint(self) -> str:
        """Hash both experts' fingerprints."""
        return hashlib.sha256(f"{self.high.fingerprint()} {self.low.fingerprint()}".encode()).hexdigest()[:16]


def build_family(
    layout: Callable[[FamilyParts], TransformerFamily],
    record: ModelRecord,
    transformers: Sequence[nn.Module],
    *,
    autoencoder: Autoencoder,
    text_encoder: Callable[..., torch.Tensor],
    image_encoder: Callable[..., torch.Tensor] | None,
    device_manager: DeviceManager,
    dtype: torch.dtype,
    gradient_checkpointing: bool = True,
) -> TransformerFamily | ExpertPair:
    """Compose a family from its parts, with weights or on torch's meta device.

    `layout` is the subclass of `TransformerFamily`. `transformers` follow the order of `record.transformer_parts`: one, or the high-noise
    and the low-noise expert. They are frozen and cast to `dtype`.
    """

    def build_expert(transformer: nn.Module, part: str, time_range: tuple[float, float]) -> TransformerFamily:
        module: Any = cast_and_freeze(transformer, dtype)
        if gradient_checkpointing:  # training keeps one hidden state per block and computes the others again
            module.enable_gradient_checkpointing()
        return layout(
            FamilyParts(record, module, autoencoder, text_encoder, image_encoder, device_manager, dtype, part=part, time_range=time_range)
        )

    if record.boundary_ratio is None:
        return build_expert(transformers[0], "", (0.0, 1.0))
    high, low = transformers
    return ExpertPair(
        build_expert(high, HIGH_NOISE, (record.boundary_ratio, 1.0)), build_expert(low, LOW_NOISE, (0.0, record.boundary_ratio))
    )


def build_meta_module(**config: Any) -> LazyModule:
    """Build the stand-in for an autoencoder or encoder on torch's meta device: a configuration without a module."""

    def refuse() -> nn.Module:
        raise ModelError("a family on the meta device has no encoders; load the model on another device")

    return LazyModule(refuse, SimpleNamespace(**config), str)


def build_meta_tensors(channels: dict[str, int], latent_shape: LatentShape, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Build latents without values, `[1, count, F, h, w]` for each name and count."""
    return {name: torch.empty(1, count, *latent_shape, dtype=dtype, device="meta") for name, count in channels.items()}
