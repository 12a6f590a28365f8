"""Classical baseline for added or replaced objects: the edit as one layer that moves with tracked points."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch

from lora_edit.propagation.change_detection import extract_layer, find_changed_pixels
from lora_edit.types import BoolArray, EditMask, Float32Array, UInt8Array

MAX_POINTS, MIN_POINTS = 300, 40
"""Largest number of tracked points, and the number below which new points are detected."""

MAX_ROUND_TRIP_ERROR = 0.7
"""Largest distance, in pixels, between a point and its position after tracking forward and backward."""

INLIER_THRESHOLD = 1.5
"""Distance from the common motion, in pixels, within which a point is an inlier."""


def composite_moving_layer(source: torch.Tensor, edited_first: torch.Tensor, mask: EditMask) -> torch.Tensor:
    """Composite the change in `edited_first` `[H, W, 3]` over the source `[T, H, W, 3]` uint8, as one soft-edged layer in the mask.

    The layer moves by one similarity transform per frame, fitted by RANSAC to points tracked on the source at the edit (pyramidal
    Lucas-Kanade, forward and backward). Returns `[T, H, W, 3]` uint8; the source where `edited_first` changes nothing.
    """
    out, region = source.clone(), mask.frames[0].numpy()
    first, edited = source[0].numpy(), edited_first.numpy()
    changed = find_changed_pixels(first, edited, region)
    if not changed.any():
        return out
    out[0][mask.frames[0]] = edited_first[mask.frames[0]]
    layer = extract_layer(edited, changed)
    for index, transform in enumerate(track_region(source, changed), 1):
        inside = mask.frames[index].numpy()
        frame = source[index].numpy()
        height, width = inside.shape
        warped = cv2.warpAffine(layer, transform[:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        blended = warped[..., :3] + frame * (1 - warped[..., 3:])
        out[index][mask.frames[index]] = torch.from_numpy(blended[inside].round().clip(0, 255).astype(np.uint8))
    return out


def track_region(frames: torch.Tensor, region: BoolArray) -> Iterator[Float32Array]:
    """Yield, for every frame of `[T, H, W, 3]` uint8 after the first, the similarity `[3, 3]` from frame 0's region `[H, W]` to it.

    Points are tracked from frame to frame and replaced as they are lost. Frame 0, warped by their motion, is then matched with the frame
    itself, so that errors do not accumulate. Without a fitted motion, the previous frame's motion continues.
    """
    greys = (np.asarray(cv2.cvtColor(np.ascontiguousarray(frame.numpy()), cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames)
    first_grey = previous_grey = next(greys)
    start_points = current_points = _detect_corners(first_grey, region)
    transform = step = np.eye(3, dtype=np.float32)
    for grey in greys:
        tracked, reliable = _track_points(previous_grey, grey, current_points)
        start_points, current_points = start_points[reliable], tracked[reliable]
        fitted, inlier = _fit_similarity(start_points, current_points)
        predicted = step @ transform if fitted is None else fitted
        if fitted is not None:
            start_points, current_points = start_points[inlier], current_points[inlier]
        refined = _refine_transform(first_grey, grey, predicted, region)
        previous_transform, transform = transform, predicted if refined is None else refined
        step = (transform @ np.linalg.inv(previous_transform)).astype(np.float32)
        yield transform
        previous_grey = grey
        if len(current_points) < MIN_POINTS:
            start_points, current_points = _replenish_points(grey, transform, region, start_points, current_points)


def _detect_corners(grey: UInt8Array, region: BoolArray) -> Float32Array:
    """Detect trackable points `[N, 2]` (x, y) within a region, or within a margin of 3 or 8 pixels where it has too few."""
    for radius in (0, 3, 8):
        search_mask = cv2.dilate(region.astype(np.uint8), np.ones((2 * radius + 1,) * 2, np.uint8))
        corners = cv2.goodFeaturesToTrack(grey, MAX_POINTS, 0.01, 3, mask=search_mask, blockSize=5)
        if corners is not None and len(corners) >= MIN_POINTS // 4:
            break
    return np.zeros((0, 2), np.float32) if corners is None else np.asarray(corners.reshape(-1, 2), np.float32)


def _track_points(previous_grey: UInt8Array, grey: UInt8Array, points: Float32Array) -> tuple[Float32Array, BoolArray]:
    """Track points into the next frame. Returns their positions `[N, 2]` and a mask `[N]` of reliable ones."""
    if not len(points):
        return points, np.zeros(0, bool)
    window = {"winSize": (15, 15), "maxLevel": 3}
    tracked, forward_status, _ = cv2.calcOpticalFlowPyrLK(previous_grey, grey, points[:, None], None, **window)  # type: ignore[call-overload]
    back_tracked, backward_status, _ = cv2.calcOpticalFlowPyrLK(grey, previous_grey, tracked, None, **window)  # type: ignore[call-overload]
    consistent = np.linalg.norm(back_tracked[:, 0] - points, axis=1) <= MAX_ROUND_TRIP_ERROR
    return np.asarray(tracked[:, 0], np.float32), np.asarray((forward_status[:, 0] > 0) & (backward_status[:, 0] > 0) & consistent, bool)


def _fit_similarity(start_points: Float32Array, current_points: Float32Array) -> tuple[Float32Array | None, BoolArray]:
    """Fit the similarity `[3, 3]` that most points follow. Returns it and a mask of inliers; None with fewer than four of them."""
    if len(start_points) < 4:
        return None, np.zeros(len(start_points), bool)
    matrix, inlier = cv2.estimateAffinePartial2D(
        start_points, current_points, method=cv2.RANSAC, ransacReprojThreshold=INLIER_THRESHOLD, maxIters=2000
    )
    if matrix is None or inlier.sum() < 4:
        return None, np.zeros(len(start_points), bool)
    return np.vstack([matrix, [0, 0, 1]]).astype(np.float32), np.asarray(inlier[:, 0] > 0, bool)


def _refine_transform(first_grey: UInt8Array, grey: UInt8Array, predicted: Float32Array, region: BoolArray) -> Float32Array | None:
    """Correct the predicted transform by matching the warped frame 0 with the frame itself; None where they do not match."""
    height, width = first_grey.shape
    warped = cv2.warpAffine(first_grey, predicted[:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    warped_region = cv2.warpAffine(region.astype(np.uint8), predicted[:2], (width, height), flags=cv2.INTER_NEAREST) > 0
    points = _detect_corners(np.asarray(warped, np.uint8), warped_region)
    tracked, reliable = _track_points(np.asarray(warped, np.uint8), grey, points)
    matrix, inlier = _fit_similarity(points[reliable], tracked[reliable])
    if matrix is None or inlier.sum() < max(6, 0.4 * len(points)):
        return None
    return np.asarray(matrix @ predicted, np.float32)


def _replenish_points(
    grey: UInt8Array, transform: Float32Array, region: BoolArray, start_points: Float32Array, current_points: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Append new points detected in the region's current position, together with their positions in frame 0."""
    height, width = grey.shape
    warped_region = cv2.warpAffine(region.astype(np.uint8), transform[:2], (width, height), flags=cv2.INTER_NEAREST) > 0
    new_points = _detect_corners(grey, warped_region)
    inverse = np.linalg.inv(transform)
    origins = new_points @ inverse[:2, :2].T + inverse[:2, 2]
    return np.concatenate([start_points, origins]).astype(np.float32), np.concatenate([current_points, new_points]).astype(np.float32)
