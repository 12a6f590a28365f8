"""Masks of one frame `[h, w]` bool: grown and shrunk by discs, how far pixels are from their edge, the window that holds them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import BoolArray, Float32Array

PixelSlices = tuple[slice, slice]
"""Rows and columns."""


def build_disc_kernel(radius: int) -> cv2.typing.MatLike:
    """A round kernel."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def dilate_mask(mask: BoolArray, radius: int) -> BoolArray:
    """The mask grown by a disc; by its distances where the disc is large, which is quicker."""
    if radius > 4:
        return np.asarray(cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3) <= radius)
    return np.asarray(cv2.dilate(mask.view(np.uint8), build_disc_kernel(radius)) > 0)


def erode_mask(mask: BoolArray, radius: int) -> BoolArray:
    """The mask shrunk by a disc; the frame's border is no edge."""
    return np.asarray(cv2.erode(mask.view(np.uint8), build_disc_kernel(radius)) > 0)


def compute_ring(mask: BoolArray, width: int, gap: int = 2) -> BoolArray:
    """What lies around the mask, from `gap` pixels out to `width` more."""
    away = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3)
    return np.asarray((away > gap) & (away <= gap + width) & mask.any())


def compute_signed_distance(mask: BoolArray) -> Float32Array:
    """Pixels to the edge, positive inside."""
    inner, outer = (cv2.distanceTransform(part.view(np.uint8), cv2.DIST_L2, 3) for part in (mask, ~mask))
    return np.asarray(np.clip(inner - outer, -1e4, 1e4), np.float32)


def find_bounds(mask: BoolArray) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what is set, the last two exclusive; None where nothing is."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def find_slices(mask: BoolArray, margin: int) -> PixelSlices:
    """The rows and columns that hold what is set and `margin` pixels around it; the whole frame where nothing is."""
    found = find_bounds(mask)
    if found is None:
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    left, top, right, bottom = found
    return slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)


def max_over_channels(values: cv2.typing.MatLike) -> Float32Array:
    """The largest of three channels, `[h, w]` of `[h, w, 3]`."""
    first, second, third = cv2.split(values)
    return np.asarray(cv2.max(cv2.max(first, second), third), np.float32)


def max_channel_difference(one: npt.NDArray[np.float32 | np.uint8], other: npt.NDArray[np.float32 | np.uint8]) -> Float32Array:
    """Levels by which two pictures `[h, w, 3]` differ, in the channel where they differ most: `[h, w]`."""
    return max_over_channels(cv2.absdiff(one.astype(np.float32), other.astype(np.float32)))
