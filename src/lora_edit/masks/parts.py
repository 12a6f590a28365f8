"""Separation of a changed area into parts: an edit may change several objects, each of which moves on its own."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.types import BoolArray, Bounds, mask_bounds

MAX_PARTS = 4
"""Maximum number of parts. Smaller ones are merged into the nearest."""
MAX_JOINED_AREA_RATIO = 1.5
"""Two parts are merged where their common box is at most this many times as large as their own boxes together."""


def split_into_parts(change_mask: BoolArray) -> list[BoolArray]:
    """Split an area `[H, W]` into connected parts, largest first. Parts that one box covers well are merged."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(change_mask.astype(np.uint8), connectivity=8)
    parts = [labels == number for number in np.argsort(-stats[1:, cv2.CC_STAT_AREA]) + 1]
    while (pair := _find_joinable_pair(parts)) is not None:
        first, second = pair
        parts[first] = parts[first] | parts.pop(second)
    return sorted(parts, key=lambda part: -int(part.sum()))


def _find_joinable_pair(parts: list[BoolArray]) -> tuple[int, int] | None:
    """Return the indices of the two parts whose common box adds least area, or None where no two may be merged."""
    boxes = [mask_bounds(part) or (0, 0, 0, 0) for part in parts]
    best_ratio, best_pair = np.inf if len(parts) > MAX_PARTS else MAX_JOINED_AREA_RATIO, None
    for second in range(len(parts)):
        for first in range(second):
            ratio = _compute_area(_enclose_bounds(boxes[first], boxes[second])) / (
                _compute_area(boxes[first]) + _compute_area(boxes[second])
            )
            if ratio < best_ratio:
                best_ratio, best_pair = ratio, (first, second)
    return best_pair


def _enclose_bounds(a: Bounds, b: Bounds) -> Bounds:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _compute_area(box: Bounds) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
