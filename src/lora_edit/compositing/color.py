"""Removes the autoencoder's colour shift, measured where the answer is known.

Models return a kept region a little darker, paler or tinted. One gain and one offset per channel bring the ring around the
edit back to the source; the same correction then holds for the edit itself.
"""

from __future__ import annotations

import numpy as np
import torch

from lora_edit.types import Float64Array

MIN_PIXELS = 200
"""Known pixels below which nothing is corrected."""

GAIN_RANGE = (0.8, 1.25)
MAX_OFFSET = 24.0
"""Bounds of the correction; the offset is in levels of 255, at the mean colour."""

TEMPORAL_SIGMA = 8.0
"""Frames over which the measurement is smoothed, so that the correction does not flicker."""

RIDGE = 25.0
"""Pulls the gain to 1 where the known pixels have little contrast (variance in squared levels)."""


def match_colour(generated: torch.Tensor, reference: torch.Tensor, known_mask: torch.Tensor) -> torch.Tensor:
    """`generated` with its colours matched to `reference` (both `[T, H, W, 3]`, uint8 or float in 0..255).

    The shift is measured over the pixels of the bool mask `where` (`[T, H, W]`) where `reference` is the right answer:
    least squares per channel over inliers, smoothed over time, bounded to `GAIN` and `OFFSET`. With fewer than 200 such
    pixels the input is returned unchanged.
    """
    if int(known_mask.sum()) < MIN_PIXELS:
        return generated
    sums = np.stack([_compute_frame_sums(*frames) for frames in zip(generated, reference, known_mask, strict=True)])
    out = torch.empty_like(generated)
    for index, (gain, offset) in enumerate(_compute_corrections(sums)):
        corrected = generated[index].float() * gain + offset
        if generated.dtype == torch.uint8:
            corrected = corrected.round().clamp(0, 255)
        out[index] = corrected.to(generated.dtype)
    return out


def _compute_frame_sums(generated: torch.Tensor, reference: torch.Tensor, known_mask: torch.Tensor) -> Float64Array:
    """`[3, 5]`: count, sums of x, y, x x and x y over one frame's inliers, per channel (x generated, y reference)."""
    x, y = (frame[known_mask].numpy().astype(np.float64) for frame in (generated, reference))
    sums = np.zeros((3, 5))
    for channel in range(3 if len(x) else 0):
        a, b = x[:, channel], y[:, channel]
        away = np.abs(b - a - np.median(b - a))
        # Clipped values say nothing about a shift; values far from the others are objects, not colour.
        inlier = (away <= 3 * np.median(away) + 4) & (a > 0) & (a < 255) & (b > 0) & (b < 255)
        a, b = a[inlier], b[inlier]
        sums[channel] = len(a), a.sum(), b.sum(), (a * a).sum(), (a * b).sum()
    return sums


def _compute_corrections(sums: Float64Array) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Gain and offset `[3]` per frame from `[T, 3, 5]` sums, each frame's sums joined with its neighbours'."""
    at = np.arange(len(sums))
    weights = np.exp(-0.5 * ((at[:, None] - at[None, :]) / TEMPORAL_SIGMA) ** 2)
    whole = sums.sum(0)
    result = []
    for row in weights:
        near = np.tensordot(row, sums, axes=1)
        # Frames without known pixels of their own, or of their neighbours, take the clip's correction.
        near = np.where(near[:, :1] >= MIN_PIXELS / 4, near, whole)
        gain, offset = _solve_gain_offset(near)
        result.append((torch.from_numpy(gain).float(), torch.from_numpy(offset).float()))
    return result


def _solve_gain_offset(sums: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Bounded gain and offset per channel of `y = gain * x + offset`."""
    count = np.maximum(sums[:, 0], 1)
    mean_x, mean_y = sums[:, 1] / count, sums[:, 2] / count
    variance = sums[:, 3] / count - mean_x**2
    covariance = sums[:, 4] / count - mean_x * mean_y
    gain = np.clip((covariance + RIDGE) / (np.maximum(variance, 0) + RIDGE), *GAIN_RANGE)
    shift = np.clip(mean_y - mean_x, -MAX_OFFSET, MAX_OFFSET)
    return gain, mean_x + shift - gain * mean_x
