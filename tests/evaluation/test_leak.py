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


def paint(frames: torch.Tensor, mask: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    painted = frames.clone()
    painted[mask] = colour
    return painted


@pytest.fixture
def mask() -> torch.Tensor:
    return box(still(4))


@pytest.fixture
def source(mask: torch.Tensor) -> torch.Tensor:
    return paint(still(4), mask, RED)


@pytest.fixture
def edit(mask: torch.Tensor) -> torch.Tensor:
    return paint(still(4), mask, BLUE)


def test_the_edit_everywhere_is_0(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    assert leak(edit, source, edit[0], mask) == 0


def test_the_source_everywhere_is_1(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    result = torch.cat([edit[:1], source[1:]])
    assert leak(result, source, edit[0], mask) == pytest.approx(1)


def test_the_share_of_pixels_that_turn_back_is_the_leak(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    result = edit.clone()
    result[1:, 10:15] = source[1:, 10:15]  # a quarter of the rows 10 to 29
    assert leak(result, source, edit[0], mask) == pytest.approx(0.25, abs=1e-4)


def test_an_unchanged_part_of_the_region_cancels_out(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    loose = torch.zeros_like(mask)
    loose[:, 5:35, 5:50] = True
    assert leak(edit, source, edit[0], loose) == 0
    assert leak(source, source, edit[0], loose) == pytest.approx(1)


def test_a_third_colour_lies_between(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    green = paint(still(4), mask, torch.tensor([60, 220, 60], dtype=torch.uint8))
    assert leak(green, source, edit[0], mask) == pytest.approx(0.5, abs=0.1)


def test_an_edit_that_keeps_the_colours_cannot_be_told(source: torch.Tensor, mask: torch.Tensor) -> None:
    assert math.isnan(leak(source, source, source[0], mask))


def test_a_mask_without_the_first_frame_is_refused(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    mask[0] = False
    with pytest.raises(MaskError, match="first frame"):
        leak(edit, source, edit[0], mask)


def test_a_first_frame_of_another_size_is_refused(source: torch.Tensor, edit: torch.Tensor, mask: torch.Tensor) -> None:
    with pytest.raises(VideoError, match="edited first frame"):
        leak(edit, source, edit[0, :, :32], mask)
