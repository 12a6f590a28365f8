"""Frames at the size that correspondence is computed at, and maps back to full size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import BoolArray, Float32Array, UInt8Array
from lora_edit.video.alignment import compose_affine, invert_affine

ROW_LIMITS = (256, 320)
"""Rows, at least and at most, of the pictures that are worked on."""


class WorkingSize:
    """Frames of one size at the size that is worked at, and maps between positions back at full size."""

    def __init__(self, height: int, width: int, rows: tuple[int, int] = ROW_LIMITS) -> None:
        self.scale = min(max(height, rows[0]), rows[1]) / height
        self.size = (max(1, round(width * self.scale)), max(1, round(height * self.scale)))
        self.ratio = np.array([self.size[0] / width, self.size[1] / height])

    def resize_image(self, frame: torch.Tensor) -> Float32Array:
        """A frame `[H, W, 3]` uint8 as floats `[h, w, 3]`."""
        method = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_CUBIC
        same = self.size == (frame.shape[1], frame.shape[0])
        picture = frame.numpy() if same else cv2.resize(np.ascontiguousarray(frame.numpy()), self.size, interpolation=method)
        return np.asarray(picture, np.float32)

    def resize_mask(self, mask: torch.Tensor) -> BoolArray:
        """A mask `[H, W]` at the size that is worked at."""
        return np.asarray(cv2.resize(mask.numpy().astype(np.float32), self.size, interpolation=cv2.INTER_AREA) > 0.5)

    def to_full_size(self, matrix: npt.NDArray[np.floating]) -> Float32Array:
        """An affine map between pictures of this size as one between frames."""
        to = np.column_stack([np.diag(self.ratio), (self.ratio - 1) / 2])
        return compose_affine(invert_affine(to), compose_affine(np.asarray(matrix, np.float64), to)).astype(np.float32)


def to_grey(image: Float32Array) -> UInt8Array:
    """A picture `[h, w, 3]`, 0..255, in grey `[h, w]`."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).round(), np.uint8)
