"""The crop around the edit that the model sees, so that a small edit in a large frame gets the model's full resolution.

All frames of a clip share one crop: a crop that moves or changes size makes the result jitter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lora_edit.types import EditMask, Size, mask_bounds

MIN_CROP_SHARE = 0.25
"""Smallest side of the crop, as a share of the frame's shorter side."""

WHOLE_FRAME_SHARE = 0.8
"""Share of the frame above which a crop becomes the whole frame."""


@dataclass(frozen=True)
class RegionCrop:
    """A rectangle in source pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Height and width of the crop."""
        return Size(self.height, self.width)


def compute_crop(mask: EditMask, context: float, aspect: float | None = None, multiple: int = 1) -> RegionCrop:
    """Compute the crop around the union of the edit region over all frames, extended by `context` of its size on each side.

    `aspect` (width / height of the model's input) widens the shorter dimension as far as the frame allows; `multiple` rounds
    both sides up to a multiple, again as far as the frame allows. An empty mask gives the whole frame.
    """
    whole = RegionCrop(0, 0, mask.size.width, mask.size.height)
    bounds = mask_bounds(mask.frames.any(0))
    if bounds is None:
        return whole
    min_side = MIN_CROP_SHARE * min(whole.width, whole.height)
    spans = [(bounds[0], bounds[2]), (bounds[1], bounds[3])]
    sides = [max((1 + 2 * context) * (last - first), min_side) for first, last in spans]
    # Context that the frame's border cuts off is not added on the other side.
    expanded = [_expand_span(span, side, limit) for span, side, limit in zip(spans, sides, (whole.width, whole.height), strict=True)]
    width, height = (last - first for first, last in expanded)
    if aspect is not None:
        width, height = max(width, round(height * aspect)), max(height, round(width / aspect))
    left, width = _fit_span(expanded[0], max(width, round(min_side)), multiple, whole.width)
    top, height = _fit_span(expanded[1], max(height, round(min_side)), multiple, whole.height)
    return whole if width * height > WHOLE_FRAME_SHARE * whole.width * whole.height else RegionCrop(left, top, width, height)


def _expand_span(span: tuple[int, int], side: float, limit: int) -> tuple[int, int]:
    """Expand the span about its centre to `side`, round outward, and clip to `[0, limit]`."""
    margin = max(0.0, side - (span[1] - span[0])) / 2
    return max(0, math.floor(span[0] - margin)), min(limit, math.ceil(span[1] + margin))


def _fit_span(span: tuple[int, int], side: int, multiple: int, limit: int) -> tuple[int, int]:
    """Compute the first pixel and length of a span of at least `side` pixels around `span`, shifted into `[0, limit]`."""
    side = min(limit, -(-side // multiple) * multiple)
    middle = (span[0] + span[1] - side) // 2
    return min(max(0, middle), limit - side), side


def crop_frames(frames: torch.Tensor, crop: RegionCrop) -> torch.Tensor:
    """Crop `[T, H, W, ...]` frames or masks; returns a view."""
    return frames[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def paste_crop(frames: torch.Tensor, patch: torch.Tensor, crop: RegionCrop) -> torch.Tensor:
    """Return a copy of the frames `[T, H, W, ...]` with `patch` `[T, crop.height, crop.width, ...]` pasted into the crop."""
    out = frames.clone()
    crop_frames(out, crop).copy_(patch)
    return out
