"""Classical baseline for things that are put on or exchanged: the edit cut out as one layer that moves with tracked points."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch

from lora_edit.propagation.change_detection import extract_layer, find_changed_pixels
from lora_edit.types import BoolArray, EditMask, Float32Array, UInt8Array

MAX_POINTS, MIN_POINTS = 300, 40
"""Points that are tracked at most, and below which new ones are looked for."""

MAX_ROUND_TRIP_ERROR = 0.7
"""Pixels from its start within which a point must come back when it is tracked forward and back again."""

INLIER_THRESHOLD = 1.5
"""Pixels from the common motion within which a point supports it."""


def composite_moving_layer(source: torch.Tensor, edited_first: torch.Tensor, mask: EditMask) -> torch.Tensor:
    """What `edited_first` `[H, W, 3]` changes, as one soft-edged layer over the source `[T, H, W, 3]` uint8 inside the mask.

    The layer moves by one similarity transform per frame, found by RANSAC from points that are tracked on the source's own pixels at the
    edit (pyramidal Lucas-Kanade, forward and backward). Returns `[T, H, W, 3]` uint8; the source where nothing is changed.
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
        below = source[index].numpy()
        height, width = inside.shape
        moved = cv2.warpAffine(layer, transform[:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        drawn = moved[..., :3] + below * (1 - moved[..., 3:])
        out[index][mask.frames[index]] = torch.from_numpy(drawn[inside].round().clip(0, 255).astype(np.uint8))
    return out


def track_region(frames: torch.Tensor, region: BoolArray) -> Iterator[Float32Array]:
    """For every frame of `[T, H, W, 3]` uint8 but the first, the similarity `[3, 3]` that takes the region `[H, W]` of frame 0 there.

    Points are followed from frame to frame and replaced as they are lost; then frame 0, moved by what they say, is matched with the frame
    itself, so that errors do not add up. Where no motion is found it goes on as before.
    """
    greys = (np.asarray(cv2.cvtColor(np.ascontiguousarray(frame.numpy()), cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames)
    first = before = next(greys)
    start = here = _detect_corners(first, region)
    transform = step = np.eye(3, dtype=np.float32)
    for now in greys:
        moved, kept = _track_points(before, now, here)
        start, here = start[kept], moved[kept]
        found, inlier = _fit_similarity(start, here)
        predicted = step @ transform if found is None else found
        if found is not None:
            start, here = start[inlier], here[inlier]
        refined = _refine_transform(first, now, predicted, region)
        previous, transform = transform, predicted if refined is None else refined
        step = (transform @ np.linalg.inv(previous)).astype(np.float32)
        yield transform
        before = now
        if len(here) < MIN_POINTS:
            start, here = _replenish_points(now, transform, region, start, here)


def _detect_corners(grey: UInt8Array, region: BoolArray) -> Float32Array:
    """Points `[N, 2]` (x, y) that can be tracked within a region, a little around it where it has few."""
    for radius in (0, 3, 8):
        near = cv2.dilate(region.astype(np.uint8), np.ones((2 * radius + 1,) * 2, np.uint8))
        found = cv2.goodFeaturesToTrack(grey, MAX_POINTS, 0.01, 3, mask=near, blockSize=5)
        if found is not None and len(found) >= MIN_POINTS // 4:
            break
    return np.zeros((0, 2), np.float32) if found is None else np.asarray(found.reshape(-1, 2), np.float32)


def _track_points(previous_grey: UInt8Array, grey: UInt8Array, points: Float32Array) -> tuple[Float32Array, BoolArray]:
    """Where the points are now, `[N, 2]`, and which of them can be trusted."""
    if not len(points):
        return points, np.zeros(0, bool)
    window = {"winSize": (15, 15), "maxLevel": 3}
    moved, forth, _ = cv2.calcOpticalFlowPyrLK(previous_grey, grey, points[:, None], None, **window)  # type: ignore[call-overload]
    back, home, _ = cv2.calcOpticalFlowPyrLK(grey, previous_grey, moved, None, **window)  # type: ignore[call-overload]
    returned = np.linalg.norm(back[:, 0] - points, axis=1) <= MAX_ROUND_TRIP_ERROR
    return np.asarray(moved[:, 0], np.float32), np.asarray((forth[:, 0] > 0) & (home[:, 0] > 0) & returned, bool)


def _fit_similarity(start_points: Float32Array, current_points: Float32Array) -> tuple[Float32Array | None, BoolArray]:
    """The similarity `[3, 3]` that most of the points share, and which of them; None with fewer than four of them."""
    if len(start_points) < 4:
        return None, np.zeros(len(start_points), bool)
    matrix, inlier = cv2.estimateAffinePartial2D(
        start_points, current_points, method=cv2.RANSAC, ransacReprojThreshold=INLIER_THRESHOLD, maxIters=2000
    )
    if matrix is None or inlier.sum() < 4:
        return None, np.zeros(len(start_points), bool)
    return np.vstack([matrix, [0, 0, 1]]).astype(np.float32), np.asarray(inlier[:, 0] > 0, bool)


def _refine_transform(first_grey: UInt8Array, grey: UInt8Array, predicted: Float32Array, region: BoolArray) -> Float32Array | None:
    """The prediction corrected by matching frame 0, moved by it, with the frame itself; None where they do not match."""
    height, width = first_grey.shape
    moved = cv2.warpAffine(first_grey, predicted[:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    where = cv2.warpAffine(region.astype(np.uint8), predicted[:2], (width, height), flags=cv2.INTER_NEAREST) > 0
    points = _detect_corners(np.asarray(moved, np.uint8), where)
    there, kept = _track_points(np.asarray(moved, np.uint8), grey, points)
    matrix, inlier = _fit_similarity(points[kept], there[kept])
    if matrix is None or inlier.sum() < max(6, 0.4 * len(points)):
        return None
    return np.asarray(matrix @ predicted, np.float32)


def _replenish_points(
    grey: UInt8Array, transform: Float32Array, region: BoolArray, start_points: Float32Array, current_points: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """New points at the region's place in this frame, with their places in frame 0, behind those that are left."""
    height, width = grey.shape
    where = cv2.warpAffine(region.astype(np.uint8), transform[:2], (width, height), flags=cv2.INTER_NEAREST) > 0
    fresh = _detect_corners(grey, where)
    back = np.linalg.inv(transform)
    origin = fresh @ back[:2, :2].T + back[:2, 2]
    return np.concatenate([start_points, origin]).astype(np.float32), np.concatenate([current_points, fresh]).astype(np.float32)
