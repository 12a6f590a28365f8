"""Masks over time: smoothing removes flicker and preserves motion, interpolation fills gaps."""

from __future__ import annotations

import pytest
import torch

from lora_edit.masks.shapes import interpolate_missing_frames
from lora_edit.masks.temporal_smoothing import smooth_mask_over_time
from lora_edit.types import EditMask


def make_discs(radii: list[int], pace: int = 3) -> EditMask:
    """Return discs of these radii, 0 for none, that move to the right."""
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(80), indexing="ij")
    frames = [(rows - 20) ** 2 + (columns - 12 - pace * number) ** 2 < radius**2 for number, radius in enumerate(radii)]
    return EditMask(torch.stack(frames), ("a note",))


def count_differences(one: EditMask, other: EditMask) -> list[int]:
    """Count the differing pixels per frame."""
    return (one.frames ^ other.frames).flatten(1).sum(1).tolist()


def test_flicker_is_removed_and_motion_preserved() -> None:
    steady = smooth_mask_over_time(make_discs([8, 8, 8, 3, 8, 8, 8]), 5)
    assert max(count_differences(steady, make_discs([8] * 7))) == 0
    assert steady.notes == ("a note",)


@pytest.mark.parametrize("window", [1, 3, 9])
def test_steady_mask_is_unchanged(window: int) -> None:
    mask = make_discs([7] * 6, pace=11)
    assert torch.equal(smooth_mask_over_time(mask, window).frames, mask.frames)


def test_empty_frames_stay_empty_after_smoothing() -> None:
    steady = smooth_mask_over_time(make_discs([8, 8, 0, 8, 8]), 3)
    assert steady.frames.flatten(1).any(1).tolist() == [True, True, False, True, True]


def test_gap_is_interpolated_and_outer_frames_stay_empty() -> None:
    whole, gaps = make_discs([0, 8, 8, 8, 8, 8, 0]), make_discs([0, 8, 0, 0, 0, 8, 0])
    filled = interpolate_missing_frames(gaps)
    area = int(whole.frames[1].sum())
    assert max(count_differences(filled, whole)) < 0.06 * area
    assert not filled.frames[0].any()
    assert not filled.frames[6].any()
    assert torch.equal(filled.frames[1], gaps.frames[1])


def test_outline_morphs_monotonically() -> None:
    areas = interpolate_missing_frames(make_discs([4, 0, 0, 0, 10])).frames.flatten(1).sum(1)
    assert (areas.diff() > 0).all()


def test_empty_mask_stays_empty() -> None:
    empty = make_discs([0, 0, 0])
    assert not interpolate_missing_frames(empty).frames.any()
    assert not smooth_mask_over_time(empty, 3).frames.any()
