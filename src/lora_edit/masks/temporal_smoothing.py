"""Masks made steadier over time: flicker is voted out.

Frames are compared with their middles laid on one another, so that a moving thing keeps its motion.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from lora_edit.types import EditMask, Float64Array, UInt8Array


def smooth_mask_over_time(mask: EditMask, smoothing_frames: int) -> EditMask:
    """The mask whose every frame is what most of the `window` frames around it say; 1 leaves it as it is, empty frames stay empty."""
    frames = mask.frames.numpy().view(np.uint8)
    middles = _compute_centroids(frames)
    if smoothing_frames <= 1 or len(middles) < 2:
        return mask
    out, reach = np.zeros_like(frames), smoothing_frames // 2
    for number, middle in middles.items():
        near = [each for each in range(number - reach, number + reach + 1) if each in middles]
        votes = sum(_shift_frame(frames[each], middle - middles[each]).astype(np.int16) for each in near)
        # Where the votes are even, the frame itself decides.
        out[number] = 2 * votes + frames[number] > len(near)
    return EditMask(torch.from_numpy(out > 0), mask.notes)


def _compute_centroids(frames: UInt8Array) -> dict[int, Float64Array]:
    """Number of each frame that is not empty, and its mask's middle (x, y)."""
    places = ((number, np.nonzero(frame)) for number, frame in enumerate(frames))
    return {number: np.array([x.mean(), y.mean()]) for number, (y, x) in places if len(x)}


def _shift_frame(frame: UInt8Array, offset: Float64Array) -> UInt8Array:
    """The frame shifted by whole pixels (x, y)."""
    x, y = (float(value) for value in offset.round())
    shift = np.array([[1, 0, x], [0, 1, y]])
    return np.asarray(cv2.warpAffine(frame, shift, frame.shape[::-1], flags=cv2.INTER_NEAREST), np.uint8)
