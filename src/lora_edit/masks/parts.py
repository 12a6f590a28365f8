"""Several things in one region: an edit may change a hat here and a sign there, which move each in their own way."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.masks.morphology import find_bounds
from lora_edit.types import BoolArray

Bounds = tuple[int, int, int, int]

MAX_PARTS = 4
"""Parts at most; smaller ones go with the nearest of these."""
MAX_JOINED_AREA_RATIO = 1.5
"""Two parts are one where the box around both is no larger than this many times their own boxes."""


def split_into_parts(change_mask: BoolArray) -> list[BoolArray]:
    """The connected parts of an area `[H, W]`, largest first, those that one box covers well taken together."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(change_mask.astype(np.uint8), connectivity=8)
    parts = [labels == number for number in np.argsort(-stats[1:, cv2.CC_STAT_AREA]) + 1]
    while (pair := _find_joinable_pair(parts)) is not None:
        first, second = pair
        parts[first] = parts[first] | parts.pop(second)
    return sorted(parts, key=lambda part: -int(part.sum()))


def _find_joinable_pair(parts: list[BoolArray]) -> tuple[int, int] | None:
    """The two parts that lose least by one box around both, if any may be joined."""
    boxes = [find_bounds(part) or (0, 0, 0, 0) for part in parts]
    best, found = np.inf if len(parts) > MAX_PARTS else MAX_JOINED_AREA_RATIO, None
    for second in range(len(parts)):
        for first in range(second):
            ratio = _compute_area(_enclose_bounds(boxes[first], boxes[second])) / (
                _compute_area(boxes[first]) + _compute_area(boxes[second])
            )
            if ratio < best:
                best, found = ratio, (first, second)
    return found


def _enclose_bounds(a: Bounds, b: Bounds) -> Bounds:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _compute_area(box: Bounds) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
