"""Tests of range conversion: round trips are exact, and values outside a range raise."""

import pytest
import torch

from lora_edit.video import ranges

EVERY_LEVEL = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 16, 16, 3)


def test_signed_round_trip_is_exact():
    pixels = ranges.to_signed(EVERY_LEVEL)
    assert pixels.shape == (3, 1, 16, 16) and pixels.min() == -1 and pixels.max() == 1
    assert torch.equal(ranges.to_frames(pixels), EVERY_LEVEL)


def test_unit_round_trip_is_exact():
    pixels = ranges.to_unit(EVERY_LEVEL)
    assert pixels.min() == 0 and pixels.max() == 1
    assert torch.equal(ranges.unit_to_frames(pixels), EVERY_LEVEL)
    assert torch.allclose(ranges.unit_to_signed(pixels), ranges.to_signed(EVERY_LEVEL), atol=1e-6)
    assert torch.allclose(ranges.signed_to_unit(ranges.to_signed(EVERY_LEVEL)), pixels, atol=1e-6)


@pytest.mark.parametrize("value", [1.01, -1.01, float("nan"), float("inf")])
def test_values_outside_the_range_raise(value):
    pixels = torch.zeros(3, 1, 2, 2)
    pixels[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="outside"):
        ranges.to_frames(pixels)


def test_rounding_errors_are_accepted_and_overshoot_can_be_clamped():
    pixels = torch.full((3, 1, 2, 2), 1.0005)
    assert ranges.to_frames(pixels).unique().tolist() == [255]
    assert ranges.to_frames(ranges.clamp_signed(pixels * 3)).unique().tolist() == [255]
    with pytest.raises(ValueError, match="NaN"):
        ranges.clamp_signed(pixels * float("nan"))
