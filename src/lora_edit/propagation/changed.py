"""What an edited first frame changes: the pixels that the baselines fit or cut out."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

DIFFERENT = 10
"""Levels of 255 by which a channel differs where an edit changed a pixel; less is compression or resampling."""


def changed_pixels(source: Bytes, edited: Bytes, region: Bools) -> Bools:
    """Where `edited` differs from `source` (`[H, W, 3]`) within the region, without specks and pinholes, `[H, W]`.

    Every pixel that differs where tidying leaves none.
    """
    differs = region & (np.abs(source.astype(np.int16) - edited).max(-1) >= DIFFERENT)
    brush = np.ones((3, 3), np.uint8)
    closed = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_CLOSE, brush)
    tidy = np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, brush) > 0) & region
    return tidy if tidy.any() else differs
