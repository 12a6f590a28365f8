"""What an edited frame changes, and the layer that these pixels make."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array, UInt8Array

CHANGE_THRESHOLD = 10
"""Levels of 255 by which a channel differs where an edit changed a pixel; less is compression or resampling."""
FEATHER_SIGMA = 0.7
"""Standard deviation in pixels of the layer's soft edge."""


def find_changed_pixels(source: UInt8Array, edited: UInt8Array, region: BoolArray) -> BoolArray:
    """Where `edited` differs from `source` (`[H, W, 3]`) within the region, without specks and pinholes, `[H, W]`.

    Every pixel that differs where tidying leaves none.
    """
    differs = region & (np.abs(source.astype(np.int16) - edited).max(-1) >= CHANGE_THRESHOLD)
    brush = np.ones((3, 3), np.uint8)
    closed = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_CLOSE, brush)
    tidy = np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, brush) > 0) & region
    return tidy if tidy.any() else differs


def extract_layer(edited: UInt8Array, changed_mask: BoolArray) -> Float32Array:
    """The pixels `changed` `[H, W]` of a frame with a soft edge: colours times opacity, and opacity in 0..1, `[H, W, 4]`."""
    inside = changed_mask.astype(np.float32)
    alpha = np.minimum(cv2.GaussianBlur(inside, (0, 0), FEATHER_SIGMA) * 1.2, 1)
    # Colours go on beyond the edge, so that it does not take up what lay around the edit.
    weight = cv2.GaussianBlur(inside, (0, 0), 2)
    beyond = cv2.GaussianBlur(edited * inside[..., None], (0, 0), 2) / np.maximum(weight, 1e-6)[..., None]
    colours = np.where(changed_mask[..., None], edited, beyond)
    return np.dstack([colours * alpha[..., None], alpha]).astype(np.float32)
