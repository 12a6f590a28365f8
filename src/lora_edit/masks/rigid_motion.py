"""Rigid motion of an object: one translation, rotation and scale, estimated by comparing its remembered appearance with the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lora_edit.masks.morphology import erode_mask
from lora_edit.types import BoolArray, Float32Array, UInt8Array, mask_bounds
from lora_edit.video.flow import build_pixel_grid, sample_image

MAX_COLOUR_DIFFERENCE = 24.0
"""Difference, in levels of 255, between a pixel and its assumed origin at which the comparison saturates: a larger one is as
uninformative as an unknown origin."""

COMPARISON_SIDE = 64
"""Longer side, in pixels, at which an object is compared with a picture."""


@dataclass(frozen=True)
class ObjectTemplate:
    """An object's whole shape `[h, w]`, visible or hidden, its appearance `[h, w, 3]` and its motion per frame (x, y)."""

    shape: BoolArray
    appearance: UInt8Array
    velocity: Float32Array


def estimate_rigid_motion(
    template: ObjectTemplate, mask: BoolArray | None, current_frame: UInt8Array, backward_flow: Float32Array, visible_mask: BoolArray
) -> tuple[Float32Array, Float32Array]:
    """Estimate the object's rigid motion by one translation, rotation and scale.

    Returns the origin `[h, w, 2]` of each pixel and the translation per frame (x, y). The flow inside an object without texture is
    extrapolated from its outline, which an occluding edge falsifies. The estimate from the flow inside `mask`, the visible part,
    therefore competes with the previous motion, and the better candidate is shifted to where the picture shows most of the object.
    """
    grid = build_pixel_grid(*template.shape.shape)
    candidates = [np.array([[1, 0, -template.velocity[0]], [0, 1, -template.velocity[1]]])]
    if mask is not None:
        part = erode_mask(sample_image(mask.astype(np.float32), grid + backward_flow) > 0.5, 2) & visible_mask
        positions = grid[part]
        if len(positions) >= 30:
            sample = np.linspace(0, len(positions) - 1, min(len(positions), 600)).astype(int)
            matrix, _ = cv2.estimateAffinePartial2D(positions[sample], (positions + backward_flow[part])[sample], ransacReprojThreshold=1.5)
            candidates += [] if matrix is None else [matrix]
    matrix = _refine_candidate(template, current_frame, candidates)
    origins = (grid @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    y, x = np.nonzero(template.shape)
    centre = np.array([x.mean(), y.mean()]) if len(x) else np.zeros(2)
    inverse = cv2.invertAffineTransform(matrix)
    return origins, np.asarray(inverse[:, :2] @ centre + inverse[:, 2] - centre, np.float32)


def _refine_candidate(template: ObjectTemplate, current_frame: UInt8Array, candidates: list[Float32Array]) -> Float32Array:
    """Select the candidate `[2, 3]` with the lowest template error, and move it by whole pixels until the error stops falling."""
    template_error = _TemplateError(template, current_frame)
    best = min(candidates[::-1], key=template_error)
    for stride in (4, 2, 1):
        for _ in range(3):
            shifted_candidates = [
                best + np.array([[0, 0, dx * stride], [0, 0, dy * stride]]) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))
            ]
            best_shifted = min(shifted_candidates, key=template_error)
            if template_error(best_shifted) >= 0.995 * template_error(best):
                break
            best = best_shifted
    return best


class _TemplateError:
    """Mean colour difference, in levels and clipped at `MAX_COLOUR_DIFFERENCE`, between the moved template and the picture."""

    def __init__(self, template: ObjectTemplate, current_frame: UInt8Array) -> None:
        self.current_frame, self.costs = current_frame, dict[bytes, float]()
        left, top, right, bottom = mask_bounds(template.shape) or (0, 0, 0, 0)
        stride = max(1, round(max(right - left, bottom - top) / COMPARISON_SIDE))
        y, x = np.mgrid[top:bottom:stride, left:right:stride]
        part = template.shape[y, x]
        self.template_points = np.stack([x[part], y[part]], -1).astype(np.float32)
        self.colours = template.appearance[y[part], x[part]].astype(np.int16)
        self.last_pixel = np.array(template.shape.shape[::-1]) - 1

    def __call__(self, matrix: Float32Array) -> float:
        key = np.round(matrix, 4).tobytes()
        if key not in self.costs:
            self.costs[key] = self._compute_cost(matrix)
        return self.costs[key]

    def _compute_cost(self, matrix: Float32Array) -> float:
        if not len(self.template_points):
            return MAX_COLOUR_DIFFERENCE
        inverse = cv2.invertAffineTransform(matrix)
        moved_points = np.rint(self.template_points @ inverse[:, :2].T + inverse[:, 2]).astype(int)
        is_inside = ((moved_points >= 0) & (moved_points <= self.last_pixel)).all(-1)
        x, y = moved_points[is_inside].T
        levels = np.abs(self.current_frame[y, x] - self.colours[is_inside])
        max_levels = np.maximum(np.maximum(levels[:, 0], levels[:, 1]), levels[:, 2])
        return float(
            (np.minimum(max_levels, MAX_COLOUR_DIFFERENCE).sum() + MAX_COLOUR_DIFFERENCE * (len(moved_points) - len(x))) / len(moved_points)
        )


def locate_object(template: ObjectTemplate, current_frame: UInt8Array, search_radius: int) -> tuple[int, int] | None:
    """Return the offset (x, y) in pixels, at most `search_radius`, at which the object appears in the picture, or None where it is
    hidden."""
    bounds = mask_bounds(template.shape)
    if bounds is None:
        return None
    left, top, right, bottom = bounds
    y0, x0 = max(0, top - search_radius), max(0, left - search_radius)
    search_area = current_frame[y0 : bottom + search_radius, x0 : right + search_radius]
    appearance = np.ascontiguousarray(template.appearance[top:bottom, left:right])
    part = template.shape[top:bottom, left:right].astype(np.uint8)
    costs = cv2.matchTemplate(np.ascontiguousarray(search_area), appearance, cv2.TM_SQDIFF, None, part)
    best_cost, _, (x, y), _ = cv2.minMaxLoc(np.sqrt(np.maximum(costs, 0) / (3 * part.sum())))
    return None if best_cost > MAX_COLOUR_DIFFERENCE else (x0 + x - left, y0 + y - top)
