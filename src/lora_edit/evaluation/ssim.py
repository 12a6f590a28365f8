"""Structural similarity of two clips (Wang, Bovik, Sheikh and Simoncelli, 2004)."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from lora_edit.evaluation.checks import iterate_frames
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.types import Float64Array, UInt8Array

KERNEL_SIZE = (11, 11)
SIGMA = 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
LUMA = np.array([0.299, 0.587, 0.114])
"""BT.601 weights of red, green and blue."""


def measure_region_ssim(inputs: MetricInputs) -> float:
    """SSIM of the region against the truth, or the source without one."""
    return ssim(inputs.result.frames, inputs.reference.frames, inputs.region)


def measure_background_ssim(inputs: MetricInputs) -> float | None:
    """SSIM of everything outside the region against the source; None without a background."""
    background = inputs.background
    return None if background is None else ssim(inputs.result.frames, inputs.source.frames, background)


def ssim(result: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """Compute the SSIM in [-1, 1] of `result` against `truth`, both `[T, H, W, 3]` uint8; 1 when they are equal.

    The SSIM map is computed on luma with a Gaussian window of 11x11 (standard deviation 1.5; frames are mirrored at their edges) and
    averaged over the pixels of all frames inside `where` (bool `[T, H, W]`, everything when None). Windows at the edge of `where`
    cover pixels on both sides of it. Raises `VideoError` when the clips differ in size or length, `MaskError` when
    `where` does not fit or is empty.
    """
    total, count = 0.0, 0
    for result_frame, truth_frame, inside in iterate_frames(result, truth, where):
        if inside.any():
            total += float(_compute_ssim_map(result_frame, truth_frame)[inside].sum())
            count += int(inside.sum())
    return total / count


def _compute_ssim_map(result: UInt8Array, truth: UInt8Array) -> Float64Array:
    """The SSIM map `[H, W]` of two frames `[H, W, 3]`."""
    x, y = result @ LUMA, truth @ LUMA
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x * mean_x
    variance_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return np.asarray(similarity / ((mean_x * mean_x + mean_y * mean_y + C1) * (variance_x + variance_y + C2)))


def _blur(picture: Float64Array) -> Float64Array:
    return np.asarray(cv2.GaussianBlur(picture, KERNEL_SIZE, SIGMA, borderType=cv2.BORDER_REFLECT), np.float64)
