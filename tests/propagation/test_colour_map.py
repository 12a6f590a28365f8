"""Tests of the affine colour map, fitted on frame 0 and applied to the source's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_edit.propagation.colour_map import apply_colour_map, fit_affine
from lora_edit.types import EditMask

SHIFT = torch.tensor([-90, 40, 110])


def moving_ball(frames: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a clip of a shaded red disc that moves by 6 pixels per frame over grey, the same recoloured, and the disc's mask."""
    y, x = torch.meshgrid(torch.arange(48), torch.arange(72), indexing="ij")
    source, truth, masks = [], [], []
    for t in range(frames):
        disc = (y - 24) ** 2 + (x - 18 - 6 * t) ** 2 < 13**2
        shade = (y + x) % 30
        ball = torch.stack([150 + shade, 30 + shade, 20 + shade], -1)
        ground = torch.stack([90 + x, 100 + x, 110 + x], -1)
        source.append(torch.where(disc[..., None], ball, ground).to(torch.uint8))
        truth.append(torch.where(disc[..., None], ball + SHIFT, ground).to(torch.uint8))
        masks.append(disc)
    return torch.stack(source), torch.stack(truth), torch.stack(masks)


def test_recolours_the_object_and_keeps_its_surroundings() -> None:
    source, truth, disc = moving_ball()
    box = torch.zeros(disc.shape, dtype=torch.bool)
    box[:, 6:42, :] = True
    out = apply_colour_map(source, truth[0], EditMask(box))
    assert torch.equal(out[0], truth[0]) and torch.equal(out[~box], source[~box])
    error = (out.int() - truth.int()).abs().float()
    assert error[disc].mean() < 4 and error[box & ~disc].mean() < 1


def test_unchanged_first_frame_or_empty_mask_returns_the_source() -> None:
    source, _, disc = moving_ball(2)
    assert torch.equal(apply_colour_map(source, source[0], EditMask(disc)), source)
    assert torch.equal(apply_colour_map(source, 255 - source[0], EditMask(torch.zeros_like(disc))), source)


@pytest.mark.parametrize("flat", [False, True])
def test_fit_ignores_outliers(flat: bool) -> None:
    """A fifth of the pixels are outliers; without contrast the map is a shift."""
    rng = np.random.default_rng(0)
    before = rng.normal((50, 10, 20), 0.01 if flat else 12, (500, 3)).astype(np.float32)
    after = before * np.array([0.9, 1.1, 1.0], np.float32) + np.array([5, -30, 12], np.float32)
    after[:100] = rng.normal(0, 60, (100, 3))
    matrix = fit_affine(before, after)
    fitted = before @ matrix[:3] + matrix[3]
    assert np.abs(fitted - after)[100:].mean() < 1
