"""A box that is drawn in the first frame goes with what was edited in it."""

from __future__ import annotations

import pytest
import torch

from lora_edit.masks.boxes import KeyframeBox, mask_from_boxes
from lora_edit.masks.moving_boxes import track_boxes
from lora_edit.types import Box, Size
from masks.test_follow import bounds, crossing, edited, textured

LOOSE = Box(6, 26, 48, 40)
"""Around the patch of `crossing` in frame 0, four pixels wider on every side."""


@pytest.mark.parametrize("frame", [None, 0])
def test_a_box_goes_with_the_thing_and_keeps_its_size(frame: int | None) -> None:
    frames = crossing(10)
    (found,) = track_boxes(frames, edited(frames[0]), [KeyframeBox(LOOSE, frame)])
    assert bounds(found.region.frames[0]) == (6, 26, 54, 66)
    for number, mask in enumerate(found.region.frames):
        wanted = (6 + 4 * number, 26, 54 + 4 * number, 66)
        assert max(abs(a - b) for a, b in zip(bounds(mask), wanted, strict=True)) <= 3, number
    assert not found.lost_frames
    assert len(found.region.notes) == 1 and "by up to 3" in found.region.notes[0]


def test_a_box_on_still_ground_stays_to_the_pixel() -> None:
    frames = crossing(10)
    picture = frames[0].clone()
    picture[70:90, 90:120] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    (found,) = track_boxes(frames, picture, [KeyframeBox(Box(86, 66, 38, 28))])
    assert all(bounds(mask) == (86, 66, 124, 94) for mask in found.region.frames)
    assert found.region.notes == ()


@pytest.mark.parametrize(
    "boxes",
    [
        [KeyframeBox(LOOSE, 0), KeyframeBox(Box(40, 26, 48, 40), 9)],
        [KeyframeBox(LOOSE, 4)],
        [KeyframeBox(Box(0, 0, 128, 96))],
        [KeyframeBox(Box(80, 70, 20, 20))],
    ],
    ids=["a path", "a later frame", "the whole frame", "nothing edited in it"],
)
def test_other_boxes_are_kept_as_they_are_given(boxes: list[KeyframeBox]) -> None:
    frames = crossing(10)
    (found,) = track_boxes(frames, edited(frames[0]), boxes)
    assert torch.equal(found.region.frames, mask_from_boxes(boxes, 10, Size(96, 128)).frames)


def test_each_box_goes_its_own_way() -> None:
    frames = crossing(6)
    picture = edited(frames[0])
    picture[70:90, 90:120] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    boxes = [KeyframeBox(LOOSE), KeyframeBox(Box(86, 66, 38, 28)), KeyframeBox(Box(0, 0, 9, 9), 2, "corner")]
    calls: list[tuple[int, int]] = []
    corner, first, second = track_boxes(frames, picture, boxes, lambda *done: calls.append(done))
    assert bounds(first.region.frames[5])[0] >= 22
    assert bounds(second.region.frames[5]) == (86, 66, 124, 94)
    assert bounds(corner.region.frames[5]) == (0, 0, 9, 9)
    assert calls == [(number, 12) for number in range(1, 13)]


def test_a_box_whose_thing_is_lost_stays_where_it_was_drawn() -> None:
    frames = textured(0, 96, 128).repeat(8, 1, 1, 1)
    frames[0, 30:62, 50:90] = textured(1, 32, 40)
    for number in range(1, 8):
        frames[number] = textured(10 + number, 96, 128)
    picture = frames[0].clone()
    picture[30:62, 50:90] = 255 - picture[30:62, 50:90]
    (found,) = track_boxes(frames, picture, [KeyframeBox(Box(46, 26, 48, 40))])
    assert not found.lost_frames and "could not be followed from frame 1 on, so the box stays" in found.region.notes[-1]
    assert all(bounds(frame) == (46, 26, 94, 66) for frame in found.region.frames)
