"""Tests of dense correspondence with a key frame and of object tracking."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_edit.video.correspondence import compute_correspondences
from lora_edit.video.object_motion import track_object


def make_texture(seed: int, height: int, width: int, grain: int = 4) -> torch.Tensor:
    noise = torch.rand(1, 3, height // grain, width // grain, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0].permute(1, 2, 0)
    return (large * 255).clamp(0, 255).to(torch.uint8)


def make_crossing_clip(count: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a clip `[T, 96, 160, 3]` of a 40x32 patch that crosses a static background, and its mask `[T, 96, 160]`."""
    frames = make_texture(0, 96, 160).repeat(count, 1, 1, 1)
    masks = torch.zeros(frames.shape[:3], dtype=torch.bool)
    for number in range(count):
        left = 8 + step * number
        frames[number, 30:62, left : left + 40] = make_texture(1, 32, 40)
        masks[number, 30:62, left : left + 40] = True
    return frames, masks


def test_track_fast_object() -> None:
    """The object moves by half its size per frame."""
    frames, masks = make_crossing_clip(5, 20)
    for number, motion in enumerate(track_object(frames, 0, masks[0])):
        assert motion.matrix == pytest.approx(np.array([[1, 0, -20 * number], [0, 1, 0]]), abs=0.3)
        assert motion.confidence > 0.8


def test_track_recovers_after_occlusion() -> None:
    frames, masks = make_crossing_clip(9, 4)
    frames[3:6] = make_texture(2, 96, 160)
    motions = list(track_object(frames, 0, masks[0]))
    assert max(motion.confidence for motion in motions[3:6]) < 0.5
    assert motions[8].confidence > 0.8
    assert motions[8].matrix[:, 2] == pytest.approx([-32, 0], abs=1)


def test_object_and_background_are_separated() -> None:
    frames, masks = make_crossing_clip(4, 12)
    y, x = np.mgrid[:96, :160]
    for number, correspondence in enumerate(compute_correspondences(frames, 0, masks)):
        inside = masks[number].numpy()
        expected = np.where(inside, x - 12 * number, x)
        hidden = masks[0].numpy() & ~inside
        error = np.hypot(correspondence.positions[..., 0] - expected, correspondence.positions[..., 1] - y)
        assert correspondence.positions.dtype == correspondence.confidence.dtype == np.float32
        assert np.median(error[inside]) < 0.2 and np.quantile(error[~hidden], 0.95) < 1.5, number
        assert not hidden.any() or correspondence.confidence[hidden].mean() < 0.5 * correspondence.confidence[inside].mean()


def test_frames_follow_the_given_order() -> None:
    frames, masks = make_crossing_clip(4, 6)
    correspondences = list(compute_correspondences(frames, 3, masks, range(3, -1, -1)))
    assert len(correspondences) == 4
    x = np.arange(160)
    assert np.abs(correspondences[3].positions[40:50, 20:40, 0] - (x + 18)[20:40]).mean() < 0.3
    assert np.abs(correspondences[0].positions[..., 0] - x).max() < 0.5


def test_whole_frame_without_region() -> None:
    wide = make_texture(3, 96, 240)
    frames = torch.stack([wide[:, 40 - 5 * number : 200 - 5 * number] for number in range(4)])
    correspondences = list(compute_correspondences(frames, 0))
    x = np.arange(160)
    assert np.abs(correspondences[3].positions[20:80, 30:140, 0] - (x - 15)[30:140]).mean() < 0.3
