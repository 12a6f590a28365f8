"""Flicker: what changes from frame to frame beyond motion."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch

from lora_edit.errors import VideoError
from lora_edit.evaluation.checks import as_array, get_frame_mask, require_pixels
from lora_edit.types import BoolArray, Float32Array, UInt8Array
from lora_edit.video.flow import OpticalFlow, build_pixel_grid, resize_motion, sample_image

FLOW_ROWS = (256, 720)
"""Rows of the pictures that the flow is computed on."""


def flicker(result: torch.Tensor, where: torch.Tensor | None = None, on_frame: Callable[[int, int], None] = lambda *_: None) -> float:
    """Mean absolute difference, in levels of 255, between each frame and the one before it moved along the clip's own motion.

    `result` is `[T, H, W, 3]` uint8. Frame t - 1 is warped to frame t along DIS optical flow; pixels that were covered or out
    of sight in frame t - 1 (forward and backward flow disagree) do not count, nor do those outside `where` (bool `[T, H, W]`)
    in frame t. 0 is a clip in which everything only moves; resampling alone leaves some tenths of a level on fine texture. Not
    a number when no pixel could be followed. Raises `VideoError` for fewer than two frames, `MaskError` when `where` does not
    fit or is empty from the second frame on. `on_frame` is told how many of the pairs are done.
    """
    if len(result) < 2:
        raise VideoError("a clip of one frame cannot flicker; give at least two frames")
    if where is not None:
        require_pixels(where, result)
        require_pixels(where[1:], result[1:])
    flow = OpticalFlow(result.shape[1], result.shape[2], FLOW_ROWS)
    total, count = 0.0, 0
    before, grey_before = as_array(result[0]), flow.to_grey(result[0])
    for index in range(1, len(result)):
        now, grey = as_array(result[index]), flow.to_grey(result[index])
        wanted = get_frame_mask(where, result, index)
        if wanted.any():
            back, seen = flow.compute_backward_flow(grey, grey_before)
            judged = wanted & _resize_mask(seen, wanted.shape)
            difference = now[judged] - _warp(before, back)[judged]
            total += float(np.abs(difference).mean(-1).sum())
            count += len(difference)
        before, grey_before = now, grey
        on_frame(index, len(result) - 1)
    return total / count if count else math.nan


def _warp(picture: UInt8Array, back: Float32Array) -> Float32Array:
    """`picture` `[H, W, 3]` moved along `back` `[h, w, 2]`, in floats: rounding to levels would count as flicker."""
    height, width = picture.shape[:2]
    return np.clip(sample_image(picture, build_pixel_grid(height, width) + resize_motion(back, height, width), cv2.INTER_CUBIC), 0, 255)


def _resize_mask(mask: BoolArray, shape: tuple[int, ...]) -> BoolArray:
    large = cv2.resize(mask.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(large, bool)
