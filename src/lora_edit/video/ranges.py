"""Conversion between uint8 frames and pixels in [0, 1] or [-1, 1]; all such conversions are in this module.

Values outside a range are an error of the calling code, so they raise instead of being clamped. `clamp_signed` is for the one place where
overshoot is expected, the output of an autoencoder.
"""

from __future__ import annotations

import torch
from einops import rearrange

TOLERANCE = 1e-3  # rounding errors of floats beyond a range's ends


def to_signed(frames: torch.Tensor) -> torch.Tensor:
    """Convert `[T, H, W, 3]` uint8 to `[3, T, H, W]` float32 in [-1, 1]."""
    return _channels_first(frames) / 127.5 - 1.0


def to_unit(frames: torch.Tensor) -> torch.Tensor:
    """Convert `[T, H, W, 3]` uint8 to `[3, T, H, W]` float32 in [0, 1]."""
    return _channels_first(frames) / 255.0


def to_frames(pixels: torch.Tensor) -> torch.Tensor:
    """Convert `[3, T, H, W]` in [-1, 1] to `[T, H, W, 3]` uint8, rounded. Raises `ValueError` on NaN and on values outside the range."""
    _check_range(pixels, -1.0)
    return _to_bytes((pixels.float() + 1.0) * 127.5)


def unit_to_frames(pixels: torch.Tensor) -> torch.Tensor:
    """Convert `[3, T, H, W]` in [0, 1] to `[T, H, W, 3]` uint8, rounded. Raises `ValueError` on NaN and on values outside the range."""
    _check_range(pixels, 0.0)
    return _to_bytes(pixels.float() * 255.0)


def signed_to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """Map [-1, 1] to [0, 1], any shape."""
    return (pixels + 1.0) / 2.0


def unit_to_signed(pixels: torch.Tensor) -> torch.Tensor:
    """Map [0, 1] to [-1, 1], any shape."""
    return pixels * 2.0 - 1.0


def clamp_signed(pixels: torch.Tensor) -> torch.Tensor:
    """Clamp pixels to [-1, 1], any shape; for the output of decoders, which may overshoot. Raises `ValueError` on NaN."""
    if bool(torch.isnan(pixels).any()):
        raise ValueError("pixels hold NaN")
    return pixels.clamp(-1.0, 1.0)


def _channels_first(frames: torch.Tensor) -> torch.Tensor:
    assert frames.dtype == torch.uint8 and frames.ndim == 4 and frames.shape[-1] == 3
    return rearrange(frames, "t h w c -> c t h w").float()


def _to_bytes(levels: torch.Tensor) -> torch.Tensor:
    assert levels.ndim == 4 and levels.shape[0] == 3
    return rearrange(levels.round().clamp(0.0, 255.0), "c t h w -> t h w c").to(torch.uint8).contiguous()


def _check_range(pixels: torch.Tensor, low: float) -> None:
    smallest, largest = float(pixels.min()), float(pixels.max())
    if not (low - TOLERANCE <= smallest and largest <= 1.0 + TOLERANCE):
        raise ValueError(f"pixels reach from {smallest:.4f} to {largest:.4f}, outside [{low:.0f}, 1]; clamp where overshoot is expected")
