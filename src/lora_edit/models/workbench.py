"""One large module on the device at a time: encoders first, then the transformer, so that the largest decides what fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lora_edit.devices import device_room
from lora_edit.models.encodings import Known
from lora_edit.models.later import Later
from lora_edit.models.streaming import bring, stream_of
from lora_edit.models.wan import Autoencoder


class Workbench:
    """A device that holds one of several modules; the others wait in main memory, or in their files. Number formats are left alone.

    A module larger than `room` bytes (all of the device's when left out), whose blocks are not streamed, computes layer by layer: each
    layer's weights are on the device only for its turn.
    """

    def __init__(self, device: torch.device, room: float | None = None) -> None:
        self.device = device
        self.room = device_room(device) if room is None else room
        self._held: nn.Module | None = None
        self._read: list[Later] = []

    def take(self, module: nn.Module | Later) -> Any:
        """Bring a module to the device, and what was there back to main memory; returns the module.

        When one comes that is not read from files at need, the transformer, those that were are let go: their work is done for long.
        Raises `ModelError` when a module's files cannot be read any more.
        """
        wanted = module.module() if isinstance(module, Later) else module
        if wanted is self._held:
            return wanted
        if not isinstance(module, Later):
            self._let_go()
        elif module not in self._read:
            self._read.append(module)
        self.clear()
        if stream_of(wanted) is None and _size(wanted) > self.room:
            _layer_by_layer(wanted, self.device)
        else:
            bring(wanted, self.device)
            self._held = wanted
        return wanted

    def _let_go(self) -> None:
        for waiting in self._read:
            gone = waiting.let_go()
            if gone is not None and gone is self._held:
                self._held = None  # and not back to main memory first
        self._read.clear()

    def clear(self) -> None:
        """Bring what is there back to main memory: another model needs the device."""
        if self._held is not None:
            bring(self._held, torch.device("cpu"))
        self._held = None


class TurnsAutoencoder:
    """An autoencoder that takes its turn on the bench like all the others; `kind` puts the module into the family's conventions."""

    def __init__(self, kind: Callable[[Any], Autoencoder], module: Later, z_dim: int, bench: Workbench) -> None:
        self.kind, self.module, self.z_dim, self.bench = kind, module, z_dim, bench
        self.known = Known(bench.device, module, remember=False)
        self.tiled = False

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels to latents."""
        return self.known(lambda: self.kind(self.bench.take(self.module)).encode(pixels), pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to pixels; in overlapping tiles where `tiled` says so, which differs a little where they meet."""
        module = self.bench.take(self.module)
        codec = self.kind(module)
        if not self.tiled:
            return codec.decode(latents)
        # Not for encoding: the model would be shown other latents than it was trained with.
        module.enable_tiling()
        try:
            return codec.decode(latents)
        finally:
            module.disable_tiling()


def _size(module: nn.Module) -> int:
    return sum(each.nbytes for each in module.parameters())


def _layer_by_layer(module: nn.Module, device: torch.device) -> None:
    """diffusers' group offloading, which a module keeps from then on."""
    from diffusers.hooks import apply_group_offloading

    if not getattr(module, "_goes_layer_by_layer", False):
        apply_group_offloading(module, onload_device=device, offload_type="leaf_level")
        module._goes_layer_by_layer = True  # type: ignore[assignment]
