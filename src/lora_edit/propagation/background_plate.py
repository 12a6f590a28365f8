"""The background behind the region, built from source pixels of frames in which the region does not cover them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.propagation.images import FloatImage, compute_affine_positions
from lora_edit.video.flow import sample_image

NUM_FRAMES = 12
"""Number of evenly spaced frames that the plate averages, at most."""
TOLERANCE = 20.0
"""Difference from the mean, in levels of 255, above which a pixel has little weight: another object covered it."""


class BackgroundPlate:
    """The background in the key frame's coordinates, with a margin of half a frame on each side.

    It is built from `frames` `[T, H, W, 3]` uint8 outside `region` `[T, H, W]` bool. `cameras` `[T, 2, 3]` map each frame's pixels to
    the key frame's.
    """

    def __init__(self, frames: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_], cameras: Sequence[FloatImage]) -> None:
        count, height, width = frames.shape[:3]
        self.offset = np.array([width // 2, height // 2], np.float32)
        frame_numbers = sorted(set(np.linspace(0, count - 1, min(count, NUM_FRAMES)).round().astype(int).tolist()))
        kernel_size = max(3, min(height, width) // 40) | 1
        kernel = np.ones((kernel_size, kernel_size), np.uint8)
        warped = [
            self._warp_frame(frames[n], np.asarray(cv2.dilate(region[n].astype(np.uint8), kernel), np.uint8), cameras[n])
            for n in frame_numbers
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
        visibility = cv2.warpAffine(1 - hidden_mask.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderValue=0.0)
        return np.asarray(picture, np.float32), np.asarray(visibility, np.float32)

    def measure_removal(self, edited: FloatImage, edited_share: FloatImage) -> float:
        """Measure how closely the edited key frame `[H, W, 3]` matches the background where it was edited (`edited_share` `[H, W]`).

        Returns a value in [0, 1]: near 1 where the edit removed an object, 0.5 where the background is unknown.
        """
        height, width = edited.shape[:2]
        x, y = (int(value) for value in self.offset)
        picture, valid = (each[y : y + height, x : x + width] for each in (self.picture, self.valid))
        weight = edited_share * valid
        similarity = np.exp(-((np.abs(picture - edited).mean(-1) / TOLERANCE) ** 2))
        return float(((weight * similarity).sum() + 2.0) / (weight.sum() + 4.0))

    def render(self, camera: FloatImage, height: int, width: int) -> tuple[FloatImage, FloatImage]:
        """Render the plate as seen by `camera` `[2, 3]`: the image `[H, W, 3]` and its validity `[H, W]` in [0, 1]."""
        positions = compute_affine_positions(camera, height, width) + self.offset
        return sample_image(self.picture, positions), sample_image(self.valid, positions)


def _compute_robust_mean(warped_frames: list[tuple[FloatImage, FloatImage]], reference: FloatImage | None) -> tuple[FloatImage, FloatImage]:
    """Return the weighted mean of the frames and the sum of their weights; pixels far from `reference` get less weight."""
    total, weight = np.zeros_like(warped_frames[0][0]), np.full(warped_frames[0][1].shape, 1e-4, np.float32)
    for picture, visibility in warped_frames:
        share = visibility if reference is None else visibility / (1 + (np.abs(picture - reference).mean(-1) / TOLERANCE) ** 4)
        total += picture * share[..., None]
        weight += share
    return total / weight[..., None], weight
