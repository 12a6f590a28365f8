"""Tests of the crop around the edit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_edit.compositing.crop import RegionCrop, compute_crop, crop_frames, paste_crop
from lora_edit.types import EditMask


def box_mask(left: int, top: int, width: int, height: int, frame: tuple[int, int] = (200, 400)) -> EditMask:
    frames = torch.zeros(2, *frame, dtype=torch.bool)
    frames[1, top : top + height, left : left + width] = True
    return EditMask(frames)


def test_crop_has_context_on_each_side() -> None:
    assert compute_crop(box_mask(100, 60, 80, 60), 0.25) == RegionCrop(80, 45, 120, 90)


def test_small_regions_get_the_smallest_side() -> None:
    crop = compute_crop(box_mask(0, 0, 4, 4), 0.1)
    assert (crop.left, crop.top, crop.width, crop.height) == (0, 0, 50, 50)


def test_large_regions_and_empty_masks_get_the_whole_frame() -> None:
    assert compute_crop(box_mask(10, 10, 380, 180), 0.1) == RegionCrop(0, 0, 400, 200)
    assert compute_crop(box_mask(0, 0, 0, 0), 0.1) == RegionCrop(0, 0, 400, 200)


def test_aspect_widens_the_shorter_dimension() -> None:
    crop = compute_crop(box_mask(150, 50, 60, 60), 0.0, aspect=2.0, multiple=8)
    assert crop.width == 120
    assert crop.height == 64


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 39), st.integers(0, 29), st.integers(1, 40), st.integers(1, 30),
    st.floats(0, 2), st.none() | st.floats(0.3, 3), st.sampled_from([1, 8, 16]),
)  # fmt: skip
def test_crop_lies_in_the_frame_and_contains_the_region(
    left: int, top: int, width: int, height: int, context: float, aspect: float | None, multiple: int
) -> None:
    mask = box_mask(left, top, width, height, (30, 40))
    crop = compute_crop(mask, context, aspect, multiple)
    assert crop.left >= 0
    assert crop.top >= 0
    assert crop.left + crop.width <= 40
    assert crop.top + crop.height <= 30
    assert min(crop.width, crop.height) >= 7
    assert crop_frames(mask.frames, crop).sum() == mask.frames.sum()


@pytest.mark.parametrize("channels", [(), (3,)])
def test_paste_restores_a_crop(channels: tuple[int, ...]) -> None:
    frames = torch.randint(0, 255, (2, 20, 30, *channels), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    crop = RegionCrop(3, 4, 10, 8)
    assert torch.equal(paste_crop(frames, crop_frames(frames, crop), crop), frames)
    pasted = paste_crop(frames, torch.zeros_like(crop_frames(frames, crop)), crop)
    assert crop_frames(pasted, crop).sum() == 0
    assert torch.equal(pasted[:, :4], frames[:, :4])
