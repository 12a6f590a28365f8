"""Flicker."""

from __future__ import annotations

import math

import pytest
import torch

from evaluation.pictures import box, still, texture
from lora_edit.errors import MaskError, VideoError
from lora_edit.evaluation.flicker import flicker


def test_still_clip_has_no_flicker() -> None:
    assert flicker(still()) == pytest.approx(0, abs=1e-3)


def test_brightness_change_is_measured_in_levels() -> None:
    clip = still(4)
    clip[1::2] += 12
    assert flicker(clip) == pytest.approx(12, abs=0.2)


def test_motion_does_not_count() -> None:
    wide = texture(64, 128)
    clip = torch.stack([wide[:, 3 * t : 3 * t + 96] for t in range(4)])
    difference = (clip[1:].float() - clip[:-1].float()).abs().mean()
    assert flicker(clip) < difference / 20


def test_disoccluded_pixels_do_not_count() -> None:
    clip = still(4, 64, 96)
    for t in range(4):
        clip[t, 20:44, 10 + 6 * t : 34 + 6 * t] = texture(24, 24, 7)
    difference = (clip[1:].float() - clip[:-1].float()).abs().mean()
    assert flicker(clip) < difference / 8


def test_only_region_counts() -> None:
    clip = still(3)
    mask = box(clip)
    clip[1][mask[1]] += 12
    around = ~box(clip)
    around[:, 6:34, 8:44] = False
    assert flicker(clip, mask) > 9
    assert flicker(clip, around) < 0.5


@pytest.mark.parametrize("shape", [(8, 8), (12, 60), (900, 16)])
def test_any_frame_size(shape: tuple[int, int]) -> None:
    assert flicker(still(2, *shape)) == pytest.approx(0, abs=0.05)


def test_noise_has_high_flicker_or_nan() -> None:
    noise = torch.randint(0, 256, (2, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    value = flicker(noise)
    assert math.isnan(value) or value > 20


def test_single_frame_raises() -> None:
    with pytest.raises(VideoError, match="at least two frames"):
        flicker(still(1))


def test_mask_empty_after_first_frame_raises() -> None:
    clip = still()
    mask = box(clip)
    mask[1:] = False
    with pytest.raises(MaskError):
        flicker(clip, mask)
