"""Motion of the edit region relative to a key frame, from its bounding boxes and the estimated motions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lora_edit.propagation.images import FloatImage
from lora_edit.propagation.motion import Motion
from lora_edit.types import mask_bounds

MAX_SIDE_ERROR = 0.12
"""Largest mean error of the box's sides under a motion, in region sizes, for the region to follow that motion."""
MIN_OBJECT_CONFIDENCE = 0.3
"""Smallest confidence of a motion that the region may follow."""


def estimate_region_motion(key_region: npt.NDArray[np.bool_], frame_region: npt.NDArray[np.bool_], motion: Motion) -> FloatImage:
    """Estimate the affine motion `[2, 3]` of the region from a frame to the key frame (both masks `[H, W]`).

    It is the motion of the object, of the object that the edit sits on, or of the camera, whichever matches the region's bounding boxes
    best. If none matches, it is the shift of the box; it is the identity where one of the frames has no region. Only sides of the box that
    the frame's border does not cut are compared.
    """
    region_matrix = np.eye(2, 3, dtype=np.float32)
    if not (key_region.any() and frame_region.any()):
        return region_matrix
    motions = (
        (motion.object_matrix, motion.object_confidence),
        (motion.support_matrix, motion.support_confidence),
        (motion.camera_matrix, 1.0),
    )
    matrices = [matrix for matrix, confidence in motions if confidence > MIN_OBJECT_CONFIDENCE]
    errors = [_measure_side_error(key_region, frame_region, matrix) for matrix in matrices]
    if min(errors) < MAX_SIDE_ERROR * float(np.sqrt(key_region.sum())):
        return matrices[int(np.argmin(errors))]
    for axis in (0, 1):
        shifts = [key_side - frame_side for key_side, frame_side in _find_uncut_sides(key_region, frame_region, axis)]
        region_matrix[axis, 2] = np.mean(shifts) if shifts else 0.0
    return region_matrix


def _measure_side_error(key_region: npt.NDArray[np.bool_], frame_region: npt.NDArray[np.bool_], matrix: FloatImage) -> float:
    """Measure the mean distance, in pixels, between the sides of the key frame's box and those of the frame's box mapped by `matrix`."""
    centre = _compute_box_centre(frame_region)
    errors = []
    for axis in (0, 1):
        for key_side, frame_side in _find_uncut_sides(key_region, frame_region, axis):
            position = centre.copy()
            position[axis] = frame_side
            errors.append(abs(float(matrix[axis, :2] @ position + matrix[axis, 2]) - key_side))
    return float(np.mean(errors)) if errors else 0.0


def _find_uncut_sides(key_region: npt.NDArray[np.bool_], frame_region: npt.NDArray[np.bool_], axis: int) -> list[tuple[int, int]]:
    """Find the sides along x (axis 0) or y (axis 1) that no border cuts in either frame, as (key frame, frame) positions."""
    key_extent, frame_extent, last = _compute_extent(key_region, axis), _compute_extent(frame_region, axis), key_region.shape[1 - axis] - 1
    sides = [(key_extent[0], frame_extent[0])] if min(key_extent[0], frame_extent[0]) > 0 else []
    return [*sides, (key_extent[1], frame_extent[1])] if max(key_extent[1], frame_extent[1]) < last else sides


def _compute_extent(region: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Compute the first and last column (axis 0) or row (axis 1) of the region."""
    bounds = mask_bounds(region)
    assert bounds is not None, "the region is empty"
    return bounds[axis], bounds[axis + 2] - 1


def _compute_box_centre(region: npt.NDArray[np.bool_]) -> FloatImage:
    """Compute the centre (x, y) of the region's bounding box."""
    return np.array([np.mean(_compute_extent(region, axis)) for axis in (0, 1)], np.float32)


def measure_relative_motion(motion: Motion, region_matrix: FloatImage, region: npt.NDArray[np.bool_]) -> list[float]:
    """Measure how far the object, the camera and the supporting object move away from the region, as tanh of region sizes, in [0, 1]."""
    if not region.any():
        return [0.0] * 3
    key_centre, size = _compute_box_centre(region), float(np.sqrt(region.sum()))
    frame_centre = np.linalg.solve(region_matrix[:, :2].astype(np.float64), key_centre - region_matrix[:, 2])
    offsets = (m[:, :2] @ frame_centre + m[:, 2] - key_centre for m in (motion.object_matrix, motion.camera_matrix, motion.support_matrix))
    return [float(np.tanh(2 * np.linalg.norm(each) / size)) for each in offsets]
