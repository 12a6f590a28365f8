"""Motion of every frame relative to a key frame, estimated once per clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.propagation.images import FloatImage, blur
from lora_edit.video.correspondence import compute_correspondences
from lora_edit.video.flow import build_pixel_grid, chain_flow_with_confidence
from lora_edit.video.object_motion import ObjectMotion, track_object
from lora_edit.video.supporting_object import find_supporting_object, select_support_frames

IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
CHANGE_THRESHOLD = 16.0
"""Difference, in levels of 255, above which a pixel of the key frame belongs to the edited object."""
GRID_POINTS = 48
"""Grid points along the shorter side to which the camera's motion is fitted."""


@dataclass(frozen=True)
class Motion:
    """Motion from a frame to the key frame, in pixels at the size of the estimation.

    - `positions` `[h, w, 2]` with `confidence` `[h, w]`: dense correspondences, matched directly with the key frame.
    - `chained_positions` with `chained_confidence`: the same, by optical flow chained from frame to frame.
    - `object_matrix` `[2, 3]` with `object_confidence`: the edited object's motion.
    - `camera_matrix` `[2, 3]`: the camera's motion.
    - `support_matrix` `[2, 3]` with `support_confidence`: motion of the object that the edit sits on; without one, the camera's motion with
      confidence 0.
    """

    positions: FloatImage
    confidence: FloatImage
    chained_positions: FloatImage
    chained_confidence: FloatImage
    object_matrix: FloatImage
    object_confidence: float
    camera_matrix: FloatImage
    support_matrix: FloatImage
    support_confidence: float


def estimate_motion(source: npt.NDArray[np.uint8], edited: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_]) -> Iterator[Motion]:
    """Estimate the motion from each frame of `source` `[T, H, W, 3]` to the first one, in order.

    `edited` `[H, W, 3]` is the edited first frame, `region` `[T, H, W]` the edit region.
    """
    frames, inside = torch.from_numpy(np.ascontiguousarray(source)), torch.from_numpy(np.ascontiguousarray(region))
    height, width = source.shape[1:3]
    changed = np.abs(blur(edited.astype(np.float32) - source[0], max(1.0, min(height, width) / 128))).max(-1) > CHANGE_THRESHOLD
    changed &= region[0]
    mask = inside[0] if not changed.any() else torch.from_numpy(changed)
    # The three are independent and spend most of their time in code that releases the GIL.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        direct_future = pool.submit(list, compute_correspondences(frames, 0, inside))
        chain_future = pool.submit(list, chain_flow_with_confidence(frames))
        object_future = pool.submit(list, track_object(frames, 0, mask, inside))
        direct, chained, object_motions = direct_future.result(), chain_future.result(), object_future.result()
    cameras = [_fit_camera_matrix(d.positions, d.confidence * ~region[number]) if number else IDENTITY for number, d in enumerate(direct)]
    support_frames = select_support_frames(len(source))
    support = find_supporting_object([chained[t] for t in support_frames], [cameras[t] for t in support_frames], changed)
    camera_only: Iterable[ObjectMotion] = (ObjectMotion(camera, 0.0) for camera in cameras)
    support_motions = camera_only if support is None else track_object(frames, 0, torch.from_numpy(support))
    for match, (chain, chain_confidence), tracked, support_motion, camera in zip(
        direct, chained, object_motions, support_motions, cameras, strict=True
    ):
        yield Motion(
            match.positions, match.confidence, chain, chain_confidence, tracked.matrix, float(tracked.confidence),
            camera, support_motion.matrix, float(support_motion.confidence),
        )  # fmt: skip


def _fit_camera_matrix(positions: FloatImage, weight: FloatImage) -> FloatImage:
    """Fit the similarity transform that most of the confident positions follow; the identity with fewer than 12 of them."""
    height, width = weight.shape
    step = max(1, min(height, width) // GRID_POINTS)
    grid = build_pixel_grid(height, width)[::step, ::step].reshape(-1, 2)
    targets, confident = positions[::step, ::step].reshape(-1, 2), weight[::step, ::step].ravel() > 0.3
    if confident.sum() < 12:
        return IDENTITY
    matrix, _ = cv2.estimateAffinePartial2D(grid[confident], targets[confident], ransacReprojThreshold=max(1.0, min(height, width) / 100))
    return IDENTITY if matrix is None else np.asarray(matrix, np.float32)
