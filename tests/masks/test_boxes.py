"""Conversion between boxes and masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lora_edit.errors import MaskError
from lora_edit.masks.boxes import KeyframeBox, mask_from_boxes, smooth_edges, track_objects
from lora_edit.types import Box, EditMask, Size, mask_bounds

SIZE = Size(60, 80)


def blob_mask(*paths: list[tuple[int, int, int, int] | None]) -> EditMask:
    """Draw one path of (left, top, width, height) per object, with one entry per frame, on 100 x 100 pixels."""
    frames = torch.zeros(len(paths[0]), 100, 100, dtype=torch.bool)
    for path in paths:
        for frame, rectangle in zip(frames, path, strict=True):
            if rectangle is not None:
                left, top, width, height = rectangle
                frame[top : top + height, left : left + width] = True
    return EditMask(frames)


def test_box_without_a_frame_applies_to_every_frame() -> None:
    mask = mask_from_boxes([KeyframeBox(Box(10, 20, 30, 5))], 3, SIZE)
    expected = torch.zeros(60, 80, dtype=torch.bool)
    expected[20:25, 10:40] = True
    assert all(torch.equal(frame, expected) for frame in mask.frames)
    assert mask.notes == ()


def test_keyframe_boxes_are_interpolated_and_held() -> None:
    mask = mask_from_boxes([KeyframeBox(Box(0, 0, 10, 10), 1), KeyframeBox(Box(40, 20, 20, 10), 5)], 8, SIZE)
    tracks = track_objects(mask)
    assert len(tracks) == 1
    assert tracks[0].get_box(0) == tracks[0].get_box(1) == Box(0, 0, 10, 10)
    assert tracks[0].get_box(3) == Box(20, 10, 15, 10)
    assert tracks[0].get_box(5) == tracks[0].get_box(7) == Box(40, 20, 20, 10)
    assert tracks[0].get_box(8) is None


def test_boxes_of_different_objects_are_united() -> None:
    mask = mask_from_boxes([KeyframeBox(Box(0, 0, 5, 5), name="a"), KeyframeBox(Box(50, 40, 5, 5), name="b")], 2, SIZE)
    assert int(mask.frames[0].sum()) == 50


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([KeyframeBox(Box(80, 0, 5, 5))], "outside the frame, which is 80x60"),
        ([KeyframeBox(Box(0, 0, 0, 5))], "width and height"),
        ([KeyframeBox(Box(float("nan"), 0, 3, 5))], "width and height"),
        ([KeyframeBox(Box(0, 0, 5, 5), 4)], "frames 0 to 3"),
        ([KeyframeBox(Box(0, 0, 5, 5), 1), KeyframeBox(Box(9, 0, 5, 5), 1)], "two boxes at the same frame"),
        ([], "no box"),
    ],
)
def test_unusable_boxes_raise(boxes: list[KeyframeBox], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        mask_from_boxes(boxes, 4, SIZE)


def test_box_partly_outside_is_clipped_with_a_note() -> None:
    mask = mask_from_boxes([KeyframeBox(Box(70, -5, 20, 10))], 1, SIZE)
    assert int(mask.frames.sum()) == 10 * 5
    assert "reaches beyond the frame (80x60)" in mask.notes[0]


def test_nearby_parts_share_a_box_and_distant_objects_do_not() -> None:
    near = blob_mask([(10, 10, 10, 10)] * 3, [(23, 10, 10, 10)] * 3)
    assert [track.boxes[0] for track in track_objects(near)] == [Box(10, 10, 23, 10)]
    far = blob_mask([(10, 10, 10, 10)] * 3, [(60, 60, 10, 10)] * 3)
    assert {track.boxes[0] for track in track_objects(far)} == {Box(10, 10, 10, 10), Box(60, 60, 10, 10)}


def test_lost_frames_are_interpolated() -> None:
    mask = blob_mask([(10, 10, 10, 10), None, None, None, (30, 10, 10, 10), None])
    (track,) = track_objects(mask)
    assert track.first_frame == 0
    assert [box.left for box in track.boxes] == [10, 15, 20, 25, 30]


def test_crossing_objects_stay_separate() -> None:
    right = [(5 * t, 40, 10, 10) for t in range(18)]
    left = [(85 - 5 * t, 40, 10, 10) for t in range(18)]
    tracks = track_objects(blob_mask(right, left))
    assert len(tracks) == 2
    assert sorted(track.boxes[0].left for track in tracks) == [0, 85]
    assert all(track.boxes[0].width == 10 for track in tracks)


def test_mostly_attached_part_belongs_to_its_object() -> None:
    body = [(10, 10, 10, 40)] * 10
    arm = [(20, 10, 8, 8)] * 8 + [(30, 10, 8, 8)] * 2
    (track,) = track_objects(blob_mask(body, arm))
    assert track.boxes[9] == Box(10, 10, 28, 40)


def test_object_has_no_box_before_it_appears() -> None:
    (track,) = track_objects(blob_mask([None, None, (5, 5, 9, 9)]))
    assert (track.first_frame, track.get_box(1)) == (2, None)


def test_smoothing_preserves_steady_motion_and_reduces_jitter() -> None:
    steady = np.array([[3.0 * t, 0, 3 * t + 20, 10] for t in range(12)])
    assert np.allclose(smooth_edges(steady, 5), steady)
    jitter = steady + np.array([2.0, 0, 0, 0]) * (np.arange(12) % 2)[:, None]
    assert np.abs(np.diff(smooth_edges(jitter, 5)[:, 0], 2)).max() < np.abs(np.diff(jitter[:, 0], 2)).max() / 3


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(4)), elements=st.floats(-50, 50)), st.integers(1, 9))
def test_smoothed_boxes_contain_the_originals(edges: np.ndarray, window: int) -> None:
    smoothed = smooth_edges(edges, window)
    assert (smoothed[:, :2] <= edges[:, :2]).all()
    assert (smoothed[:, 2:] >= edges[:, 2:]).all()


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float64, (5, 2), elements=st.floats(0, 20)), st.integers(1, 6))
def test_tracked_boxes_contain_their_object(positions: np.ndarray, smooth: int) -> None:
    mask = blob_mask([(int(x), int(y), 4, 6) for x, y in positions])
    for index, frame in enumerate(mask.frames):
        covered = torch.zeros_like(frame)
        for track in track_objects(mask, smooth):
            box = track.get_box(index)
            if box is not None:
                left, top = int(np.floor(box.left)), int(np.floor(box.top))
                covered[top : int(np.ceil(box.top + box.height)), left : int(np.ceil(box.left + box.width))] = True
        assert covered[frame].all()


def test_mask_bounds_of_tensors_and_arrays() -> None:
    mask = torch.zeros(20, 30, dtype=torch.bool)
    assert mask_bounds(mask) is None
    mask[4:9, 11], mask[6, 11:17] = True, True
    assert mask_bounds(mask) == mask_bounds(mask.numpy()) == (11, 4, 17, 9)
    box = Box(11, 4, 6, 5)
    assert (box.right, box.bottom) == (17, 9)
