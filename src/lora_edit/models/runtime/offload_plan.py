"""Where a model's weights and states lie while it works, and what to move when the device's memory does not suffice."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lora_edit.models.family import Family
from lora_edit.models.runtime.block_swap import enable_block_swap, get_block_swapper, get_blocks, offload_activations, offloads_activations
from lora_edit.models.runtime.device_manager import ManagedAutoencoder
from lora_edit.models.runtime.quantization import WeightFormat, quantize_blocks

NUM_REDUCTION_STEPS = 4
"""In so many steps all blocks go to main memory."""


@dataclass(frozen=True)
class OffloadPlan:
    """`swapped` blocks wait in main memory (`streaming.py`), the frozen linear layers of all blocks are kept as `base` (`storage.py`),
    `parked` hidden states wait in main memory for the backward pass, `tiled` says that clips are decoded in overlapping tiles."""

    blocks_to_swap: int = 0
    weight_format: WeightFormat = "full"
    offload_activations: bool = False
    tile_decoding: bool = False


def apply_offload_plan(family: Family, device: torch.device, plan: OffloadPlan) -> None:
    """Arrange a family just loaded, before a LoRA is added to it."""
    for expert in family.experts():
        transformer = expert.transformer
        quantize_blocks(transformer, plan.weight_format)
        if plan.offload_activations:
            offload_activations(transformer)
        if plan.blocks_to_swap:
            enable_block_swap(transformer, device, plan.blocks_to_swap)
        codec = getattr(getattr(expert, "parts", None), "autoencoder", None)
        if isinstance(codec, ManagedAutoencoder):
            codec.tile_decoding = plan.tile_decoding


def reduce_memory(family: Family, device: torch.device) -> str | None:
    """Take some more of a family off the device, whatever LoRA is inside; says what, or None when nothing more can go."""
    transformers = [expert.transformer for expert in family.experts()]
    total = len(get_blocks(transformers[0]))
    stream = get_block_swapper(transformers[0])
    swapped = len(stream.host_blocks) if stream else 0
    if swapped < total:
        more = min(total, swapped + -(-total // NUM_REDUCTION_STEPS))
        for transformer in transformers:
            enable_block_swap(transformer, device, more)
        return f"{more} of {total} blocks wait in main memory"
    if total and not offloads_activations(transformers[0]):
        for transformer in transformers:
            offload_activations(transformer)
        return "hidden states wait in main memory"
    return None
