"""Float pictures `[H, W, C]` in levels of 255: wide blurs, fields of positions, local regression."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.video.flow import build_pixel_grid

FloatImage = npt.NDArray[np.float32]
"""`[H, W]` or `[H, W, C]`; colours in levels of 255."""


def blur(image: FloatImage, sigma: float) -> FloatImage:
    """Gaussian blur; wide ones are computed on a smaller image, where they lose nothing."""
    height, width = image.shape[:2]
    part = max(1, min(int(sigma / 2), height // 8, width // 8))
    small = image if part == 1 else cv2.resize(image, (width // part, height // part), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / part)
    out = small if part == 1 else cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(out, np.float32)


def is_outside(positions: FloatImage, height: int, width: int) -> npt.NDArray[np.bool_]:
    """`[H', W']`: True where a position lies beyond the frame."""
    x, y = positions[..., 0], positions[..., 1]
    return np.asarray((x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5))


def compute_affine_positions(matrix: FloatImage, height: int, width: int) -> FloatImage:
    """Where `matrix` `[2, 3]` takes each pixel of an `[H, W]` frame, `[H, W, 2]`."""
    return np.asarray(build_pixel_grid(height, width) @ matrix[:, :2].T + matrix[:, 2], np.float32)


def fit_local_gain(source: FloatImage, edited: FloatImage, sigma: float, ridge: float) -> tuple[FloatImage, FloatImage]:
    """Local least squares `edited = gain * source + offset` per channel within `sigma` pixels.

    Returns the gain `[H, W, C]` and the root mean square `[H, W]` that it leaves unexplained. `ridge` (squared levels) pulls the gain to 0.
    """
    mean_s, mean_e = blur(source, sigma), blur(edited, sigma)
    variance = np.maximum(blur(source * source, sigma) - mean_s**2, 0)
    covariance = blur(source * edited, sigma) - mean_s * mean_e
    gain = covariance / (variance + ridge)
    left = np.maximum(blur(edited * edited, sigma) - mean_e**2, 0) - gain * covariance
    return np.asarray(gain, np.float32), np.asarray(np.sqrt(np.maximum(left, 0).mean(-1)), np.float32)
