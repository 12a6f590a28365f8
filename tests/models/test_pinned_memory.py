"""Page-locked memory by torch's documented rounding: every allocation takes a power of two."""

from __future__ import annotations

import pytest
import torch

from lora_edit.models.runtime import pinned_memory
from lora_edit.models.runtime.pinned_memory import (
    MAX_SLAB_BYTES,
    allocate_pinned_buffers,
    compute_pinned_bytes,
    plan_slabs,
    round_pinned_size,
)

BLOCK_BYTES = {"14B": 806_871_040, "14B in 8 bits": 411_504_230, "5B": 329_519_104, "state of 81 frames": 335_462_400}


def test_sizes_are_rounded_up_to_powers_of_two() -> None:
    assert [round_pinned_size(size) for size in (0, 1, 2, 3, 1024, 1025)] == [0, 1, 2, 4, 1024, 2048]


@pytest.mark.parametrize("size", BLOCK_BYTES.values(), ids=list(BLOCK_BYTES))
@pytest.mark.parametrize("count", [1, 7, 30, 40])
def test_slabs_waste_little(size: int, count: int) -> None:
    """Buffers of their own would waste up to a half."""
    planned = compute_pinned_bytes([size] * count)
    assert count * size <= planned <= count * round_pinned_size(size)
    if count >= 30:
        assert planned < 1.12 * count * size
    start = 0
    for members in plan_slabs((size,) * count):
        assert members == 1 or members * size <= MAX_SLAB_BYTES
        start += members
    assert start == count


def test_the_plan_is_the_best_of_all() -> None:
    """Against every division of a short list."""
    sizes = (3, 9, 5, 2, 8, 1)

    def best(rest: tuple[int, ...]) -> int:
        options = (round_pinned_size(sum(rest[:end])) + best(rest[end:]) for end in range(1, len(rest) + 1))
        return min(options) if rest else 0

    assert compute_pinned_bytes(sizes) == best(sizes) < sum(map(round_pinned_size, sizes))


def test_buffers_are_parts_of_slabs_that_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that are allocated are those of the estimate."""
    allocated: list[int] = []

    def allocate(count: int, device: torch.device) -> torch.Tensor:
        allocated.append(count)
        return torch.zeros(count, dtype=torch.uint8)

    monkeypatch.setattr(pinned_memory, "allocate_transfer_buffer", allocate)
    monkeypatch.setattr(pinned_memory, "plan_slabs", lambda sizes: (2, 1, 3))
    sizes = [256, 512, 256, 768, 256, 512]
    buffers = allocate_pinned_buffers(sizes, torch.device("cpu"))
    next(buffers)
    assert allocated == [768]
    rest = list(buffers)
    assert [len(each) for each in rest] == sizes[1:] and allocated == [768, 256, 1536]
    assert compute_pinned_bytes(sizes) == sum(round_pinned_size(each) for each in allocated)
    rest[-1].fill_(7)
    assert int(rest[-2].max()) == 0  # no buffer overlaps another
