"""Wan families of real size: their parts take turns on the device, and one of them has two experts."""

from __future__ import annotations

import hashlib

import torch

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.wan.family import WanFamily, WanParts
from lora_edit.models.family import EncodedSample
from lora_edit.models.runtime.device_manager import DeviceManager

HIGH_NOISE, LOW_NOISE = "high-noise", "low-noise"


class ManagedWanFamily(WanFamily):
    """`WanFamily` whose transformer shares the device with the encoders by turns."""

    def __init__(self, parts: WanParts, device_manager: DeviceManager) -> None:
        super().__init__(parts)
        self.device_manager = device_manager

    def to_device(self) -> None:
        """Bring the transformer to the device; what was there goes back to main memory."""
        self.device_manager.load(self.transformer)

    def offload_to_cpu(self) -> None:
        """Make room for another model; it comes back by itself."""
        self.device_manager.offload()

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """As `WanFamily`, on the device."""
        self.to_device()
        return super().predict_velocity(latents, time, encoded)


class ExpertPair:
    """Two experts seen as one family: `high` is asked from its first time on, `low` below it (Wan2.2 I2V-A14B).

    They share autoencoder and encoders, so a sample encoded by one serves both.
    """

    def __init__(self, high: WanFamily, low: WanFamily) -> None:
        assert high.time_range[0] == low.time_range[1] and high.part != low.part
        self.high, self.low = high, low
        self.name, self.geometry, self.z_dim, self.last_frame = high.name, high.geometry, high.z_dim, high.last_frame

    def experts(self) -> tuple[WanFamily, ...]:
        """The high-noise expert, then the low-noise one."""
        return self.high, self.low

    def select_expert(self, time: torch.Tensor) -> WanFamily:
        """The expert for times `[B]`, which have to lie on one side of the boundary; compared as model times, as diffusers does."""
        above = 1000 * time >= 1000 * self.high.time_range[0]
        assert bool(above.all()) or not bool(above.any()), "a batch may not cross the boundary between experts"
        return self.high if bool(above.all()) else self.low

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Prompt -> embeddings `[1, L, D]`."""
        return self.high.encode_prompt(prompt)

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """What both transformers take."""
        return self.high.encode_sample(sample)

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """The velocity that the time's expert predicts."""
        return self.select_expert(time).predict_velocity(latents, time, encoded)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `[1, z, F, h, w]` -> pixels `[3, T, H, W]` in [-1, 1]."""
        return self.high.decode(latents)

    def fingerprint(self) -> str:
        """Hash of both experts'."""
        return hashlib.sha256(f"{self.high.fingerprint()} {self.low.fingerprint()}".encode()).hexdigest()[:16]
