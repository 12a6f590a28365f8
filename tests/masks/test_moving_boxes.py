"""Boxes drawn in the first frame that move with the edited object."""

from __future__ import annotations

import pytest
import torch

from lora_edit.masks.boxes import KeyframeBox, mask_from_boxes
from lora_edit.masks.moving_boxes import track_boxes
from lora_edit.types import Box, Size, mask_bounds
from masks.test_edit_region import invert_patch, make_crossing_clip, make_texture

LOOSE = Box(6, 26, 48, 40)
"""The patch of `make_crossing_clip` in frame 0, with a margin of four pixels on every side."""


@pytest.mark.parametrize("frame", [None, 0])
def test_box_moves_with_the_object_and_keeps_its_size(frame: int | None) -> None:
    frames = make_crossing_clip(10)
    (track,) = track_boxes(frames, invert_patch(frames[0]), [KeyframeBox(LOOSE, frame)])
    assert mask_bounds(track.region.frames[0]) == (6, 26, 54, 66)
    for number, mask in enumerate(track.region.frames):
        expected = (6 + 4 * number, 26, 54 + 4 * number, 66)
        assert max(abs(a - b) for a, b in zip(mask_bounds(mask), expected, strict=True)) <= 3, number
    assert not track.lost_frames
    assert len(track.region.notes) == 1 and "by up to 3" in track.region.notes[0]


def test_box_on_static_background_keeps_its_exact_position() -> None:
    frames = make_crossing_clip(10)
    picture = frames[0].clone()
    picture[70:90, 90:120] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    (track,) = track_boxes(frames, picture, [KeyframeBox(Box(86, 66, 38, 28))])
    assert all(mask_bounds(mask) == (86, 66, 124, 94) for mask in track.region.frames)
    assert track.region.notes == ()


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
def test_other_boxes_are_unchanged(boxes: list[KeyframeBox]) -> None:
    frames = make_crossing_clip(10)
    (track,) = track_boxes(frames, invert_patch(frames[0]), boxes)
    assert torch.equal(track.region.frames, mask_from_boxes(boxes, 10, Size(96, 128)).frames)


def test_boxes_move_independently() -> None:
    frames = make_crossing_clip(6)
    picture = invert_patch(frames[0])
    picture[70:90, 90:120] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    boxes = [KeyframeBox(LOOSE), KeyframeBox(Box(86, 66, 38, 28)), KeyframeBox(Box(0, 0, 9, 9), 2, "corner")]
    calls: list[tuple[int, int]] = []
    corner, first, second = track_boxes(frames, picture, boxes, lambda *done: calls.append(done))
    assert mask_bounds(first.region.frames[5])[0] >= 22
    assert mask_bounds(second.region.frames[5]) == (86, 66, 124, 94)
    assert mask_bounds(corner.region.frames[5]) == (0, 0, 9, 9)
    assert calls == [(number, 12) for number in range(1, 13)]


def test_box_of_a_lost_object_stays_in_place() -> None:
    frames = make_texture(0, 96, 128).repeat(8, 1, 1, 1)
    frames[0, 30:62, 50:90] = make_texture(1, 32, 40)
    for number in range(1, 8):
        frames[number] = make_texture(10 + number, 96, 128)
    picture = frames[0].clone()
    picture[30:62, 50:90] = 255 - picture[30:62, 50:90]
    (track,) = track_boxes(frames, picture, [KeyframeBox(Box(46, 26, 48, 40))])
    assert not track.lost_frames and "could not be followed from frame 1 on, so the box stays" in track.region.notes[-1]
    assert all(mask_bounds(frame) == (46, 26, 94, 66) for frame in track.region.frames)


def make_panning_clip(bar_left: int, bar_width: int, bar_step: int, pan: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames `[24, 96, 160, 3]` and the edited first frame, which removes a thing of 24x20 pixels from the ground.

    The ground moves to the right by `pan` pixels per frame, a bar in front of it by `bar_step`.
    """
    bare = make_texture(0, 96, 320)
    ground = bare.clone()
    ground[40:60, 160:184] = (make_texture(1, 20, 24) * 0.5 + torch.tensor([120, 10, 10])).clamp(0, 255).to(torch.uint8)
    bar = (make_texture(2, 96, bar_width) * 0.6).to(torch.uint8)
    frames = torch.stack([ground[:, 100 - pan * number : 260 - pan * number] for number in range(24)])
    is_ground = torch.ones(24, 160, dtype=torch.bool)
    for number, frame in enumerate(frames):
        left = bar_left + bar_step * number
        visible = slice(max(0, left), max(0, min(160, left + bar_width)))
        frame[:, visible] = bar[:, visible.start - left : visible.stop - left]
        is_ground[number, visible] = False
    edited_frame = torch.where(is_ground[0, :, None], bare[:, 100:260], frames[0])
    return frames, edited_frame


@pytest.mark.parametrize(
    ("bar_left", "bar_width", "bar_step", "pan"),
    [(50, 8, 3, 1), (56, 8, 4, 1), (44, 12, 4, 1), (84, 10, -3, 1), (84, 40, -4, 2)],
    ids=["beside", "partly in front", "drags the points along", "from the other side", "hides all of it"],
)
def test_box_on_panning_ground_ignores_what_passes_in_front(bar_left: int, bar_width: int, bar_step: int, pan: int) -> None:
    frames, edited_frame = make_panning_clip(bar_left, bar_width, bar_step, pan)
    (track,) = track_boxes(frames, edited_frame, [KeyframeBox(Box(54, 34, 36, 32))])
    for number, mask in enumerate(track.region.frames):
        expected = (54 + pan * number, 34, 90 + pan * number, 66)
        # The thing comes to sight again by a few columns in the frames after it was hidden.
        assert max(abs(a - b) for a, b in zip(mask_bounds(mask), expected, strict=True)) <= 6, number
    assert mask_bounds(track.region.frames[23]) == pytest.approx((54 + 23 * pan, 34, 90 + 23 * pan, 66), abs=2)


def test_box_of_an_object_that_disappears_stays_with_a_note() -> None:
    frames = make_texture(0, 96, 128).repeat(16, 1, 1, 1)
    frames[:4, 30:62, 50:90] = (make_texture(1, 32, 40) * 0.4 + torch.tensor([150, 0, 0])).to(torch.uint8)
    edited_frame = frames[4].clone()
    (track,) = track_boxes(frames, edited_frame, [KeyframeBox(Box(46, 26, 48, 40))])
    assert "could not be followed from frame 4 on, so the box stays" in track.region.notes[-1]
    assert all(mask_bounds(frame) == (46, 26, 94, 66) for frame in track.region.frames)
