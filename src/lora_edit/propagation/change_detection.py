"""Detection of the pixels that an edit changes, and their extraction as a layer."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array, UInt8Array

CHANGE_THRESHOLD = 10
"""Smallest difference of a channel, in levels of 255, that counts as an edit; compression and resampling stay below it."""
FEATHER_SIGMA = 0.7
"""Standard deviation in pixels of the layer's soft edge."""


def find_changed_pixels(source: UInt8Array, edited: UInt8Array, region: BoolArray) -> BoolArray:
    """Find where `edited` differs from `source` (both `[H, W, 3]`) within the region `[H, W]`. Returns a mask `[H, W]`.

    Specks and pinholes are removed, unless that would empty the mask; then every differing pixel is returned.
    """
    differs = region & (np.abs(source.astype(np.int16) - edited).max(-1) >= CHANGE_THRESHOLD)
    kernel = np.ones((3, 3), np.uint8)
    closed = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    cleaned = np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernel) > 0) & region
    return cleaned if cleaned.any() else differs


def extract_layer(edited: UInt8Array, changed_mask: BoolArray) -> Float32Array:
    """Extract the pixels in `changed_mask` `[H, W]` with a soft edge: premultiplied colours and opacity in [0, 1], `[H, W, 4]`."""
    inside = changed_mask.astype(np.float32)
    alpha = np.minimum(cv2.GaussianBlur(inside, (0, 0), FEATHER_SIGMA) * 1.2, 1)
    # Colours are extended beyond the edge, so that the soft edge does not blend in the edit's surroundings.
    weight = cv2.GaussianBlur(inside, (0, 0), 2)
    extended = cv2.GaussianBlur(edited * inside[..., None], (0, 0), 2) / np.maximum(weight, 1e-6)[..., None]
    colours = np.where(changed_mask[..., None], edited, extended)
    return np.dstack([colours * alpha[..., None], alpha]).astype(np.float32)
