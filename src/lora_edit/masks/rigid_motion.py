"""The motion of an object as a whole: one shift, turn and scale, by what of its remembered look the picture shows where."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lora_edit.masks.morphology import erode_mask, find_bounds
from lora_edit.types import BoolArray, Float32Array, UInt8Array
from lora_edit.video.flow import build_pixel_grid, sample_image

MAX_COLOUR_DIFFERENCE = 24.0
"""Levels of difference, of 255, between a pixel and where it is said to come from, that tell as little as not knowing."""

COMPARISON_SIDE = 64
"""Pixels, along its longer side, at which an object is compared with a picture."""


@dataclass(frozen=True)
class ObjectTemplate:
    """An object's whole shape `[h, w]`, seen or hidden, its look `[h, w, 3]` and its motion per frame (x, y)."""

    shape: BoolArray
    appearance: UInt8Array
    velocity: Float32Array


def estimate_rigid_motion(
    template: ObjectTemplate, mask: BoolArray | None, current_frame: UInt8Array, backward_flow: Float32Array, visible_mask: BoolArray
) -> tuple[Float32Array, Float32Array]:
    """The object's motion as a whole: where each pixel `[h, w, 2]` comes from by one shift, turn and scale, and the shift per frame (x, y).

    The flow inside a plain object is guessed from its outline, which an edge in front of it falsifies: so the flow's answer for `mask`,
    what is in sight, competes with the motion so far, and the better one is shifted to where the picture shows most of the object.
    """
    home = build_pixel_grid(*template.shape.shape)
    candidates = [np.array([[1, 0, -template.velocity[0]], [0, 1, -template.velocity[1]]])]
    if mask is not None:
        part = erode_mask(sample_image(mask.astype(np.float32), home + backward_flow) > 0.5, 2) & visible_mask
        here = home[part]
        if len(here) >= 30:
            chosen = np.linspace(0, len(here) - 1, min(len(here), 600)).astype(int)
            matrix, _ = cv2.estimateAffinePartial2D(here[chosen], (here + backward_flow[part])[chosen], ransacReprojThreshold=1.5)
            candidates += [] if matrix is None else [matrix]
    matrix = _refine_candidate(template, current_frame, candidates)
    there = (home @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    y, x = np.nonzero(template.shape)
    middle = np.array([x.mean(), y.mean()]) if len(x) else np.zeros(2)
    inverse = cv2.invertAffineTransform(matrix)
    return there, np.asarray(inverse[:, :2] @ middle + inverse[:, 2] - middle, np.float32)


def _refine_candidate(template: ObjectTemplate, current_frame: UInt8Array, candidates: list[Float32Array]) -> Float32Array:
    """The candidate `[2, 3]` by which the picture shows most of the object, moved by whole pixels until it shows no more."""
    misfit = _TemplateError(template, current_frame)
    best = min(candidates[::-1], key=misfit)
    for stride in (4, 2, 1):
        for _ in range(3):
            tried = [best + np.array([[0, 0, dx * stride], [0, 0, dy * stride]]) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            better = min(tried, key=misfit)
            if misfit(better) >= 0.995 * misfit(best):
                break
            best = better
    return best


class _TemplateError:
    """Mean difference, in levels and none of them counted above `DIFFERENT`, between the remembered object, moved, and the picture."""

    def __init__(self, template: ObjectTemplate, current_frame: UInt8Array) -> None:
        self.current_frame, self.costs = current_frame, dict[bytes, float]()
        left, top, right, bottom = find_bounds(template.shape) or (0, 0, 0, 0)
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
        new = np.rint(self.template_points @ inverse[:, :2].T + inverse[:, 2]).astype(int)
        within = ((new >= 0) & (new <= self.last_pixel)).all(-1)
        x, y = new[within].T
        levels = np.abs(self.current_frame[y, x] - self.colours[within])
        worst = np.maximum(np.maximum(levels[:, 0], levels[:, 1]), levels[:, 2])
        return float((np.minimum(worst, MAX_COLOUR_DIFFERENCE).sum() + MAX_COLOUR_DIFFERENCE * (len(new) - len(x))) / len(new))


def locate_object(template: ObjectTemplate, current_frame: UInt8Array, search_radius: int) -> tuple[int, int] | None:
    """By how many pixels (x, y), `reach` at most, the remembered object lies elsewhere in the picture; None where it is not to be seen."""
    found = find_bounds(template.shape)
    if found is None:
        return None
    left, top, right, bottom = found
    y0, x0 = max(0, top - search_radius), max(0, left - search_radius)
    field = current_frame[y0 : bottom + search_radius, x0 : right + search_radius]
    piece = np.ascontiguousarray(template.appearance[top:bottom, left:right])
    part = template.shape[top:bottom, left:right].astype(np.uint8)
    costs = cv2.matchTemplate(np.ascontiguousarray(field), piece, cv2.TM_SQDIFF, None, part)
    best, _, (x, y), _ = cv2.minMaxLoc(np.sqrt(np.maximum(costs, 0) / (3 * part.sum())))
    return None if best > MAX_COLOUR_DIFFERENCE else (x0 + x - left, y0 + y - top)
