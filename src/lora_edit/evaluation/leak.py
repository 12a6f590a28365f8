"""Leak: does the region show the source's colours again instead of the edit's?

The colours of a region are a histogram over CIELAB, blurred a little so that a small change of light stays a small change. With
`e` the histogram of the edited first frame, `s` that of the source in the same frame and `r` that of the result, leak is the
place of `r` on the way from `e` to `s`:

    leak = (r - e) . (s - e) / |s - e|^2, limited to [0, 1]

0 is the edit's look, 1 the source's. When a third of the region's pixels turn back into the source, leak is a third; colours
that belong to neither give about a half. What the region shows of an unchanged background is in all three and cancels out, as long
as it stays in sight.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch

from lora_edit.errors import MaskError
from lora_edit.evaluation.checks import as_array, get_frame_mask, require_pixels, require_same_shape
from lora_edit.types import BoolArray, Float32Array, UInt8Array

BINS = 16
"""Bins for each of L, a and b over OpenCV's 0..255; one is 6 units of L, 16 of a and of b."""

MIN_COLOUR_DIFFERENCE = 0.02
"""When |s - e|^2 is below this share of |s|^2 + |e|^2, the edit keeps the source's colours and leak cannot be told."""


def leak(result: torch.Tensor, source: torch.Tensor, edited_first: torch.Tensor, mask: torch.Tensor) -> float:
    """How far the region's colours went from the edit's look (0) to the source's (1): the mean over the frames after the first.

    `result` and `source` are `[T, H, W, 3]` uint8, `edited_first` is `[H, W, 3]`, `mask` bool `[T, H, W]`; frames without a region
    do not count. Not a number when no frame after the first can be told, see `ALIKE`. Raises `VideoError` when the clips or the
    first frame differ in size, `MaskError` when the mask does not fit or is empty in the first frame.
    """
    require_same_shape(result, source, "source")
    require_same_shape(result[:1], edited_first[None], "edited first frame")
    require_pixels(mask, result)
    if not mask[0].any():
        raise MaskError("the mask is empty in the first frame, so the edit's look is unknown; mark the edit there too")
    edit = _compute_histogram(as_array(edited_first), get_frame_mask(mask, result, 0))
    shares = []
    for index in range(1, len(result)):
        region = get_frame_mask(mask, result, index)
        if region.any():
            shares.append(
                _compute_leak(
                    _compute_histogram(as_array(result[index]), region), edit, _compute_histogram(as_array(source[index]), region)
                )
            )
    told = [share for share in shares if share is not None]
    return sum(told) / len(told) if told else math.nan


def _compute_leak(result: Float32Array, edit: Float32Array, source: Float32Array) -> float | None:
    way = source - edit
    length = float((way**2).sum())
    if length < MIN_COLOUR_DIFFERENCE * float((source**2).sum() + (edit**2).sum()):
        return None
    return min(max(float(((result - edit) * way).sum()) / length, 0.0), 1.0)


def _compute_histogram(frame: UInt8Array, region: BoolArray) -> Float32Array:
    """Share of the region's pixels in each colour bin, blurred along each axis: `[BINS, BINS, BINS]`."""
    # OpenCV takes one column of pixels as a picture.
    lab = cv2.cvtColor(frame[region][:, None], cv2.COLOR_RGB2LAB)[:, 0]
    bins = (lab // (256 // BINS)).astype(np.int64) @ np.array([BINS * BINS, BINS, 1])
    counts = np.bincount(bins, minlength=BINS**3).reshape(BINS, BINS, BINS) / len(lab)
    for axis in range(3):
        # A neighbour beyond the outermost bin is that bin itself, so that no share is lost.
        ahead, behind = (np.take(counts, np.clip(np.arange(BINS) + step, 0, BINS - 1), axis) for step in (1, -1))
        counts = (ahead + 2 * counts + behind) / 4
    return np.asarray(counts, np.float32)
