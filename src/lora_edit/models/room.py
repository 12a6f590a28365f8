"""Where a model's weights and states lie while it works, and what to move when the device's memory does not suffice."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lora_edit.models.family import Family
from lora_edit.models.storage import Storage, store_blocks
from lora_edit.models.streaming import blocks_of, park_hidden_states, parks, stream_blocks, stream_of
from lora_edit.models.workbench import TurnsAutoencoder

NOTCHES = 4
"""In so many steps all blocks go to main memory."""


@dataclass(frozen=True)
class Placement:
    """`swapped` blocks wait in main memory (`streaming.py`), the frozen linear layers of all blocks are kept as `base` (`storage.py`),
    `parked` hidden states wait in main memory for the backward pass, `tiled` says that clips are decoded in overlapping tiles."""

    swapped: int = 0
    base: Storage = "full"
    parked: bool = False
    tiled: bool = False


def make_room(family: Family, device: torch.device, place: Placement) -> None:
    """Arrange a family just loaded, before a LoRA is added to it."""
    for expert in family.experts():
        transformer = expert.transformer
        store_blocks(transformer, place.base)
        if place.parked:
            park_hidden_states(transformer)
        if place.swapped:
            stream_blocks(transformer, device, place.swapped)
        codec = getattr(getattr(expert, "parts", None), "autoencoder", None)
        if isinstance(codec, TurnsAutoencoder):
            codec.tiled = place.tiled


def step_down(family: Family, device: torch.device) -> str | None:
    """Take some more of a family off the device, whatever LoRA is inside; says what, or None when nothing more can go."""
    transformers = [expert.transformer for expert in family.experts()]
    total = len(blocks_of(transformers[0]))
    stream = stream_of(transformers[0])
    swapped = len(stream.pieces) if stream else 0
    if swapped < total:
        more = min(total, swapped + -(-total // NOTCHES))
        for transformer in transformers:
            stream_blocks(transformer, device, more)
        return f"{more} of {total} blocks wait in main memory"
    if total and not parks(transformers[0]):
        for transformer in transformers:
            park_hidden_states(transformer)
        return "hidden states wait in main memory"
    return None
