"""Several things in one region: an edit may change a hat here and a sign there, which move each in their own way."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import Box

Bools = npt.NDArray[np.bool_]
Edges = tuple[int, int, int, int]

MOST = 4
"""Parts at most; smaller ones go with the nearest of these."""
JOINED = 1.5
"""Two parts are one where the box around both is no larger than this many times their own boxes."""


def parts_apart(changed: Bools) -> list[Bools]:
    """The connected parts of an area `[H, W]`, largest first, those that one box covers well taken together."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(changed.astype(np.uint8), connectivity=8)
    parts = [labels == number for number in np.argsort(-stats[1:, cv2.CC_STAT_AREA]) + 1]
    while (pair := _joinable(parts)) is not None:
        first, second = pair
        parts[first] = parts[first] | parts.pop(second)
    return sorted(parts, key=lambda part: -int(part.sum()))


def bounds(part: Bools) -> Box:
    """The box around an area `[H, W]`."""
    left, top, right, bottom = _edges(part)
    return Box(left, top, right - left, bottom - top)


def _joinable(parts: list[Bools]) -> tuple[int, int] | None:
    """The two parts that lose least by one box around both, if any may be joined."""
    boxes = [_edges(part) for part in parts]
    best, found = np.inf if len(parts) > MOST else JOINED, None
    for second in range(len(parts)):
        for first in range(second):
            ratio = _area(_around(boxes[first], boxes[second])) / (_area(boxes[first]) + _area(boxes[second]))
            if ratio < best:
                best, found = ratio, (first, second)
    return found


def _edges(part: Bools) -> Edges:
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _around(a: Edges, b: Edges) -> Edges:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _area(box: Edges) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
