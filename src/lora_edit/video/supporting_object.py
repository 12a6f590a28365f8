"""What an edit sits on: something worn or stuck on moves with the thing beside or below it, not with the pixels that it hides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array
from lora_edit.video.flow import build_pixel_grid

MAX_FRAMES = 32
"""About so many frames, evenly spread, tell what moves."""
SEARCH_RADIUS = 0.75
"""How far around the changed pixels the support is looked for, in sizes (square roots of areas) of what is changed."""
MIN_RELATIVE_MOTION = 0.002
"""Shorter sides of the frame by which a pixel has to move otherwise than the camera, on the mean."""
RELATIVE_MOTION_SHARE = 0.5
"""The same, as a share of how far the fastest tenth near the change moves otherwise: near and far ground do too, but less."""
MIN_VISIBLE_SHARE = 0.2
"""Share of the frames in which it has to be known where a pixel went."""
MIN_CONFIDENCE = 0.4
"""Confidence from which a position counts."""


def select_support_frames(count: int) -> list[int]:
    """The frames of a clip of `count`, after the first, by which its support is found."""
    return sorted(set(np.linspace(1, count - 1, min(count - 1, MAX_FRAMES)).round().astype(int).tolist()))


def find_supporting_object(
    correspondences: Iterable[tuple[Float32Array, Float32Array]], camera_matrices: Sequence[Float32Array], changed_mask: BoolArray
) -> BoolArray | None:
    """Pixels of the key frame, on and around the `changed` ones `[H, W]`, that do not follow the camera.

    `found` gives each frame's positions in the key frame `[H, W, 2]` and how sure they are `[H, W]`; `cameras` `[2, 3]` say where the
    camera alone puts them. None where too few pixels are left to be followed.
    """
    height, width = changed_mask.shape
    if not camera_matrices or not changed_mask.any():
        return None
    away = _compute_relative_motion(correspondences, camera_matrices, height, width)
    reach = max(2, round(SEARCH_RADIUS * float(np.sqrt(changed_mask.sum()))))
    near = cv2.dilate(changed_mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)) > 0
    limit = max(MIN_RELATIVE_MOTION * min(height, width), RELATIVE_MOTION_SHARE * float(np.percentile(away[near], 90)))
    grown = cv2.dilate((near & (away > limit)).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    mask = _select_touching_parts(np.asarray(grown, np.bool_), changed_mask)
    return mask if mask.sum() >= max(32, 0.1 * changed_mask.sum()) else None


def _compute_relative_motion(
    correspondences: Iterable[tuple[Float32Array, Float32Array]], camera_matrices: Sequence[Float32Array], height: int, width: int
) -> Float32Array:
    """By how many pixels each pixel of the key frame is elsewhere than the camera alone puts it, on the mean over the frames, `[H, W]`."""
    total, count, here = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32), build_pixel_grid(height, width)
    for (positions, confidence), camera in zip(correspondences, camera_matrices, strict=True):
        apart = np.linalg.norm(positions - here @ camera[:, :2].T - camera[:, 2], axis=-1)
        x, y = np.moveaxis(np.round(positions).astype(int), -1, 0)
        known = (confidence > MIN_CONFIDENCE) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        np.add.at(total, (y[known], x[known]), apart[known])
        np.add.at(count, (y[known], x[known]), 1)
    soft = max(1.0, min(height, width) / 150)
    apart_there, seen = (cv2.GaussianBlur(each, (0, 0), soft) for each in (total, count))
    return np.asarray(np.where(seen > MIN_VISIBLE_SHARE * len(camera_matrices), apart_there / (seen + 1e-3), 0), np.float32)


def _select_touching_parts(mask: BoolArray, changed_mask: BoolArray) -> BoolArray:
    """The connected parts of the mask that reach the changed pixels."""
    _, labels = cv2.connectedComponents(mask.view(np.uint8))
    reached = np.unique(labels[cv2.dilate(changed_mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0])
    return np.asarray(np.isin(labels, reached[reached > 0]), np.bool_)
