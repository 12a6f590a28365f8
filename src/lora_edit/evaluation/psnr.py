"""Peak signal-to-noise ratio: the squared error of pixels, in decibels."""

from __future__ import annotations

import math

import numpy as np
import torch

from lora_edit.evaluation.checks import iterate_frames
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.types import BoolArray, UInt8Array

PEAK = 255


def measure_region_psnr(inputs: MetricInputs) -> float:
    """PSNR of the region against the truth, or the source without one."""
    return psnr(inputs.result.frames, inputs.reference.frames, inputs.region)


def measure_background_psnr(inputs: MetricInputs) -> float | None:
    """PSNR of everything outside the region against the source; None without a background."""
    background = inputs.background
    return None if background is None else psnr(inputs.result.frames, inputs.source.frames, background)


def psnr(result: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """Compute the PSNR in dB of `result` against `truth`, both `[T, H, W, 3]` uint8; infinite when they are equal.

    The squared error is averaged over all channels, pixels and frames inside `where` (bool `[T, H, W]`, everything when None)
    before the logarithm is taken, so that one perfect frame does not outweigh the others. Raises `VideoError` when the clips
    differ in size or length, `MaskError` when `where` does not fit or is empty.
    """
    sums = [_sum_squared_error(*frame) for frame in iterate_frames(result, truth, where)]
    return _to_decibels(sum(total for total, _ in sums), sum(count for _, count in sums))


def psnr_per_frame(result: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> list[float]:
    """Compute the `psnr` of each frame; NaN for frames in which `where` is empty."""
    return [_to_decibels(*_sum_squared_error(*frame)) for frame in iterate_frames(result, truth, where)]


def _sum_squared_error(result: UInt8Array, truth: UInt8Array, where: BoolArray) -> tuple[int, int]:
    """The sum of squares and the number of values, both exact."""
    difference = result[where].astype(np.int32) - truth[where]
    return int(np.sum(difference**2, dtype=np.int64)), difference.size


def _to_decibels(total: int, count: int) -> float:
    if count == 0:
        return math.nan
    return 10 * math.log10(PEAK**2 * count / total) if total else math.inf
