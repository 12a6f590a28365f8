"""What an edit sits on: something worn or stuck on moves with the thing beside or below it, not with the pixels that it hides."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FRAMES = 8
"""About so many frames, evenly spread, are compared with the key frame."""
NEAR = 0.75
"""How far around the changed pixels the support is looked for, in sizes (square roots of areas) of what is changed."""
MOVED = 12.0
"""Levels of 255 from which a pixel does not follow the camera."""
OFTEN = 40.0
"""Percent of the frames in which a pixel of a moving thing may look as if it followed the camera."""


def support_mask(frames: npt.NDArray[np.uint8], cameras: Sequence[Floats], changed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """Pixels of the first of `frames` `[T, H, W, 3]` uint8, on and around the `changed` ones `[H, W]`, that do not follow the camera.

    `cameras` `[T, 2, 3]` take each frame's pixels to the first frame's. None where too few are left to be followed.
    """
    count, height, width = frames.shape[:3]
    if count < 2 or not changed.any():
        return None
    size = (width, height)
    key = cv2.GaussianBlur(frames[0].astype(np.float32), (0, 0), 1.0)
    away = []
    for number in sorted(set(np.linspace(1, count - 1, min(count - 1, FRAMES)).round().astype(int).tolist())):
        frame = cv2.GaussianBlur(frames[number].astype(np.float32), (0, 0), 1.0)
        moved = cv2.warpAffine(frame, cameras[number], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        seen = cv2.warpAffine(np.ones((height, width), np.float32), cameras[number], size)
        away.append(np.where(seen > 0.9, np.abs(moved - key).max(-1), 0))
    moving = (np.percentile(np.stack(away), OFTEN, axis=0) > MOVED).astype(np.uint8)
    reach = max(2, round(NEAR * float(np.sqrt(changed.sum()))))
    near = cv2.dilate(changed.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
    mask = np.asarray(cv2.dilate(moving & near, np.ones((5, 5), np.uint8)) > 0)
    return mask if mask.sum() >= max(32, 0.1 * changed.sum()) else None
