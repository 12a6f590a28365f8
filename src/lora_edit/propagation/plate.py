"""What stands behind the region: the source's own pixels, from frames in which the region leaves them in sight."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.propagation.images import FloatImage, affine_positions
from lora_edit.video.flow import sample

FRAMES = 12
"""About so many frames, evenly spread, are put together."""
TOLERANCE = 20.0
"""Levels from which a pixel that differs from the others' mean counts little: something passed there."""


class Plate:
    """The background in the key frame's coordinates, with half a frame around it, from `frames` `[T, H, W, 3]` uint8 outside `region`
    `[T, H, W]` bool; `cameras` `[T, 2, 3]` take each frame's pixels to the key frame's."""

    def __init__(self, frames: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_], cameras: Sequence[FloatImage]) -> None:
        count, height, width = frames.shape[:3]
        self.offset = np.array([width // 2, height // 2], np.float32)
        chosen = sorted(set(np.linspace(0, count - 1, min(count, FRAMES)).round().astype(int).tolist()))
        reach = max(3, min(height, width) // 40) | 1
        around = np.ones((reach, reach), np.uint8)
        warped = [self._place(frames[n], np.asarray(cv2.dilate(region[n].astype(np.uint8), around), np.uint8), cameras[n]) for n in chosen]
        picture, weight = _mean(warped, None)
        self.picture, self.weight = _mean(warped, picture)
        self.valid = np.minimum(weight, 1.0)

    def _place(self, frame: npt.NDArray[np.uint8], hidden: npt.NDArray[np.uint8], camera: FloatImage) -> tuple[FloatImage, FloatImage]:
        height, width = frame.shape[:2]
        matrix = camera.copy()
        matrix[:, 2] += self.offset
        size = (2 * width, 2 * height)
        picture = cv2.warpAffine(frame.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        seen = cv2.warpAffine(1 - hidden.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderValue=0.0)
        return np.asarray(picture, np.float32), np.asarray(seen, np.float32)

    def behind(self, edited: FloatImage, edited_share: FloatImage) -> float:
        """How far the edited key frame `[H, W, 3]` shows what stands behind, where it was edited (`edited_share` `[H, W]`), in [0, 1].

        A thing was removed then. Half where nothing is known of what stands behind.
        """
        height, width = edited.shape[:2]
        x, y = (int(value) for value in self.offset)
        picture, valid = (each[y : y + height, x : x + width] for each in (self.picture, self.valid))
        weight = edited_share * valid
        alike = np.exp(-((np.abs(picture - edited).mean(-1) / TOLERANCE) ** 2))
        return float(((weight * alike).sum() + 2.0) / (weight.sum() + 4.0))

    def at(self, camera: FloatImage, height: int, width: int) -> tuple[FloatImage, FloatImage]:
        """The plate as a frame with this `camera` shows it, `[H, W, 3]`, and how far it is known `[H, W]`."""
        positions = affine_positions(camera, height, width) + self.offset
        return sample(self.picture, positions), sample(self.valid, positions)


def _mean(warped: list[tuple[FloatImage, FloatImage]], around: FloatImage | None) -> tuple[FloatImage, FloatImage]:
    """Weighted mean of pictures; those far from `around` count less. Returns it with the sum of the weights."""
    total, weight = np.zeros_like(warped[0][0]), np.full(warped[0][1].shape, 1e-4, np.float32)
    for picture, seen in warped:
        share = seen if around is None else seen / (1 + (np.abs(picture - around).mean(-1) / TOLERANCE) ** 4)
        total += picture * share[..., None]
        weight += share
    return total / weight[..., None], weight
