"""The offload plan: where a model's weights and states are while it computes, and what to move when the device's memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lora_edit.devices import empty_device_cache
from lora_edit.errors import is_out_of_memory
from lora_edit.models.family import Family
from lora_edit.models.runtime.block_swap import get_blocks
from lora_edit.models.runtime.quantization import WeightFormat, quantize_blocks

NUM_REDUCTION_STEPS = 4
"""Number of steps in which all blocks go to main memory."""


@dataclass(frozen=True)
class OffloadPlan:
    """Placement of a family.

    - `blocks_to_swap`: blocks that wait in main memory (`block_swap.py`).
    - `weight_format`: storage of the frozen linear layers of all blocks (`quantization.py`).
    - `offload_activations`: hidden states wait in main memory for the backward pass.
    - `tile_encoding`, `tile_decoding`: clips are encoded and decoded in overlapping tiles.
    """

    blocks_to_swap: int = 0
    weight_format: WeightFormat = "full"
    offload_activations: bool = False
    tile_encoding: bool = False
    tile_decoding: bool = False


def apply_offload_plan(family: Family, plan: OffloadPlan) -> None:
    """Apply a plan to a family just loaded, before a LoRA is added to it."""
    manager = family.device_manager
    manager.tile_encoding, manager.tile_decoding = plan.tile_encoding, plan.tile_decoding
    for expert in family.experts():
        quantize_blocks(expert.transformer, plan.weight_format)
        if plan.offload_activations:
            manager.offload_activations(expert.transformer)
        if plan.blocks_to_swap:
            manager.swap_blocks(expert.transformer, plan.blocks_to_swap)


def reduce_memory(family: Family) -> str | None:
    """Reduce a family's device memory by one step; returns a description of the step, or None when no step is left."""
    manager = family.device_manager
    transformers = [expert.transformer for expert in family.experts()]
    total = len(get_blocks(transformers[0]))
    swapper = manager.get_block_swapper(transformers[0])
    num_swapped = len(swapper.host_blocks) if swapper else 0
    if num_swapped < total:
        blocks_to_swap = min(total, num_swapped + -(-total // NUM_REDUCTION_STEPS))
        for transformer in transformers:
            manager.swap_blocks(transformer, blocks_to_swap)
        return f"{blocks_to_swap} of {total} blocks wait in main memory"
    if total and not manager.offloads_activations(transformers[0]):
        for transformer in transformers:
            manager.offload_activations(transformer)
        return "hidden states wait in main memory"
    return None


def decode_in_memory(family: Family, latents: torch.Tensor, on_note: Callable[[str], None]) -> torch.Tensor:
    """Decode latents to pixels. When memory runs out, only the decoding is repeated, in overlapping tiles, and `on_note` is called.

    Tiles stay on for later windows, so that all of them have the same seams. Raises the error of the second try.
    """
    try:
        return family.decode(latents)
    except (MemoryError, RuntimeError) as error:  # `torch.OutOfMemoryError` is a RuntimeError
        if not is_out_of_memory(error) or family.device_manager.tile_decoding:
            raise
    manager = family.device_manager
    empty_device_cache(manager.device)
    manager.tile_decoding = True
    on_note("memory ran out in decoding; the sampled clip is decoded in overlapping tiles, whose seams differ slightly")
    return family.decode(latents)
