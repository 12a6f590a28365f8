"""One large module on the device at a time: encoders first, then the transformer, so that the largest decides what fits."""

from __future__ import annotations

import torch
from torch import nn

from lora_edit.devices import device_room
from lora_edit.models.streaming import bring, stream_of
from lora_edit.models.wan import Autoencoder


class Workbench:
    """A device that holds one of several modules; the others wait in main memory. Number formats are left alone.

    A module larger than `room` bytes (all of the device's when left out), whose blocks are not streamed, computes layer by layer: each
    layer's weights are on the device only for its turn.
    """

    def __init__(self, device: torch.device, room: float | None = None) -> None:
        self.device = device
        self.room = device_room(device) if room is None else room
        self._held: nn.Module | None = None

    def take(self, module: nn.Module) -> None:
        """Bring a module to the device, and what was there back to main memory."""
        if module is self._held:
            return
        self.clear()
        if stream_of(module) is None and _size(module) > self.room:
            _layer_by_layer(module, self.device)
        else:
            bring(module, self.device)
            self._held = module

    def clear(self) -> None:
        """Bring what is there back to main memory: another model needs the device."""
        if self._held is not None:
            bring(self._held, torch.device("cpu"))
        self._held = None


class TurnsAutoencoder:
    """An autoencoder that takes its turn on the bench like all the others."""

    def __init__(self, codec: Autoencoder, module: nn.Module, bench: Workbench) -> None:
        self.codec, self.module, self.bench, self.z_dim = codec, module, bench, codec.z_dim
        self.tiled = False

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels to latents."""
        self.bench.take(self.module)
        return self.codec.encode(pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to pixels; in overlapping tiles where `tiled` says so, which differs a little where they meet."""
        self.bench.take(self.module)
        if not self.tiled:
            return self.codec.decode(latents)
        # Not for encoding: the model would be shown other latents than it was trained with.
        self.module.enable_tiling()  # type: ignore[operator]
        try:
            return self.codec.decode(latents)
        finally:
            self.module.disable_tiling()  # type: ignore[operator]


def _size(module: nn.Module) -> int:
    return sum(each.nbytes for each in module.parameters())


def _layer_by_layer(module: nn.Module, device: torch.device) -> None:
    """diffusers' group offloading, which a module keeps from then on."""
    from diffusers.hooks import apply_group_offloading

    if not getattr(module, "_goes_layer_by_layer", False):
        apply_group_offloading(module, onload_device=device, offload_type="leaf_level")
        module._goes_layer_by_layer = True  # type: ignore[assignment]
