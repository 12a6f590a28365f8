"""Tests of the moving-layer baseline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_edit.propagation.baselines import BASELINES
from lora_edit.propagation.moving_layer import composite_moving_layer, track_region
from lora_edit.types import EditMask

SIZE = (80, 120)


def texture(height: int, width: int, seed: int) -> torch.Tensor:
    """Return a smooth random picture `[height, width, 3]` uint8."""
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (smooth[0] * 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def sliding_square(frames: int = 5) -> tuple[torch.Tensor, torch.Tensor, EditMask]:
    """Return a clip of a textured square that moves by 5 pixels per frame, the clip with a red patch on it, and a loose region."""
    ground, square = texture(*SIZE, 0), texture(40, 40, 1)
    source = ground.expand(frames, -1, -1, -1).clone()
    for t in range(frames):
        source[t, 20:60, 15 + 5 * t : 55 + 5 * t] = square
    truth = source.clone()
    for t in range(frames):
        truth[t, 30:46, 28 + 5 * t : 44 + 5 * t] = torch.tensor([250, 10, 10], dtype=torch.uint8)
    mask = torch.zeros(frames, *SIZE, dtype=torch.bool)
    mask[:, 20:60, 10:100] = True
    return source, truth, EditMask(mask)


def test_patch_moves_with_its_object() -> None:
    source, truth, mask = sliding_square()
    out = composite_moving_layer(source, truth[0], mask)
    assert torch.equal(out[0], truth[0]) and torch.equal(out[~mask.frames], source[~mask.frames])
    error, source_error = ((clip[4].int() - truth[4].int()).abs().float().mean() for clip in (out, source))
    assert error < source_error / 8
    assert (out[4, 34:42, 52:60].int() - truth[4, 34:42, 52:60].int()).abs().max() <= 2


def test_rotation_and_scaling_are_tracked() -> None:
    """The estimated similarity equals the one that warps the picture."""
    import cv2

    picture = texture(*SIZE, 3).numpy()
    transforms = [np.vstack([cv2.getRotationMatrix2D((60, 40), -4 * t, 1 + 0.03 * t), [0, 0, 1]]) for t in range(6)]
    frames = [cv2.warpAffine(picture, m[:2], SIZE[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT) for m in transforms]
    region = np.zeros(SIZE, bool)
    region[20:60, 35:85] = True
    estimated = list(track_region(torch.from_numpy(np.stack(frames)), region))
    corners = np.array([[35, 20, 1], [85, 20, 1], [85, 60, 1], [35, 60, 1]])
    for matrix, transform in zip(estimated, transforms[1:], strict=True):
        assert np.abs(corners @ (matrix - transform).T).max() < 0.6


def test_layer_stays_without_trackable_points() -> None:
    source = torch.full((3, *SIZE, 3), 120, dtype=torch.uint8)
    edited = source[0].clone()
    edited[30:50, 40:70] = 200
    mask = EditMask(torch.ones(3, *SIZE, dtype=torch.bool))
    out = composite_moving_layer(source, edited, mask)
    assert (out[2, 33:47, 43:67].int() - 200).abs().max() <= 1
    assert torch.equal(composite_moving_layer(source, source[0], mask), source)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_keeps_pixels_outside_the_mask(name: str) -> None:
    source, truth, mask = sliding_square(3)
    out = BASELINES[name](source, truth[0], mask)
    assert out.shape == source.shape and out.dtype == torch.uint8
    assert torch.equal(out[~mask.frames], source[~mask.frames]) and torch.equal(out[0], truth[0])
