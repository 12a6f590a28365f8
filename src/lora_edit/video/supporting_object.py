"""Detection of the object that supports an edit.

An added object that is worn or attached moves with the object beside or below it, not with the pixels that it hides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array
from lora_edit.video.alignment import invert_affine, sample_points
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
MAX_CHANGED_SHARE = 0.02
"""Share of the changed pixels below which an object is no part of what the edit changes."""
MIN_HIDDEN_SHARE = 0.1
"""Smallest share of the changed pixels that an object hides when it passes in front of them."""
MAX_ERROR, HIDDEN_ERROR = 40.0, 20.0
"""Limit of a pixel's error under a motion, and the error from which the pixel may be hidden, in levels of 255."""
MAX_ERROR_RATIO = 0.75
"""Largest error of a pixel under the object's motion, as a share of that under the camera's, for the pixel to show the object."""
MIN_DISTANCE = 1.5
"""Distance, in pixels, from which the positions of a pixel by two motions are distinct."""


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


def passes_in_front(
    images: Sequence[Float32Array],
    changed_mask: BoolArray,
    object_mask: BoolArray,
    object_matrices: Sequence[Float32Array | None],
    camera_matrices: Sequence[Float32Array],
) -> bool:
    """Return whether an object only passes in front of the changed pixels `[h, w]` of the first of `images` `[h, w, 3]`, 0..255.

    Then hardly any of them shows the object `object_mask` `[h, w]`, which hides some of them later. The object that supports an edit, in
    contrast, is covered by it in part, or stays beside the pixels that it covers. The maps `[2, 3]` lead from each image
    to the first one; None where the object is lost.
    """
    y, x = np.nonzero(changed_mask)
    points = np.stack([x, y]).astype(np.float64)
    key_colours = sample_points(_blur(images[0]), points)
    limits = np.array([[changed_mask.shape[1] - 1], [changed_mask.shape[0] - 1]])
    totals, is_compared, is_hidden = np.zeros((2, len(x))), np.zeros(len(x), bool), np.zeros(len(x), bool)
    for image, object_matrix, camera_matrix in zip(images, object_matrices, camera_matrices, strict=True):
        if object_matrix is None:
            continue
        blurred = _blur(image)
        positions = [matrix[:, :2] @ points + matrix[:, 2:] for matrix in (invert_affine(object_matrix), invert_affine(camera_matrix))]
        errors = [np.abs(sample_points(blurred, each) - key_colours).max(0).clip(0, MAX_ERROR) for each in positions]
        is_distinct = np.linalg.norm(positions[0] - positions[1], axis=0) > MIN_DISTANCE
        for each in positions:
            is_distinct &= ((each >= 0) & (each <= limits)).all(0)
        totals += np.where(is_distinct, errors, 0)
        is_compared |= is_distinct
        # The pixels of the object in the first image that lie on the changed pixels in this one.
        column, row = np.rint(object_matrix[:, :2] @ positions[1] + object_matrix[:, 2:]).clip(0, limits).astype(int)
        is_hidden |= is_distinct & object_mask[row, column] & (errors[1] > HIDDEN_ERROR)
    shows_object = is_compared & (totals[0] < MAX_ERROR_RATIO * totals[1])
    return float(shows_object.mean()) < MAX_CHANGED_SHARE and float(is_hidden.mean()) >= MIN_HIDDEN_SHARE


def _blur(image: Float32Array) -> Float32Array:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.float32)


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
