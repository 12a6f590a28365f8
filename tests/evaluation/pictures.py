"""Pictures with known values of the metrics."""

from __future__ import annotations

import torch


def texture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Make a smooth random picture, `[H, W, 3]` uint8 in 32..224."""
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth[0] * 192 + 32).to(torch.uint8).permute(1, 2, 0).contiguous()


def still(num_frames: int = 3, height: int = 48, width: int = 64, seed: int = 0) -> torch.Tensor:
    """Make a still clip, `[T, H, W, 3]` uint8."""
    return texture(height, width, seed).repeat(num_frames, 1, 1, 1)


def box(frames: torch.Tensor) -> torch.Tensor:
    """Make a mask `[T, H, W]` for `frames` with the same rectangle in each frame."""
    mask = torch.zeros(frames.shape[:3], dtype=torch.bool)
    mask[:, 10:30, 12:40] = True
    return mask
