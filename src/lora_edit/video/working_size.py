"""Working size of correspondence: resizing of frames and masks, and conversion of maps back to full size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import BoolArray, Float32Array, Float64Array, UInt8Array
from lora_edit.video.alignment import compose_affine, invert_affine

ROW_LIMITS = (256, 320)
"""Smallest and largest number of rows of the working size."""


class WorkingSize:
    """Converter between frames `[H, W]` of one size and the working size `[h, w]`, which has at least and at most `rows` rows."""

    def __init__(self, height: int, width: int, rows: tuple[int, int] = ROW_LIMITS) -> None:
        self.scale = min(max(height, rows[0]), rows[1]) / height
        self.size = (max(1, round(width * self.scale)), max(1, round(height * self.scale)))
        self.ratio = np.array([self.size[0] / width, self.size[1] / height])

    def resize_image(self, frame: torch.Tensor) -> Float32Array:
        """Resize a frame `[H, W, 3]` uint8 to floats `[h, w, 3]`."""
        method = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_CUBIC
        is_same_size = self.size == (frame.shape[1], frame.shape[0])
        image = frame.numpy() if is_same_size else cv2.resize(np.ascontiguousarray(frame.numpy()), self.size, interpolation=method)
        return np.asarray(image, np.float32)

    def resize_mask(self, mask: torch.Tensor) -> BoolArray:
        """Resize a mask `[H, W]` to `[h, w]`."""
        return np.asarray(cv2.resize(mask.numpy().astype(np.float32), self.size, interpolation=cv2.INTER_AREA) > 0.5)

    def to_full_size(self, matrix: npt.NDArray[np.floating]) -> Float32Array:
        """Convert an affine map between images of the working size to one between frames."""
        resizing = self._build_resizing_matrix()
        return compose_affine(invert_affine(resizing), compose_affine(np.asarray(matrix, np.float64), resizing)).astype(np.float32)

    def to_working_size(self, matrix: npt.NDArray[np.floating]) -> Float32Array:
        """Convert an affine map between frames to one between images of the working size."""
        resizing = self._build_resizing_matrix()
        return compose_affine(resizing, compose_affine(np.asarray(matrix, np.float64), invert_affine(resizing))).astype(np.float32)

    def _build_resizing_matrix(self) -> Float64Array:
        """Build the affine map from a frame's pixels to those of the working size."""
        return np.column_stack([np.diag(self.ratio), (self.ratio - 1) / 2])


def to_grey(image: Float32Array) -> UInt8Array:
    """Convert an image `[h, w, 3]`, 0..255, to grey `[h, w]`."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).round(), np.uint8)
