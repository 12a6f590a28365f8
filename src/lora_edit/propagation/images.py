"""Operations on float images `[H, W, C]` in levels of 255: wide blurs, position fields, local regression."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.video.flow import build_pixel_grid

FloatImage = npt.NDArray[np.float32]
"""`[H, W]` or `[H, W, C]`; colours in levels of 255."""


def blur(image: FloatImage, sigma: float) -> FloatImage:
    """Apply a Gaussian blur; wide blurs are computed on a downscaled image, without loss."""
    height, width = image.shape[:2]
    factor = max(1, min(int(sigma / 2), height // 8, width // 8))
    small = image if factor == 1 else cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    blurred = small if factor == 1 else cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(blurred, np.float32)


def is_outside(positions: FloatImage, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return a mask `[H', W']`, True where a position lies outside the frame."""
    x, y = positions[..., 0], positions[..., 1]
    return np.asarray((x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5))


def compute_affine_positions(matrix: FloatImage, height: int, width: int) -> FloatImage:
    """Compute the positions `[H, W, 2]` (x, y) to which `matrix` `[2, 3]` maps the pixels of an `[H, W]` frame."""
    return np.asarray(build_pixel_grid(height, width) @ matrix[:, :2].T + matrix[:, 2], np.float32)


def fit_local_gain(source: FloatImage, edited: FloatImage, sigma: float, ridge: float) -> tuple[FloatImage, FloatImage]:
    """Fit `edited = gain * source + offset` per channel by local least squares within `sigma` pixels.

    Returns the gain `[H, W, C]` and the root mean square residual `[H, W]`. `ridge` (squared levels) regularizes the gain toward 0.
    """
    mean_s, mean_e = blur(source, sigma), blur(edited, sigma)
    variance = np.maximum(blur(source * source, sigma) - mean_s**2, 0)
    covariance = blur(source * edited, sigma) - mean_s * mean_e
    gain = covariance / (variance + ridge)
    unexplained = np.maximum(blur(edited * edited, sigma) - mean_e**2, 0) - gain * covariance
    return np.asarray(gain, np.float32), np.asarray(np.sqrt(np.maximum(unexplained, 0).mean(-1)), np.float32)
