"""What stands behind the region: the source's own pixels, from frames in which the region leaves them in sight."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.propagation.images import FloatImage, compute_affine_positions
from lora_edit.video.flow import sample_image

NUM_FRAMES = 12
"""About so many frames, evenly spread, are put together."""
TOLERANCE = 20.0
"""Levels from which a pixel that differs from the others' mean counts little: something passed there."""


class BackgroundPlate:
    """The background in the key frame's coordinates, with half a frame around it, from `frames` `[T, H, W, 3]` uint8 outside `region`
    `[T, H, W]` bool; `cameras` `[T, 2, 3]` take each frame's pixels to the key frame's."""

    def __init__(self, frames: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_], cameras: Sequence[FloatImage]) -> None:
        count, height, width = frames.shape[:3]
        self.offset = np.array([width // 2, height // 2], np.float32)
        chosen = sorted(set(np.linspace(0, count - 1, min(count, NUM_FRAMES)).round().astype(int).tolist()))
        reach = max(3, min(height, width) // 40) | 1
        around = np.ones((reach, reach), np.uint8)
        warped = [
            self._warp_frame(frames[n], np.asarray(cv2.dilate(region[n].astype(np.uint8), around), np.uint8), cameras[n]) for n in chosen
        ]
        picture, weight = _compute_robust_mean(warped, None)
        self.picture, self.weight = _compute_robust_mean(warped, picture)
        self.valid = np.minimum(weight, 1.0)

    def _warp_frame(
        self, frame: npt.NDArray[np.uint8], hidden_mask: npt.NDArray[np.uint8], camera: FloatImage
    ) -> tuple[FloatImage, FloatImage]:
        height, width = frame.shape[:2]
        matrix = camera.copy()
        matrix[:, 2] += self.offset
        size = (2 * width, 2 * height)
        picture = cv2.warpAffine(frame.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        seen = cv2.warpAffine(1 - hidden_mask.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderValue=0.0)
        return np.asarray(picture, np.float32), np.asarray(seen, np.float32)

    def measure_removal(self, edited: FloatImage, edited_share: FloatImage) -> float:
        """How far the edited key frame `[H, W, 3]` shows what stands behind, where it was edited (`edited_share` `[H, W]`), in [0, 1].

        A thing was removed then. Half where nothing is known of what stands behind.
        """
        height, width = edited.shape[:2]
        x, y = (int(value) for value in self.offset)
        picture, valid = (each[y : y + height, x : x + width] for each in (self.picture, self.valid))
        weight = edited_share * valid
        alike = np.exp(-((np.abs(picture - edited).mean(-1) / TOLERANCE) ** 2))
        return float(((weight * alike).sum() + 2.0) / (weight.sum() + 4.0))

    def render(self, camera: FloatImage, height: int, width: int) -> tuple[FloatImage, FloatImage]:
        """The plate as a frame with this `camera` shows it, `[H, W, 3]`, and how far it is known `[H, W]`."""
        positions = compute_affine_positions(camera, height, width) + self.offset
        return sample_image(self.picture, positions), sample_image(self.valid, positions)


def _compute_robust_mean(warped_frames: list[tuple[FloatImage, FloatImage]], reference: FloatImage | None) -> tuple[FloatImage, FloatImage]:
    """Weighted mean of pictures; those far from `around` count less. Returns it with the sum of the weights."""
    total, weight = np.zeros_like(warped_frames[0][0]), np.full(warped_frames[0][1].shape, 1e-4, np.float32)
    for picture, seen in warped_frames:
        share = seen if reference is None else seen / (1 + (np.abs(picture - reference).mean(-1) / TOLERANCE) ** 4)
        total += picture * share[..., None]
        weight += share
    return total / weight[..., None], weight
