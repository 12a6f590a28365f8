"""Masks over time: flicker goes, motion stays, gaps close."""

from __future__ import annotations

import pytest
import torch

from lora_edit.masks.shapes import interpolate_missing_frames
from lora_edit.masks.temporal_smoothing import smooth_mask_over_time
from lora_edit.types import EditMask


def discs(radii: list[int], pace: int = 3) -> EditMask:
    """Discs of those radii, 0 for none, that move to the right."""
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(80), indexing="ij")
    frames = [(rows - 20) ** 2 + (columns - 12 - pace * number) ** 2 < radius**2 for number, radius in enumerate(radii)]
    return EditMask(torch.stack(frames), ("a remark",))


def differs(one: EditMask, other: EditMask) -> list[int]:
    """Pixels per frame."""
    return (one.frames ^ other.frames).flatten(1).sum(1).tolist()


def test_a_frame_that_flickers_is_outvoted_and_motion_is_kept() -> None:
    steady = smooth_mask_over_time(discs([8, 8, 8, 3, 8, 8, 8]), 5)
    assert max(differs(steady, discs([8] * 7))) == 0
    assert steady.notes == ("a remark",)


@pytest.mark.parametrize("window", [1, 3, 9])
def test_what_is_steady_stays(window: int) -> None:
    mask = discs([7] * 6, pace=11)
    assert torch.equal(smooth_mask_over_time(mask, window).frames, mask.frames)


def test_empty_frames_stay_empty_when_flicker_is_taken_out() -> None:
    steady = smooth_mask_over_time(discs([8, 8, 0, 8, 8]), 3)
    assert steady.frames.flatten(1).any(1).tolist() == [True, True, False, True, True]


def test_a_gap_is_bridged_on_the_way_and_the_ends_stay_open() -> None:
    whole, gaps = discs([0, 8, 8, 8, 8, 8, 0]), discs([0, 8, 0, 0, 0, 8, 0])
    filled = interpolate_missing_frames(gaps)
    area = int(whole.frames[1].sum())
    assert max(differs(filled, whole)) < 0.06 * area
    assert not filled.frames[0].any()
    assert not filled.frames[6].any()
    assert torch.equal(filled.frames[1], gaps.frames[1])


def test_one_outline_turns_into_the_other() -> None:
    areas = interpolate_missing_frames(discs([4, 0, 0, 0, 10])).frames.flatten(1).sum(1)
    assert (areas.diff() > 0).all()


def test_an_empty_mask_stays_empty() -> None:
    empty = discs([0, 0, 0])
    assert not interpolate_missing_frames(empty).frames.any()
    assert not smooth_mask_over_time(empty, 3).frames.any()
