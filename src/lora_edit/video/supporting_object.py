"""Detection of the object that supports an edit.

An added object that is worn or attached moves with the object beside or below it, not with the pixels that it hides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array
from lora_edit.video.flow import build_pixel_grid

MAX_FRAMES = 32
"""Largest number of evenly spaced frames from which motion is measured."""
SEARCH_RADIUS = 0.75
"""Radius of the search around the changed pixels, as a multiple of the square root of their area."""
MIN_RELATIVE_MOTION = 0.002
"""Smallest mean motion of a pixel relative to the camera, as a share of the frame's shorter side."""
RELATIVE_MOTION_SHARE = 0.5
"""Smallest relative motion as a share of its 90th percentile near the change. Near and far background moves relative to the camera too, but
less."""
MIN_VISIBLE_SHARE = 0.2
"""Smallest share of the frames in which a pixel's position is known."""
MIN_CONFIDENCE = 0.4
"""Confidence above which a position is used."""


def select_support_frames(count: int) -> list[int]:
    """Select the frames of a clip of `count`, after the first, from which its support is detected."""
    return sorted(set(np.linspace(1, count - 1, min(count - 1, MAX_FRAMES)).round().astype(int).tolist()))


def find_supporting_object(
    correspondences: Iterable[tuple[Float32Array, Float32Array]], camera_matrices: Sequence[Float32Array], changed_mask: BoolArray
) -> BoolArray | None:
    """Find the pixels of the key frame, on and around the changed ones, that do not follow the camera.

    - `correspondences`: for each frame, the positions of its pixels in the key frame `[H, W, 2]` and their confidence `[H, W]`
    - `camera_matrices`: for each frame, the map `[2, 3]` to the key frame by the camera's motion alone
    - `changed_mask`: the changed pixels of the key frame `[H, W]`

    Returns a mask `[H, W]`, or None where too few pixels remain to be tracked.
    """
    height, width = changed_mask.shape
    if not camera_matrices or not changed_mask.any():
        return None
    relative_motion = _compute_relative_motion(correspondences, camera_matrices, height, width)
    radius = max(2, round(SEARCH_RADIUS * float(np.sqrt(changed_mask.sum()))))
    search_area = cv2.dilate(changed_mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)) > 0
    threshold = max(
        MIN_RELATIVE_MOTION * min(height, width), RELATIVE_MOTION_SHARE * float(np.percentile(relative_motion[search_area], 90))
    )
    moving = cv2.dilate((search_area & (relative_motion > threshold)).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    mask = _select_touching_parts(np.asarray(moving, np.bool_), changed_mask)
    return mask if mask.sum() >= max(32, 0.1 * changed_mask.sum()) else None


def _compute_relative_motion(
    correspondences: Iterable[tuple[Float32Array, Float32Array]], camera_matrices: Sequence[Float32Array], height: int, width: int
) -> Float32Array:
    """Compute the motion of each pixel of the key frame relative to the camera, in pixels, averaged over the frames, `[H, W]`."""
    total, count, pixel_grid = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32), build_pixel_grid(height, width)
    for (positions, confidence), camera in zip(correspondences, camera_matrices, strict=True):
        distance = np.linalg.norm(positions - pixel_grid @ camera[:, :2].T - camera[:, 2], axis=-1)
        x, y = np.moveaxis(np.round(positions).astype(int), -1, 0)
        known = (confidence > MIN_CONFIDENCE) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        np.add.at(total, (y[known], x[known]), distance[known])
        np.add.at(count, (y[known], x[known]), 1)
    sigma = max(1.0, min(height, width) / 150)
    blurred_total, blurred_count = (cv2.GaussianBlur(each, (0, 0), sigma) for each in (total, count))
    return np.asarray(
        np.where(blurred_count > MIN_VISIBLE_SHARE * len(camera_matrices), blurred_total / (blurred_count + 1e-3), 0), np.float32
    )


def _select_touching_parts(mask: BoolArray, changed_mask: BoolArray) -> BoolArray:
    """Select the connected components of the mask that touch the changed pixels."""
    _, labels = cv2.connectedComponents(mask.view(np.uint8))
    reached = np.unique(labels[cv2.dilate(changed_mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0])
    return np.asarray(np.isin(labels, reached[reached > 0]), np.bool_)
