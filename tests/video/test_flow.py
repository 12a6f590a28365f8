"""Tests of optical flow and of chaining it back to frame 0."""

from __future__ import annotations

import numpy as np
import torch

from lora_edit.video.flow import OpticalFlow, chain_flow_to_first


def make_sliding_clip(count: int, step: int) -> torch.Tensor:
    """Make a clip of a smooth random image that slides to the right."""
    coarse = torch.rand(1, 3, 12, 24, generator=torch.Generator().manual_seed(0))
    wide = (torch.nn.functional.interpolate(coarse, size=(72, 144), mode="bicubic").clamp(0, 1)[0] * 255).to(torch.uint8).permute(1, 2, 0)
    return torch.stack([wide[:, 40 - step * t : 136 - step * t] for t in range(count)])


def test_chained_flow_follows_translation() -> None:
    """Three pixels per frame, chained over four frames."""
    positions = list(chain_flow_to_first(make_sliding_clip(5, 3)))
    x = np.arange(96)
    assert np.abs(positions[4][20:50, 30:80, 0] - (x - 12)[30:80]).mean() < 0.5
    assert np.abs(positions[4][20:50, 30:80, 1] - np.arange(20, 50)[:, None]).mean() < 0.5
    assert np.array_equal(positions[0][..., 0], np.broadcast_to(x, (72, 96)))


def test_entering_pixels_are_inconsistent() -> None:
    """The strip that enters the frame was not visible before."""
    frames = make_sliding_clip(2, 12)
    flow = OpticalFlow(72, 96, (256, 480))
    _, consistent = flow.compute_backward_flow(flow.to_grey(frames[1]), flow.to_grey(frames[0]))
    scale = flow.size[0] / 96
    assert consistent[:, int(40 * scale) : int(80 * scale)].mean() > 0.9
    assert consistent[:, : int(6 * scale)].mean() < 0.5
