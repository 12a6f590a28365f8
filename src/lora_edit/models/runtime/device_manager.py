"""Placement of a family's modules: one large module on the device at a time, block swapping, offloading and encoding caches.

Encoders come to the device first, then the transformer, so that the largest module decides what fits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from lora_edit.devices import empty_device_cache, get_weight_memory_limit
from lora_edit.models.family import TiledAutoencoder
from lora_edit.models.runtime.block_swap import ActivationStore, BlockSwapper, choose_evenly_spaced, get_blocks
from lora_edit.models.runtime.encoding_cache import DiskCache, EncodingCache
from lora_edit.models.runtime.lazy_module import LazyModule


class DeviceManager:
    """Owner of a device and of all state about where a family's modules and their outputs are.

    The device holds one of several modules; the others wait in main memory, or in their files. Number formats do not change. A module
    larger than `capacity_bytes` (default: all of the device's memory) whose blocks are not swapped is offloaded layer by layer: each
    layer's weights are on the device only while it computes.
    """

    def __init__(self, device: torch.device, capacity_bytes: float | None = None) -> None:
        self.device = device
        self.capacity_bytes = get_weight_memory_limit(device) if capacity_bytes is None else capacity_bytes
        self.tile_encoding = self.tile_decoding = False
        """Whether autoencoders encode and decode in overlapping tiles."""
        self.on_note: Callable[[str], None] = lambda text: None
        """Receives a note when memory runs out in encoding or decoding."""
        self._active_module: nn.Module | None = None
        self._lazy_modules: list[LazyModule] = []
        self._encoding_caches: list[EncodingCache] = []
        self._block_swappers: dict[nn.Module, BlockSwapper] = {}
        self._activation_offloading: WeakSet[nn.Module] = WeakSet()
        self._group_offloading: WeakSet[nn.Module] = WeakSet()

    def load(self, module: nn.Module | LazyModule) -> Any:
        """Move a module to the device, and the active module back to main memory; returns the module.

        A transformer releases the lazy modules that were on the device, because their work is done by then. Raises `ModelError` when a
        module's files cannot be read any more.
        """
        loaded = module.load_module() if isinstance(module, LazyModule) else module
        if loaded is self._active_module:
            return loaded
        if not isinstance(module, LazyModule):
            self._release_lazy_modules()
        elif module not in self._lazy_modules:
            self._lazy_modules.append(module)
        self.offload()
        if loaded not in self._block_swappers and _count_weight_bytes(loaded) > self.capacity_bytes:
            self._enable_group_offloading(loaded)
        else:
            self._move(loaded, self.device)
            self._active_module = loaded
        return loaded

    def _release_lazy_modules(self) -> None:
        for lazy_module in self._lazy_modules:
            released = lazy_module.release()
            if released is not None and released is self._active_module:
                self._active_module = None  # dropped where it is, instead of moved to main memory
        self._lazy_modules.clear()

    def offload(self) -> None:
        """Move the active module back to main memory, so that another model can use the device. It returns at its next `load`."""
        if self._active_module is not None:
            self._move(self._active_module, torch.device("cpu"))
        self._active_module = None

    def _move(self, module: nn.Module, device: torch.device) -> None:
        """Move a module except its blocks in main memory; leaving the device also frees the slots of swapped blocks."""
        swapper = self._block_swappers.get(module)
        if swapper is None:
            module.to(device)
            return
        module._apply(lambda tensor: tensor if swapper.holds(tensor) else tensor.to(device))  # type: ignore[no-untyped-call]
        if device != swapper.device:
            swapper.release()

    def _enable_group_offloading(self, module: nn.Module) -> None:
        """Apply diffusers' group offloading, which a module keeps from then on."""
        from diffusers.hooks import apply_group_offloading

        if module not in self._group_offloading:
            apply_group_offloading(module, onload_device=self.device, offload_type="leaf_level")
            self._group_offloading.add(module)

    def swap_blocks(self, transformer: nn.Module, blocks_to_swap: int) -> None:
        """Keep `blocks_to_swap` blocks in main memory (at most all of them) and copy them to the device for their computation.

        Enables gradient checkpointing. May be called again with another number; a transformer on the device moves to main memory first, as
        blocks that are no longer swapped would otherwise stay there alone.
        """
        if transformer is self._active_module:
            self.offload()
        if swapper := self._block_swappers.pop(transformer, None):
            swapper.restore_blocks()
        blocks = get_blocks(transformer)
        swapped_blocks = [blocks[index] for index in choose_evenly_spaced(len(blocks), blocks_to_swap)]
        if swapped_blocks:
            if not getattr(transformer, "is_gradient_checkpointing", False):
                transformer.enable_gradient_checkpointing()  # type: ignore[operator]
            self._block_swappers[transformer] = BlockSwapper(swapped_blocks, self.device)

    def get_block_swapper(self, transformer: nn.Module) -> BlockSwapper | None:
        """Return the block swapper of a transformer, if blocks of it wait in main memory."""
        return self._block_swappers.get(transformer)

    def offload_activations(self, transformer: nn.Module) -> None:
        """Keep the hidden states between blocks, which training saves for the backward pass, in main memory."""
        transformer.enable_gradient_checkpointing(gradient_checkpointing_func=ActivationStore(len(get_blocks(transformer))))  # type: ignore[operator]
        self._activation_offloading.add(transformer)

    def offloads_activations(self, transformer: nn.Module) -> bool:
        """Check whether hidden states wait in main memory."""
        return transformer in self._activation_offloading

    def create_encoding_cache(self, *encoders: LazyModule, in_memory: bool = True) -> EncodingCache:
        """Create the cache of an encoding that `encoders` compute on this device."""
        cache = EncodingCache(self.device, *encoders, in_memory=in_memory)
        self._encoding_caches.append(cache)
        return cache

    def set_disk_cache(self, disk_cache: DiskCache | None) -> None:
        """Let all encoding caches use a disk cache, or none."""
        for cache in self._encoding_caches:
            cache.disk_cache = disk_cache


class ManagedAutoencoder:
    """An autoencoder that takes turns on the device; `adapter_class` applies the family's conventions to the module."""

    def __init__(
        self, adapter_class: Callable[[Any], TiledAutoencoder], module: LazyModule, z_dim: int, device_manager: DeviceManager
    ) -> None:
        self.adapter_class, self.module, self.z_dim, self.device_manager = adapter_class, module, z_dim, device_manager
        self.cache = device_manager.create_encoding_cache(module, in_memory=False)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pixels to latents; in overlapping tiles with `tile_encoding`, whose latents differ slightly.

        When the device's memory runs out, tiles are used from then on, and the CPU if they do not suffice.
        """
        if not self.device_manager.tile_encoding:
            with suppress(torch.OutOfMemoryError):
                return self.cache(lambda: self._prepare(tiled=False).encode(pixels), pixels)
            self._report_shortage("encoding in tiles")
            self.device_manager.tile_encoding = True
        return self.cache(lambda: self._process_in_tiles("encoding", lambda module, values: module.encode(values), pixels), pixels, "tiled")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to pixels; in overlapping tiles with `tile_decoding`, whose seams differ slightly.

        When the device's memory runs out, the same latents are decoded in tiles, and on the CPU if these do not suffice.
        """
        if not self.device_manager.tile_decoding:
            with suppress(torch.OutOfMemoryError):
                return self._prepare(tiled=False).decode(latents)
            self._report_shortage("decoding in tiles")
            self.device_manager.tile_decoding = True
        return self._process_in_tiles("decoding", lambda module, values: module.decode(values), latents)

    def _process_in_tiles(
        self, work: str, process: Callable[[TiledAutoencoder, torch.Tensor], torch.Tensor], values: torch.Tensor
    ) -> torch.Tensor:
        with suppress(torch.OutOfMemoryError):
            return process(self._prepare(tiled=True), values)
        self._report_shortage(f"{work} on the CPU, which takes longer")
        self.device_manager.offload()
        autoencoder = self.adapter_class(self.module.load_module().to("cpu"))
        autoencoder.set_tiling(True)
        return process(autoencoder, values.cpu()).to(values.device)

    def _report_shortage(self, instead: str) -> None:
        empty_device_cache(self.device_manager.device)
        self.device_manager.on_note(f"the device ran out of memory; continuing with {instead}")

    def _prepare(self, *, tiled: bool) -> TiledAutoencoder:
        autoencoder = self.adapter_class(self.device_manager.load(self.module))
        autoencoder.set_tiling(tiled)
        return autoencoder


def _count_weight_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
