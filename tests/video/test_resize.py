"""Tests of resizing, canvas sizes and frame counts."""

import pytest
import torch

from lora_edit.types import Size
from lora_edit.video import resize
from video.clips import make_clip, mean_error


def test_resize_frames():
    frames = make_clip(2, 48, 64).frames
    small = resize.resize_frames(frames, Size(24, 32))
    averaged = frames.float().reshape(2, 24, 2, 32, 2, 3).mean((2, 4)).round()
    assert mean_error(small, averaged) < 0.3
    assert mean_error(resize.resize_frames(small, Size(48, 64)), frames) < 2
    assert resize.resize_frames(frames, Size(20, 90)).shape == (2, 20, 90, 3)


def test_resize_pixels_stays_in_range():
    pixels = torch.randn(3, 2, 10, 12, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    for size in (Size(5, 6), Size(31, 40)):
        resized = resize.resize_pixels(pixels, size)
        assert resized.shape == (3, 2, size.height, size.width) and resized.abs().max() <= 1
    assert resize.resize_pixels(pixels[:1], Size(5, 24)).shape == (1, 2, 5, 24)


@pytest.mark.parametrize(
    ("size", "area", "expected"),
    [
        (Size(480, 832), 480 * 832, Size(480, 832)),
        (Size(720, 1280), 480 * 832, Size(480, 848)),
        (Size(512, 512), 480 * 832, Size(512, 512)),
        (Size(50, 70), 480 * 832, Size(64, 80)),
        (Size(10, 10), 480 * 832, Size(32, 32)),
        (Size(1280, 720), 480 * 832, Size(848, 480)),
    ],
)
def test_fit_canvas(size, area, expected):
    assert resize.fit_canvas(size, area, 16) == expected


def test_pad_frame_count_and_pad_frames():
    assert [resize.pad_frame_count(n) for n in (1, 2, 5, 6, 16, 81)] == [1, 5, 5, 9, 17, 81]
    frames = make_clip(3).frames
    padded = resize.pad_frames(frames, 5)
    assert torch.equal(padded[:3], frames) and torch.equal(padded[4], frames[2])
