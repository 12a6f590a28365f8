"""Removal of the autoencoder's colour shift, measured on pixels with a known result.

Models return a given region slightly darker, paler or tinted. One gain and one offset per channel restore the source's colours
in the ring around the edit; the same correction is applied to the edit itself.
"""

from __future__ import annotations

import numpy as np
import torch

from lora_edit.types import Float64Array

MIN_PIXELS = 200
"""Smallest number of known pixels for a correction."""

GAIN_RANGE = (0.8, 1.25)
MAX_OFFSET = 24.0
"""Bounds of the correction. The offset is in levels of 255, at the mean colour."""

TEMPORAL_SIGMA = 8.0
"""Standard deviation, in frames, of the smoothing over time that keeps the correction from flickering."""

RIDGE = 25.0
"""Regularization of the gain toward 1 where the known pixels have little contrast (variance in squared levels)."""


def match_colour(generated: torch.Tensor, reference: torch.Tensor, known_mask: torch.Tensor) -> torch.Tensor:
    """Match the colours of `generated` to `reference` (both `[T, H, W, 3]`, uint8 or float in 0..255).

    The shift is measured over the pixels of the bool mask `known_mask` `[T, H, W]`, where `reference` is the correct result:
    least squares per channel over inliers, smoothed over time, bounded to `GAIN_RANGE` and `MAX_OFFSET`. With fewer than
    `MIN_PIXELS` such pixels, `generated` is returned unchanged.
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
    """Compute per channel `[3, 5]` the count and the sums of x, y, x x and x y over one frame's inliers (x generated, y reference)."""
    x, y = (frame[known_mask].numpy().astype(np.float64) for frame in (generated, reference))
    sums = np.zeros((3, 5))
    for channel in range(3 if len(x) else 0):
        a, b = x[:, channel], y[:, channel]
        deviation = np.abs(b - a - np.median(b - a))
        # Clipped values carry no information about a shift; outliers are objects, not colour shifts.
        inlier = (deviation <= 3 * np.median(deviation) + 4) & (a > 0) & (a < 255) & (b > 0) & (b < 255)
        a, b = a[inlier], b[inlier]
        sums[channel] = len(a), a.sum(), b.sum(), (a * a).sum(), (a * b).sum()
    return sums


def _compute_corrections(sums: Float64Array) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Compute gain and offset `[3]` per frame from sums `[T, 3, 5]`, each frame's sums smoothed with its neighbours'."""
    times = np.arange(len(sums))
    weights = np.exp(-0.5 * ((times[:, None] - times[None, :]) / TEMPORAL_SIGMA) ** 2)
    clip_sums = sums.sum(0)
    corrections = []
    for row in weights:
        smoothed = np.tensordot(row, sums, axes=1)
        # Frames without known pixels in them or their neighbours use the correction of the whole clip.
        smoothed = np.where(smoothed[:, :1] >= MIN_PIXELS / 4, smoothed, clip_sums)
        gain, offset = _solve_gain_offset(smoothed)
        corrections.append((torch.from_numpy(gain).float(), torch.from_numpy(offset).float()))
    return corrections


def _solve_gain_offset(sums: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Solve `y = gain * x + offset` per channel, with bounded gain and offset."""
    count = np.maximum(sums[:, 0], 1)
    mean_x, mean_y = sums[:, 1] / count, sums[:, 2] / count
    variance = sums[:, 3] / count - mean_x**2
    covariance = sums[:, 4] / count - mean_x * mean_y
    gain = np.clip((covariance + RIDGE) / (np.maximum(variance, 0) + RIDGE), *GAIN_RANGE)
    shift = np.clip(mean_y - mean_x, -MAX_OFFSET, MAX_OFFSET)
    return gain, mean_x + shift - gain * mean_x
