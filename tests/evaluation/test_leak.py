"""Leak."""

from __future__ import annotations

import math

import pytest
import torch

from evaluation.pictures import box, still
from lora_edit.errors import MaskError, VideoError
from lora_edit.evaluation.leak import leak

RED = torch.tensor([200, 40, 30], dtype=torch.uint8)
BLUE = torch.tensor([30, 60, 190], dtype=torch.uint8)


def fill_mask(frames: torch.Tensor, mask: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    output = frames.clone()
    output[mask] = colour
    return output


@pytest.fixture
def mask() -> torch.Tensor:
    return box(still(4))


@pytest.fixture
def source(mask: torch.Tensor) -> torch.Tensor:
    return fill_mask(still(4), mask, RED)


@pytest.fixture
def edit(mask: torch.Tensor) -> torch.Tensor:
    return fill_mask(still(4), mask, BLUE)


def test_unchanged_edit_has_no_leak(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    assert leak(edit, source, edit[0], mask) == 0


def test_source_has_full_leak(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    result = torch.cat([edit[:1], source[1:]])
    assert leak(result, source, edit[0], mask) == pytest.approx(1)


def test_leak_is_share_of_source_pixels(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    result = edit.clone()
    result[1:, 10:15] = source[1:, 10:15]  # a quarter of the rows 10 to 29
    assert leak(result, source, edit[0], mask) == pytest.approx(0.25, abs=1e-4)


def test_unchanged_pixels_in_region_cancel_out(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    loose = torch.zeros_like(mask)
    loose[:, 5:35, 5:50] = True
    assert leak(edit, source, edit[0], loose) == 0
    assert leak(source, source, edit[0], loose) == pytest.approx(1)


def test_third_colour_gives_about_half(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    green = fill_mask(still(4), mask, torch.tensor([60, 220, 60], dtype=torch.uint8))
    assert leak(green, source, edit[0], mask) == pytest.approx(0.5, abs=0.1)


def test_leak_is_nan_when_edit_keeps_colours(source: torch.Tensor, mask: torch.Tensor) -> None:
    assert math.isnan(leak(source, source, source[0], mask))


def test_mask_without_first_frame_raises(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    mask[0] = False
    with pytest.raises(MaskError, match="first frame"):
        leak(edit, source, edit[0], mask)


def test_first_frame_of_another_size_raises(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    with pytest.raises(VideoError, match="edited first frame"):
        leak(edit, source, edit[0, :, :32], mask)
