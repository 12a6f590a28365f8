"""The motion of an object as a whole: one shift, turn and scale, by what of its remembered look the picture shows where."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lora_edit.masks.morph import bounds, eroded
from lora_edit.types import BoolArray, Float32Array, UInt8Array
from lora_edit.video.flow import grid, sample

DIFFERENT = 24.0
"""Levels of difference, of 255, between a pixel and where it is said to come from, that tell as little as not knowing."""

CHECKED = 64
"""Pixels, along its longer side, at which an object is compared with a picture."""


@dataclass(frozen=True)
class Remembered:
    """An object's whole shape `[h, w]`, seen or hidden, its look `[h, w, 3]` and its motion per frame (x, y)."""

    shape: BoolArray
    look: UInt8Array
    pace: Float32Array


def whole_motion(
    known: Remembered, mask: BoolArray | None, now: UInt8Array, back: Float32Array, seen: BoolArray
) -> tuple[Float32Array, Float32Array]:
    """The object's motion as a whole: where each pixel `[h, w, 2]` comes from by one shift, turn and scale, and the shift per frame (x, y).

    The flow inside a plain object is guessed from its outline, which an edge in front of it falsifies: so the flow's answer for `mask`,
    what is in sight, competes with the motion so far, and the better one is shifted to where the picture shows most of the object.
    """
    home = grid(*known.shape.shape)
    candidates = [np.array([[1, 0, -known.pace[0]], [0, 1, -known.pace[1]]])]
    if mask is not None:
        part = eroded(sample(mask.astype(np.float32), home + back) > 0.5, 2) & seen
        here = home[part]
        if len(here) >= 30:
            chosen = np.linspace(0, len(here) - 1, min(len(here), 600)).astype(int)
            matrix, _ = cv2.estimateAffinePartial2D(here[chosen], (here + back[part])[chosen], ransacReprojThreshold=1.5)
            candidates += [] if matrix is None else [matrix]
    matrix = _settled(known, now, candidates)
    there = (home @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    y, x = np.nonzero(known.shape)
    middle = np.array([x.mean(), y.mean()]) if len(x) else np.zeros(2)
    inverse = cv2.invertAffineTransform(matrix)
    return there, np.asarray(inverse[:, :2] @ middle + inverse[:, 2] - middle, np.float32)


def _settled(known: Remembered, now: UInt8Array, candidates: list[Float32Array]) -> Float32Array:
    """The candidate `[2, 3]` by which the picture shows most of the object, moved by whole pixels until it shows no more."""
    misfit = _Misfit(known, now)
    best = min(candidates[::-1], key=misfit)
    for stride in (4, 2, 1):
        for _ in range(3):
            tried = [best + np.array([[0, 0, dx * stride], [0, 0, dy * stride]]) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            better = min(tried, key=misfit)
            if misfit(better) >= 0.995 * misfit(best):
                break
            best = better
    return best


class _Misfit:
    """Mean difference, in levels and none of them counted above `DIFFERENT`, between the remembered object, moved, and the picture."""

    def __init__(self, known: Remembered, now: UInt8Array) -> None:
        self.now, self.costs = now, dict[bytes, float]()
        left, top, right, bottom = bounds(known.shape) or (0, 0, 0, 0)
        stride = max(1, round(max(right - left, bottom - top) / CHECKED))
        y, x = np.mgrid[top:bottom:stride, left:right:stride]
        part = known.shape[y, x]
        self.old = np.stack([x[part], y[part]], -1).astype(np.float32)
        self.look = known.look[y[part], x[part]].astype(np.int16)
        self.last = np.array(known.shape.shape[::-1]) - 1

    def __call__(self, matrix: Float32Array) -> float:
        key = np.round(matrix, 4).tobytes()
        if key not in self.costs:
            self.costs[key] = self._cost(matrix)
        return self.costs[key]

    def _cost(self, matrix: Float32Array) -> float:
        if not len(self.old):
            return DIFFERENT
        inverse = cv2.invertAffineTransform(matrix)
        new = np.rint(self.old @ inverse[:, :2].T + inverse[:, 2]).astype(int)
        within = ((new >= 0) & (new <= self.last)).all(-1)
        x, y = new[within].T
        levels = np.abs(self.now[y, x] - self.look[within])
        worst = np.maximum(np.maximum(levels[:, 0], levels[:, 1]), levels[:, 2])
        return float((np.minimum(worst, DIFFERENT).sum() + DIFFERENT * (len(new) - len(x))) / len(new))


def search(known: Remembered, now: UInt8Array, reach: int) -> tuple[int, int] | None:
    """By how many pixels (x, y), `reach` at most, the remembered object lies elsewhere in the picture; None where it is not to be seen."""
    found = bounds(known.shape)
    if found is None:
        return None
    left, top, right, bottom = found
    y0, x0 = max(0, top - reach), max(0, left - reach)
    field = now[y0 : bottom + reach, x0 : right + reach]
    piece = np.ascontiguousarray(known.look[top:bottom, left:right])
    part = known.shape[top:bottom, left:right].astype(np.uint8)
    costs = cv2.matchTemplate(np.ascontiguousarray(field), piece, cv2.TM_SQDIFF, None, part)
    best, _, (x, y), _ = cv2.minMaxLoc(np.sqrt(np.maximum(costs, 0) / (3 * part.sum())))
    return None if best > DIFFERENT else (x0 + x - left, y0 + y - top)
