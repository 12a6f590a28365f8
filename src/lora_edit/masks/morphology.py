"""Operations on masks of one frame `[h, w]` bool: growing and shrinking by discs, distances to the edge, and bounding windows."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import BoolArray, Float32Array, mask_bounds

PixelSlices = tuple[slice, slice]
"""Slices of rows and columns."""


def build_disc_kernel(radius: int) -> cv2.typing.MatLike:
    """Build a round kernel."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def dilate_mask(mask: BoolArray, radius: int) -> BoolArray:
    """Grow the mask by a disc. Large discs use distances, which are faster."""
    if radius > 4:
        return np.asarray(cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3) <= radius)
    return np.asarray(cv2.dilate(mask.view(np.uint8), build_disc_kernel(radius)) > 0)


def erode_mask(mask: BoolArray, radius: int) -> BoolArray:
    """Shrink the mask by a disc. The frame's border is not an edge."""
    return np.asarray(cv2.erode(mask.view(np.uint8), build_disc_kernel(radius)) > 0)


def compute_ring(mask: BoolArray, width: int, gap: int = 2) -> BoolArray:
    """Return the ring around the mask that starts at `gap` pixels and is `width` pixels wide."""
    distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3)
    return np.asarray((distance > gap) & (distance <= gap + width) & mask.any())


def compute_signed_distance(mask: BoolArray) -> Float32Array:
    """Compute the distance to the edge in pixels, positive inside."""
    inner, outer = (cv2.distanceTransform(part.view(np.uint8), cv2.DIST_L2, 3) for part in (mask, ~mask))
    return np.asarray(np.clip(inner - outer, -1e4, 1e4), np.float32)


def find_slices(mask: BoolArray, margin: int) -> PixelSlices:
    """Return the rows and columns that contain the True pixels and a `margin` around them, or the whole frame where there are none."""
    bounds = mask_bounds(mask)
    if bounds is None:
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    left, top, right, bottom = bounds
    return slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)


def max_over_channels(values: cv2.typing.MatLike) -> Float32Array:
    """Compute the maximum of three channels, `[h, w]` of `[h, w, 3]`."""
    first, second, third = cv2.split(values)
    return np.asarray(cv2.max(cv2.max(first, second), third), np.float32)


def max_channel_difference(one: npt.NDArray[np.float32 | np.uint8], other: npt.NDArray[np.float32 | np.uint8]) -> Float32Array:
    """Compute the absolute difference of two pictures `[h, w, 3]` in the channel where it is largest: `[h, w]` in levels."""
    return max_over_channels(cv2.absdiff(one.astype(np.float32), other.astype(np.float32)))
