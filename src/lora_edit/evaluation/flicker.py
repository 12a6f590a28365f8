"""Flicker: what changes from frame to frame beyond motion."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.errors import VideoError
from lora_edit.evaluation.checks import Bools, Bytes, as_array, inside, require_pixels

Floats = npt.NDArray[np.float32]

FLOW_ROWS = (256, 720)
"""Rows of the pictures that the flow is computed on: DIS is poor on smaller ones and slow on larger ones."""

NARROWEST = 32
"""Columns that DIS needs at least."""

CONSISTENT = (0.5, 0.01)
"""A pixel was seen before when |back + forth|^2 is at most this much, plus this share of |back|^2 + |forth|^2
(Sundaram, Brox and Keutzer, 2010; in flow pixels)."""


def flicker(result: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """Mean absolute difference, in levels of 255, between each frame and the one before it moved along the clip's own motion.

    `result` is `[T, H, W, 3]` uint8. Frame t - 1 is warped to frame t along DIS optical flow; pixels that were covered or out
    of sight in frame t - 1 (forward and backward flow disagree) do not count, nor do those outside `where` (bool `[T, H, W]`)
    in frame t. 0 is a clip in which everything only moves; resampling alone leaves some tenths of a level on fine texture. Not
    a number when no pixel could be followed. Raises `VideoError` for fewer than two frames, `MaskError` when `where` does not
    fit or is empty from the second frame on.
    """
    if len(result) < 2:
        raise VideoError("a clip of one frame cannot flicker; give at least two frames")
    if where is not None:
        require_pixels(where, result)
        require_pixels(where[1:], result[1:])
    small = _flow_size(result.shape[1], result.shape[2])
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    total, count = 0.0, 0
    before, grey_before = as_array(result[0]), _grey(as_array(result[0]), small)
    for index in range(1, len(result)):
        now = as_array(result[index])
        grey = _grey(now, small)
        wanted = inside(where, result, index)
        if wanted.any():
            back, seen = _back_flow(flow, grey, grey_before)
            judged = wanted & _as_large(seen, wanted.shape)
            difference = now[judged] - _warp(before, back)[judged]
            total += float(np.abs(difference).mean(-1).sum())
            count += len(difference)
        before, grey_before = now, grey
    return total / count if count else math.nan


def _flow_size(height: int, width: int) -> tuple[int, int]:
    """Width and height of the pictures for the flow."""
    scale = max(min(max(height, FLOW_ROWS[0]), FLOW_ROWS[1]) / height, NARROWEST / width)
    return round(width * scale), round(height * scale)


def _grey(frame: Bytes, size: tuple[int, int]) -> Bytes:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_CUBIC if size[1] > grey.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(grey, size, interpolation=method), np.uint8)


def _back_flow(flow: cv2.DISOpticalFlow, now: Bytes, before: Bytes) -> tuple[Floats, Bools]:
    """Motion `[h, w, 2]` from each pixel of `now` to `before`, and whether it was in sight there `[h, w]`."""
    back = np.asarray(flow.calc(now, before, None), np.float32)  # type: ignore[call-overload]
    forth = np.asarray(flow.calc(before, now, None), np.float32)  # type: ignore[call-overload]
    there = _grid(*now.shape) + back
    returned = _sample(forth, there, cv2.INTER_LINEAR)
    length = (back**2).sum(-1) + (returned**2).sum(-1)
    agrees = ((back + returned) ** 2).sum(-1) <= CONSISTENT[0] + CONSISTENT[1] * length
    # Half a pixel beyond the outermost centres is still the picture.
    within = ((there >= -0.5) & (there <= np.array([now.shape[1], now.shape[0]]) - 0.5)).all(-1)
    return back, np.asarray(agrees & within, bool)


def _warp(picture: Bytes, back: Floats) -> Floats:
    """`picture` `[H, W, 3]` moved along `back` `[h, w, 2]`, in floats: rounding to levels would count as flicker."""
    height, width = picture.shape[:2]
    ratio = np.array([width / back.shape[1], height / back.shape[0]], np.float32)
    motion = cv2.resize(back, (width, height), interpolation=cv2.INTER_LINEAR) * ratio
    return np.clip(_sample(picture.astype(np.float32), _grid(height, width) + motion, cv2.INTER_CUBIC), 0, 255)


def _as_large(seen: Bools, shape: tuple[int, ...]) -> Bools:
    large = cv2.resize(seen.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(large, bool)


def _grid(height: int, width: int) -> Floats:
    """`[h, w, 2]`: each pixel's own x and y."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def _sample(picture: Floats, positions: npt.NDArray[np.floating], method: int) -> Floats:
    x, y = (np.ascontiguousarray(positions[..., axis], np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(picture, x, y, method, borderMode=cv2.BORDER_REPLICATE), np.float32)
