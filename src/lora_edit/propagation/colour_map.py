"""Classical baseline for recolouring: one affine colour map, fitted on the first frame and applied to the source's pixels."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.propagation.change_detection import find_changed_pixels
from lora_edit.types import BoolArray, EditMask, Float32Array, UInt8Array

NUM_ITERATIONS = 10
"""Rounds of iteratively reweighted least squares."""

OUTLIER_SCALE = 4.685
"""Robust standard deviations above which Tukey's biweight ignores a residual."""

RIDGE = 4.0
"""Regularization of the map toward a shift where the object has little contrast (variance in squared CIELAB units)."""

NUM_BINS = 24
"""Bins per channel of the colour histograms."""

HISTOGRAM_SIGMA = 1.0
"""Standard deviation, in bins, of the histograms' blur."""


def apply_colour_map(source: torch.Tensor, edited_first: torch.Tensor, mask: EditMask) -> torch.Tensor:
    """Apply one affine CIELAB map to the source `[T, H, W, 3]` uint8 inside the mask. Returns `[T, H, W, 3]` uint8.

    The map is fitted robustly (Tukey's biweight) to the pixels of frame 0 that `edited_first` `[H, W, 3]` changes within the mask. Its
    effect on a colour is proportional to the share of that colour's pixels in the mask that the edit changes, so unchanged colours are
    kept. Frame 0 of the output is the edited frame inside the mask. If `edited_first` changes nothing, the source is returned.
    """
    out, region = source.clone(), mask.frames[0].numpy()
    first, edited = source[0].numpy(), edited_first.numpy()
    changed = find_changed_pixels(first, edited, region)
    if not changed.any():
        return out
    out[0][mask.frames[0]] = edited_first[mask.frames[0]]
    lab = _convert_to_lab(first)
    matrix = fit_affine(lab[changed], _convert_to_lab(edited)[changed])
    shares = _compute_changed_shares(first, changed, region)
    for index in range(1, len(source)):
        inside = mask.frames[index]
        if inside.any():
            out[index][inside] = torch.from_numpy(_apply_affine(source[index].numpy()[inside.numpy()], matrix, shares))
    return out


def fit_affine(before: Float32Array, after: Float32Array) -> Float32Array:
    """Fit the matrix `[4, 3]` that maps homogeneous colours `before` `[N, 3]` to `after` `[N, 3]`, robust against outliers."""
    centre = np.median(before, 0)
    centred = np.column_stack([before - centre, np.ones(len(before))]).astype(np.float64)
    change = (after - before).astype(np.float64)
    weights = np.ones(len(before))
    penalty = np.diag([RIDGE, RIDGE, RIDGE, 0.0])
    solution = np.zeros((4, 3))
    for _ in range(NUM_ITERATIONS):
        weighted = centred * weights[:, None]
        # The small term keeps the system solvable when every weight is 0.
        solution = np.linalg.solve(weighted.T @ centred + penalty * weights.sum() / 10 + 1e-6 * np.eye(4), weighted.T @ change)
        distance = np.linalg.norm(change - centred @ solution, axis=1)
        scale = max(1.4826 * float(np.median(distance)), 1.0)
        weights = np.square(1 - np.minimum(distance / (OUTLIER_SCALE * scale), 1) ** 2)
    matrix = solution + np.eye(4)[:, :3]
    matrix[3] = solution[3] + centre - centre @ matrix[:3]
    return matrix.astype(np.float32)


def _apply_affine(colours: UInt8Array, matrix: Float32Array, shares: Float32Array) -> UInt8Array:
    """Map colours `[N, 3]`, each in proportion to its changed share."""
    mapped = _convert_to_lab(colours[None])[0] @ matrix[:3] + matrix[3]
    rgb = cv2.cvtColor(mapped[None].astype(np.float32), cv2.COLOR_Lab2RGB)[0] * 255
    share = shares[tuple(_compute_bins(colours).T)][:, None]
    return np.asarray((colours + (rgb - colours) * share).round().clip(0, 255), np.uint8)


def _compute_changed_shares(first_frame: UInt8Array, changed_mask: BoolArray, region: BoolArray) -> Float32Array:
    """Compute, per colour bin `[NUM_BINS, NUM_BINS, NUM_BINS]`, the share of its pixels in the region that the edit changes, in [0, 1]."""
    counts = [_compute_histogram(first_frame[mask]) for mask in (changed_mask, region & ~changed_mask)]
    share = np.asarray((counts[0] + 1e-4) / (counts[0] + counts[1] + 1e-4), np.float32)
    # Bins at the border between changed and unchanged colours are blended; shares near 0 or 1 saturate.
    return np.clip((share - 0.2) / 0.6, 0, 1)


def _compute_histogram(colours: UInt8Array) -> Float32Array:
    """Count colours `[N, 3]` per bin and blur the histogram."""
    counts = np.zeros((NUM_BINS,) * 3, np.float32)
    np.add.at(counts, tuple(_compute_bins(colours).T), 1)
    width = 2 * int(3 * HISTOGRAM_SIGMA) + 1
    kernel = cv2.getGaussianKernel(width, HISTOGRAM_SIGMA).ravel()
    for axis in range(3):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel, mode="same").astype(np.float32)
    return counts


def _compute_bins(colours: UInt8Array) -> npt.NDArray[np.intp]:
    return (colours.astype(np.intp) * NUM_BINS) // 256


def _convert_to_lab(image: UInt8Array) -> Float32Array:
    """Convert sRGB in 0..255 to CIELAB (D65), L in 0..100."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
