"""One large module on the device at a time: encoders first, then the transformer, so that the largest decides what fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lora_edit.devices import get_weight_memory_limit
from lora_edit.models.families.wan.family import Autoencoder
from lora_edit.models.runtime.block_swap import get_block_swapper, move_to_device
from lora_edit.models.runtime.encoding_cache import EncodingCache
from lora_edit.models.runtime.lazy_module import LazyModule


class DeviceManager:
    """A device that holds one of several modules; the others wait in main memory, or in their files. Number formats are left alone.

    A module larger than `room` bytes (all of the device's when left out), whose blocks are not streamed, computes layer by layer: each
    layer's weights are on the device only for its turn.
    """

    def __init__(self, device: torch.device, capacity_bytes: float | None = None) -> None:
        self.device = device
        self.capacity_bytes = get_weight_memory_limit(device) if capacity_bytes is None else capacity_bytes
        self._active_module: nn.Module | None = None
        self._lazy_modules: list[LazyModule] = []

    def load(self, module: nn.Module | LazyModule) -> Any:
        """Bring a module to the device, and what was there back to main memory; returns the module.

        When one comes that is not read from files at need, the transformer, those that were are let go: their work is done for long.
        Raises `ModelError` when a module's files cannot be read any more.
        """
        wanted = module.load_module() if isinstance(module, LazyModule) else module
        if wanted is self._active_module:
            return wanted
        if not isinstance(module, LazyModule):
            self._release_lazy_modules()
        elif module not in self._lazy_modules:
            self._lazy_modules.append(module)
        self.offload()
        if get_block_swapper(wanted) is None and _count_weight_bytes(wanted) > self.capacity_bytes:
            _enable_group_offloading(wanted, self.device)
        else:
            move_to_device(wanted, self.device)
            self._active_module = wanted
        return wanted

    def _release_lazy_modules(self) -> None:
        for waiting in self._lazy_modules:
            gone = waiting.release()
            if gone is not None and gone is self._active_module:
                self._active_module = None  # and not back to main memory first
        self._lazy_modules.clear()

    def offload(self) -> None:
        """Bring what is there back to main memory: another model needs the device."""
        if self._active_module is not None:
            move_to_device(self._active_module, torch.device("cpu"))
        self._active_module = None


class ManagedAutoencoder:
    """An autoencoder that takes its turn on the bench like all the others; `kind` puts the module into the family's conventions."""

    def __init__(self, adapter_class: Callable[[Any], Autoencoder], module: LazyModule, z_dim: int, device_manager: DeviceManager) -> None:
        self.adapter_class, self.module, self.z_dim, self.device_manager = adapter_class, module, z_dim, device_manager
        self.cache = EncodingCache(device_manager.device, module, in_memory=False)
        self.tile_decoding = False

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels to latents."""
        return self.cache(lambda: self.adapter_class(self.device_manager.load(self.module)).encode(pixels), pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to pixels; in overlapping tiles where `tiled` says so, which differs a little where they meet."""
        module = self.device_manager.load(self.module)
        codec = self.adapter_class(module)
        if not self.tile_decoding:
            return codec.decode(latents)
        # Not for encoding: the model would be shown other latents than it was trained with.
        module.enable_tiling()
        try:
            return codec.decode(latents)
        finally:
            module.disable_tiling()


def _count_weight_bytes(module: nn.Module) -> int:
    return sum(each.nbytes for each in module.parameters())


def _enable_group_offloading(module: nn.Module, device: torch.device) -> None:
    """diffusers' group offloading, which a module keeps from then on."""
    from diffusers.hooks import apply_group_offloading

    if not getattr(module, "_goes_layer_by_layer", False):
        apply_group_offloading(module, onload_device=device, offload_type="leaf_level")
        module._goes_layer_by_layer = True  # type: ignore[assignment]
