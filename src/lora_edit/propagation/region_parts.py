"""A region in parts: things that lie apart move each in their own way, and are predicted each for itself."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import BoolArray

MAX_PARTS = 4
"""Parts at most; smaller ones go with the nearest of these."""
MIN_PART_SHARE = 0.02
"""Share of the largest part's changed pixels that a part has to have."""


def split_region(region: BoolArray, changed_mask: BoolArray) -> list[BoolArray]:
    """The region `[T, H, W]` of each thing that the edit changes apart from others; together they are the region.

    `changed` `[H, W]` is what the edit changes in the first frame. From frame to frame a pixel belongs to the part that was nearest.
    """
    _, labels = cv2.connectedComponents(region[0].astype(np.uint8))
    counts = np.bincount(labels[changed_mask & region[0]], minlength=labels.max() + 1)
    counts[0] = 0
    chosen = [int(n) for n in np.argsort(-counts)[:MAX_PARTS] if counts[n] > MIN_PART_SHARE * counts.max()]
    if len(chosen) < 2:
        return [region]
    parts = [np.zeros_like(region) for _ in chosen]
    masks = [np.asarray(labels == n, np.bool_) for n in chosen]
    for number, whole in enumerate(region):
        nearest = np.argmin([_compute_distance(mask) for mask in masks], axis=0)
        for order, part in enumerate(parts):
            part[number] = whole & (nearest == order)
        # One that is hidden for a while comes back where it was.
        masks = [part[number] if part[number].any() else mask for part, mask in zip(parts, masks, strict=True)]
    return parts


def _compute_distance(mask: BoolArray) -> npt.NDArray[np.float32]:
    """How many pixels each pixel is away from the mask, `[H, W]`."""
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3), np.float32)
