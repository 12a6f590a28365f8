"""How every frame lies in a key frame: everything that is estimated of a clip's motion, once."""

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
"""Levels of 255 from which a pixel of the key frame belongs to the edited object."""
GRID_POINTS = 48
"""Points a side that the camera's motion is fitted to."""


@dataclass(frozen=True)
class Motion:
    """How a frame lies in the key frame, in pixels of the frame that this was computed on.

    Dense `positions` `[h, w, 2]` with their `confidence` `[h, w]`, compared with the key frame itself; the same `chained` by optical flow
    from frame to frame, with `chained_confidence`; the edited object's `matrix` `[2, 3]` with `object_confidence`; the `camera`'s `[2, 3]`;
    the same as the object's for what the edit sits on (`support`; the camera's where there is no such thing, with confidence 0).
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
    """Motion of the frames `source` `[T, H, W, 3]` to the first of them, of which `edited` `[H, W, 3]` is the edit, in order.

    `region` `[T, H, W]` is where the edit lives.
    """
    frames, inside = torch.from_numpy(np.ascontiguousarray(source)), torch.from_numpy(np.ascontiguousarray(region))
    height, width = source.shape[1:3]
    changed = np.abs(blur(edited.astype(np.float32) - source[0], max(1.0, min(height, width) / 128))).max(-1) > CHANGE_THRESHOLD
    changed &= region[0]
    mask = inside[0] if not changed.any() else torch.from_numpy(changed)
    # Neither needs the others' results, and most of their time is spent where Python lets other threads run.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = pool.submit(list, compute_correspondences(frames, 0, inside))
        chained = pool.submit(list, chain_flow_with_confidence(frames))
        moved = pool.submit(list, track_object(frames, 0, mask, inside))
        direct, chains, whole = found.result(), chained.result(), moved.result()
    cameras = [_fit_camera_matrix(d.positions, d.confidence * ~region[number]) if number else IDENTITY for number, d in enumerate(direct)]
    chosen = select_support_frames(len(source))
    support = find_supporting_object([chains[t] for t in chosen], [cameras[t] for t in chosen], changed)
    alone: Iterable[ObjectMotion] = (ObjectMotion(camera, 0.0) for camera in cameras)
    carried = alone if support is None else track_object(frames, 0, torch.from_numpy(support))
    for dense, (chain, sure), own, below, camera in zip(direct, chains, whole, carried, cameras, strict=True):
        yield Motion(
            dense.positions, dense.confidence, chain, sure, own.matrix, float(own.confidence), camera, below.matrix, float(below.confidence)
        )  # fmt: skip


def _fit_camera_matrix(positions: FloatImage, weight: FloatImage) -> FloatImage:
    """The similarity transform that most of the confident positions follow; none when there are hardly any."""
    height, width = weight.shape
    step = max(1, min(height, width) // GRID_POINTS)
    here = build_pixel_grid(height, width)[::step, ::step].reshape(-1, 2)
    there, counts = positions[::step, ::step].reshape(-1, 2), weight[::step, ::step].ravel() > 0.3
    if counts.sum() < 12:
        return IDENTITY
    matrix, _ = cv2.estimateAffinePartial2D(here[counts], there[counts], ransacReprojThreshold=max(1.0, min(height, width) / 100))
    return IDENTITY if matrix is None else np.asarray(matrix, np.float32)
