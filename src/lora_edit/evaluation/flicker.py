"""Flicker: the change from frame to frame beyond motion."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch

from lora_edit.errors import VideoError
from lora_edit.evaluation.checks import as_array, get_frame_mask, require_pixels
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.types import BoolArray, Float32Array, UInt8Array
from lora_edit.video.flow import OpticalFlow, build_pixel_grid, resize_motion, sample_image

FLOW_ROWS = (256, 720)
"""Bounds of the height, in pixels, at which the flow is computed."""


def measure_flicker(inputs: MetricInputs) -> float | None:
    """Flicker of the region; None for a single frame, or without a region behind the first frame."""
    frames, region = inputs.result.frames, inputs.region
    if len(frames) < 2 or (region is not None and not region[1:].any()):
        return None
    return flicker(frames, region)


def flicker(result: torch.Tensor, where: torch.Tensor | None = None, on_frame: Callable[[int, int], None] = lambda *_: None) -> float:
    """Compute the mean absolute difference, in levels of 255, between each frame and the previous one, warped along the motion.

    `result` is `[T, H, W, 3]` uint8. Frame t - 1 is warped to frame t along DIS optical flow. Pixels that were occluded or outside
    frame t - 1 (forward and backward flow disagree) do not count, nor do those outside `where` (bool `[T, H, W]`) in frame t. A clip
    in which everything only moves has 0; resampling alone leaves some tenths of a level on fine texture. NaN when no pixel can be
    followed. Raises `VideoError` for fewer than two frames, `MaskError` when `where` does not fit or is empty from the second frame
    on. `on_frame` is called after each pair of frames with the number of pairs that are done and of all pairs.
    """
    if len(result) < 2:
        raise VideoError("a clip of one frame cannot flicker; give at least two frames")
    if where is not None:
        require_pixels(where, result)
        require_pixels(where[1:], result[1:])
    flow = OpticalFlow(result.shape[1], result.shape[2], FLOW_ROWS)
    total, count = 0.0, 0
    previous, previous_grey = as_array(result[0]), flow.to_grey(result[0])
    for index in range(1, len(result)):
        frame, grey = as_array(result[index]), flow.to_grey(result[index])
        inside = get_frame_mask(where, result, index)
        if inside.any():
            backward_flow, is_visible = flow.compute_backward_flow(grey, previous_grey)
            measured = inside & _resize_mask(is_visible, inside.shape)
            difference = frame[measured] - _warp(previous, backward_flow)[measured]
            total += float(np.abs(difference).mean(-1).sum())
            count += len(difference)
        previous, previous_grey = frame, grey
        on_frame(index, len(result) - 1)
    return total / count if count else math.nan


def _warp(picture: UInt8Array, backward_flow: Float32Array) -> Float32Array:
    """Warp `picture` `[H, W, 3]` along `backward_flow` `[h, w, 2]`, in floats because rounding to levels would count as flicker."""
    height, width = picture.shape[:2]
    positions = build_pixel_grid(height, width) + resize_motion(backward_flow, height, width)
    return np.clip(sample_image(picture, positions, cv2.INTER_CUBIC), 0, 255)


def _resize_mask(mask: BoolArray, shape: tuple[int, ...]) -> BoolArray:
    resized = cv2.resize(mask.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, bool)
