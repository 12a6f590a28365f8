"""Temporal smoothing of masks: a majority vote removes flicker.

Frames are aligned by their centroids before the vote, so that a moving object keeps its motion.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from lora_edit.types import EditMask, Float64Array, UInt8Array


def smooth_mask_over_time(mask: EditMask, smoothing_frames: int) -> EditMask:
    """Set each pixel to the majority of the `smoothing_frames` frames around it. 1 disables smoothing; empty frames stay empty."""
    frames = mask.frames.numpy().view(np.uint8)
    centroids = _compute_centroids(frames)
    if smoothing_frames <= 1 or len(centroids) < 2:
        return mask
    out, half = np.zeros_like(frames), smoothing_frames // 2
    for number, centroid in centroids.items():
        neighbours = [each for each in range(number - half, number + half + 1) if each in centroids]
        votes = sum(_shift_frame(frames[each], centroid - centroids[each]).astype(np.int16) for each in neighbours)
        # The frame itself breaks ties.
        out[number] = 2 * votes + frames[number] > len(neighbours)
    return EditMask(torch.from_numpy(out > 0), mask.notes)


def _compute_centroids(frames: UInt8Array) -> dict[int, Float64Array]:
    """Compute the mask's centroid (x, y) for each non-empty frame, by frame number."""
    pixel_positions = ((number, np.nonzero(frame)) for number, frame in enumerate(frames))
    return {number: np.array([x.mean(), y.mean()]) for number, (y, x) in pixel_positions if len(x)}


def _shift_frame(frame: UInt8Array, offset: Float64Array) -> UInt8Array:
    """Shift the frame by whole pixels (x, y)."""
    x, y = (float(value) for value in offset.round())
    shift = np.array([[1, 0, x], [0, 1, y]])
    return np.asarray(cv2.warpAffine(frame, shift, frame.shape[::-1], flags=cv2.INTER_NEAREST), np.uint8)
