"""`pack_mask` against the recipe of Wan and diffusers, and its own rule."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_edit.models.families.condition_packing import pack_mask


def upstream_recipe(small: torch.Tensor) -> torch.Tensor:
    """The recipe on a mask that is already at latent size: first frame four times, view, transpose."""
    batch, _, _, height, width = small.shape
    mask = torch.cat([small[:, :, :1].repeat_interleave(4, 2), small[:, :, 1:]], 2)
    return mask.view(batch, -1, 4, height, width).transpose(1, 2)


@pytest.mark.parametrize("frames", [1, 5, 9, 49])
def test_equals_the_upstream_recipe_on_aligned_masks(frames: int) -> None:
    """Masks constant in each 8x8 cell: any shrinking gives the same."""
    small = (torch.rand(2, 1, frames, 3, 5, generator=torch.Generator().manual_seed(frames)) > 0.5).float()
    large = small.repeat_interleave(8, 3).repeat_interleave(8, 4)
    assert torch.equal(pack_mask(large), upstream_recipe(small))


def test_pixel_frame_and_channel() -> None:
    """Pixel frame f >= 1 is channel (f + 3) % 4 of latent frame (f + 3) // 4."""
    for frame in range(1, 13):
        mask = torch.zeros(1, 1, 13, 8, 8)
        mask[:, :, frame] = 1
        packed = pack_mask(mask)
        assert packed.sum() == 1 and packed[0, (frame + 3) % 4, (frame + 3) // 4, 0, 0] == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.integers(0, 15), st.integers(0, 15))
def test_one_withheld_pixel_withholds_its_cell(frame: int, row: int, column: int) -> None:
    """A cell is given only if every pixel in it is."""
    mask = torch.ones(1, 1, 5, 16, 16)
    mask[0, 0, frame, row, column] = 0
    packed = pack_mask(mask)
    assert packed.numel() - packed.sum() == (4 if frame == 0 else 1)
    assert packed[0, :, (frame + 3) // 4, row // 8, column // 8].min() == 0
