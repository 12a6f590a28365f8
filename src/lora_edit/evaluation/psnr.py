"""Peak signal-to-noise ratio: how far pixels are from the right ones, in decibels."""

from __future__ import annotations

import math

import numpy as np
import torch

from lora_edit.evaluation.checks import iterate_frames
from lora_edit.types import BoolArray, UInt8Array

PEAK = 255


def psnr(result: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """PSNR in dB of `result` against `truth`, both `[T, H, W, 3]` uint8; infinite when they are equal.

    The squared error is averaged over all channels, pixels and frames inside `where` (bool `[T, H, W]`, everything when None)
    before the logarithm is taken, so that one perfect frame does not outweigh the others. Raises `VideoError` when the clips
    differ in size or length, `MaskError` when `where` does not fit or is empty.
    """
    sums = [_sum_squared_error(*frame) for frame in iterate_frames(result, truth, where)]
    return _to_decibels(sum(total for total, _ in sums), sum(count for _, count in sums))


def psnr_per_frame(result: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> list[float]:
    """`psnr` of each frame by itself; not a number for frames in which `where` is empty."""
    return [_to_decibels(*_sum_squared_error(*frame)) for frame in iterate_frames(result, truth, where)]


def _sum_squared_error(result: UInt8Array, truth: UInt8Array, where: BoolArray) -> tuple[int, int]:
    """Sum of squares and number of values, exact."""
    difference = result[where].astype(np.int32) - truth[where]
    return int(np.sum(difference**2, dtype=np.int64)), difference.size


def _to_decibels(total: int, count: int) -> float:
    if count == 0:
        return math.nan
    return 10 * math.log10(PEAK**2 * count / total) if total else math.inf
