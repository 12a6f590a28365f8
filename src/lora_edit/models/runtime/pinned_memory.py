"""Page-locked main memory without waste: buffers share allocations whose sizes are just below a power of two.

torch rounds every page-locked allocation up to a power of two (`CachingHostAllocator.h`), so that a buffer of 0.8 GB takes 1.07 GB. Here
consecutive buffers are grouped into slabs so that their rounded sizes are least in sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from lora_edit.devices import allocate_transfer_buffer

MAX_SLAB_BYTES = 2**32
"""Largest slab of several buffers. While weights move to a slab, both are in memory, so slabs should be small beside the model."""


def round_pinned_size(num_bytes: int) -> int:
    """Round up to a power of two, as torch does for page-locked memory."""
    return 1 << (num_bytes - 1).bit_length() if num_bytes > 0 else 0


@lru_cache(maxsize=256)
def plan_slabs(sizes: tuple[int, ...], max_slab_bytes: int = MAX_SLAB_BYTES) -> tuple[int, ...]:
    """Plan the number of consecutive buffers in each slab, so that the rounded sizes of all slabs are least in sum.

    A buffer larger than `max_slab_bytes` has its own slab.
    """
    # best[i]: least bytes for the buffers from i on, and the end of the first slab of that plan.
    best: list[tuple[int, int]] = [(0, len(sizes))] * (len(sizes) + 1)
    for start in reversed(range(len(sizes))):
        options, total = [], 0
        for end in range(start, len(sizes)):
            total += sizes[end]
            if total > max_slab_bytes and end > start:
                break
            options.append((round_pinned_size(total) + best[end + 1][0], end + 1))
        best[start] = min(options)
    counts, start = [], 0
    while start < len(sizes):
        end = best[start][1]
        counts.append(end - start)
        start = end
    return tuple(counts)


def compute_pinned_bytes(sizes: Sequence[int]) -> int:
    """Compute the page-locked memory that `allocate_pinned_buffers` takes for buffers of these sizes."""
    total, start = 0, 0
    for count in plan_slabs(tuple(sizes)):
        total += round_pinned_size(sum(sizes[start : start + count]))
        start += count
    return total


def allocate_pinned_buffers(sizes: Sequence[int], device: torch.device) -> Iterator[torch.Tensor]:
    """Yield a buffer `[size]` uint8 for each size; a slab is allocated when its first buffer is requested.

    Sizes should be multiples of the alignment that the buffers' contents need.
    """
    start = 0
    for count in plan_slabs(tuple(sizes)):
        members = sizes[start : start + count]
        slab = allocate_transfer_buffer(sum(members), device)
        yield from torch.split(slab, list(members))
        start += count
