"""Splitting of a region into parts: separate objects move independently and are predicted separately."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import BoolArray

MAX_PARTS = 4
"""Largest number of parts; smaller ones are merged into the nearest of these."""
MIN_PART_SHARE = 0.02
"""Smallest number of changed pixels in a part, as a share of the largest part's."""


def split_region(region: BoolArray, changed_mask: BoolArray) -> list[BoolArray]:
    """Split a region `[T, H, W]` into one region per separately edited object; their union is the region.

    `changed_mask` `[H, W]` marks the pixels that the edit changes in the first frame. In every frame, a pixel belongs to the part that was
    nearest in the previous one.
    """
    _, labels = cv2.connectedComponents(region[0].astype(np.uint8))
    counts = np.bincount(labels[changed_mask & region[0]], minlength=labels.max() + 1)
    counts[0] = 0
    part_labels = [int(n) for n in np.argsort(-counts)[:MAX_PARTS] if counts[n] > MIN_PART_SHARE * counts.max()]
    if len(part_labels) < 2:
        return [region]
    parts = [np.zeros_like(region) for _ in part_labels]
    masks = [np.asarray(labels == n, np.bool_) for n in part_labels]
    for number, frame_region in enumerate(region):
        nearest = np.argmin([_compute_distance(mask) for mask in masks], axis=0)
        for part_index, part in enumerate(parts):
            part[number] = frame_region & (nearest == part_index)
        # A part that is hidden for some frames keeps its last mask.
        masks = [part[number] if part[number].any() else mask for part, mask in zip(parts, masks, strict=True)]
    return parts


def _compute_distance(mask: BoolArray) -> npt.NDArray[np.float32]:
    """Compute each pixel's distance to the mask, in pixels, `[H, W]`."""
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3), np.float32)
