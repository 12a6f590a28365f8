"""Where pixels lie in a key frame, and the motion of an object as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_edit.video.correspondence import compute_correspondences
from lora_edit.video.object_motion import track_object


def textured(seed: int, height: int, width: int, grain: int = 4) -> torch.Tensor:
    noise = torch.rand(1, 3, height // grain, width // grain, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0].permute(1, 2, 0)
    return (large * 255).clamp(0, 255).to(torch.uint8)


def crossing(count: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch of 40x32 pixels that crosses a still ground, `[T, 96, 160, 3]`, and where it is `[T, 96, 160]`."""
    frames = textured(0, 96, 160).repeat(count, 1, 1, 1)
    masks = torch.zeros(frames.shape[:3], dtype=torch.bool)
    for number in range(count):
        left = 8 + step * number
        frames[number, 30:62, left : left + 40] = textured(1, 32, 40)
        masks[number, 30:62, left : left + 40] = True
    return frames, masks


def test_a_quick_object_is_followed() -> None:
    """It moves half its size a frame."""
    frames, masks = crossing(5, 20)
    for number, motion in enumerate(track_object(frames, 0, masks[0])):
        assert motion.matrix == pytest.approx(np.array([[1, 0, -20 * number], [0, 1, 0]]), abs=0.3)
        assert motion.confidence > 0.8


def test_a_hidden_object_is_lost_and_found_again() -> None:
    frames, masks = crossing(9, 4)
    frames[3:6] = textured(2, 96, 160)
    found = list(track_object(frames, 0, masks[0]))
    assert max(motion.confidence for motion in found[3:6]) < 0.5
    assert found[8].confidence > 0.8
    assert found[8].matrix[:, 2] == pytest.approx([-32, 0], abs=1)


def test_pixels_of_object_and_ground_are_told_apart() -> None:
    frames, masks = crossing(4, 12)
    y, x = np.mgrid[:96, :160]
    for number, found in enumerate(compute_correspondences(frames, 0, masks)):
        inside = masks[number].numpy()
        wanted = np.where(inside, x - 12 * number, x)
        hidden = masks[0].numpy() & ~inside
        error = np.hypot(found.positions[..., 0] - wanted, found.positions[..., 1] - y)
        assert found.positions.dtype == found.confidence.dtype == np.float32
        assert np.median(error[inside]) < 0.2 and np.quantile(error[~hidden], 0.95) < 1.5, number
        assert not hidden.any() or found.confidence[hidden].mean() < 0.5 * found.confidence[inside].mean()


def test_frames_come_in_the_order_that_is_asked_for() -> None:
    frames, masks = crossing(4, 6)
    found = list(compute_correspondences(frames, 3, masks, range(3, -1, -1)))
    assert len(found) == 4
    x = np.arange(160)
    assert np.abs(found[3].positions[40:50, 20:40, 0] - (x + 18)[20:40]).mean() < 0.3
    assert np.abs(found[0].positions[..., 0] - x).max() < 0.5


def test_without_a_region_the_whole_frame_is_followed() -> None:
    wide = textured(3, 96, 240)
    frames = torch.stack([wide[:, 40 - 5 * number : 200 - 5 * number] for number in range(4)])
    found = list(compute_correspondences(frames, 0))
    x = np.arange(160)
    assert np.abs(found[3].positions[20:80, 30:140, 0] - (x - 15)[30:140]).mean() < 0.3
