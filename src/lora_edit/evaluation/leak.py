"""Leak: the return of the source's colours in the region.

The colours of a region are a histogram over CIELAB, blurred a little so that a small change of light stays a small change. With
`e` the histogram of the edited first frame, `s` that of the source in the measured frame and `r` that of the result in that frame,
leak is the position of `r` between `e` and `s`:

    leak = (r - e) . (s - e) / |s - e|^2, limited to [0, 1]

0 is the appearance of the edit, 1 that of the source. When a third of the region's pixels turn back into the source, leak is a third;
colours that belong to neither give about a half. An unchanged background inside the region is in all three histograms and cancels out
while it stays visible.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch

from lora_edit.errors import MaskError
from lora_edit.evaluation.checks import as_array, get_frame_mask, require_pixels, require_same_shape
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.types import BoolArray, Float32Array, UInt8Array

BINS = 16
"""Bins for each of L, a and b over OpenCV's 0..255; one bin spans 6 units of L, 16 of a and 16 of b."""

MIN_COLOUR_DIFFERENCE = 0.02
"""When |s - e|^2 is below this share of |s|^2 + |e|^2, the edit keeps the source's colours and leak is undefined."""


def measure_leak(inputs: MetricInputs) -> float | None:
    """Leak of the result; None without an edited first frame, a mask, or a region in the first frame."""
    region = inputs.region
    if inputs.first_frame is None or region is None or not region[0].any():
        return None
    return leak(inputs.result.frames, inputs.source.frames, inputs.first_frame, region)


def leak(result: torch.Tensor, source: torch.Tensor, edited_first: torch.Tensor, mask: torch.Tensor) -> float:
    """Compute how far the region's colours moved from the edit (0) to the source (1): the mean over the frames after the first.

    `result` and `source` are `[T, H, W, 3]` uint8, `edited_first` is `[H, W, 3]`, `mask` bool `[T, H, W]`; frames without a region
    do not count. NaN when leak is undefined in every frame after the first, see `MIN_COLOUR_DIFFERENCE`. Raises `VideoError` when the
    clips or the first frame differ in size, `MaskError` when the mask does not fit or is empty in the first frame.
    """
    require_same_shape(result, source, "source")
    require_same_shape(result[:1], edited_first[None], "edited first frame")
    require_pixels(mask, result)
    if not mask[0].any():
        raise MaskError("the mask is empty in the first frame, so the look of the edit is unknown; mark the edit in that frame too")
    edit = _compute_histogram(as_array(edited_first), get_frame_mask(mask, result, 0))
    shares = []
    for index in range(1, len(result)):
        region = get_frame_mask(mask, result, index)
        if region.any():
            histograms = [_compute_histogram(as_array(clip[index]), region) for clip in (result, source)]
            shares.append(_compute_leak(histograms[0], edit, histograms[1]))
    defined = [share for share in shares if share is not None]
    return sum(defined) / len(defined) if defined else math.nan


def _compute_leak(result: Float32Array, edit: Float32Array, source: Float32Array) -> float | None:
    direction = source - edit
    squared_length = float((direction**2).sum())
    if squared_length < MIN_COLOUR_DIFFERENCE * float((source**2).sum() + (edit**2).sum()):
        return None
    return min(max(float(((result - edit) * direction).sum()) / squared_length, 0.0), 1.0)


def _compute_histogram(frame: UInt8Array, region: BoolArray) -> Float32Array:
    """Compute the share of the region's pixels in each colour bin, blurred along each axis: `[BINS, BINS, BINS]`."""
    # OpenCV converts pictures only, so the pixels become a picture of one column.
    lab = cv2.cvtColor(frame[region][:, None], cv2.COLOR_RGB2LAB)[:, 0]
    bins = (lab // (256 // BINS)).astype(np.int64) @ np.array([BINS * BINS, BINS, 1])
    counts = np.bincount(bins, minlength=BINS**3).reshape(BINS, BINS, BINS) / len(lab)
    for axis in range(3):
        # A neighbour beyond the outermost bin is that bin itself, so that no share is lost.
        following, preceding = (np.take(counts, np.clip(np.arange(BINS) + step, 0, BINS - 1), axis) for step in (1, -1))
        counts = (following + 2 * counts + preceding) / 4
    return np.asarray(counts, np.float32)
