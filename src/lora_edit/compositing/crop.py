"""The window around the edit that the model works on, so that a small edit in a large frame gets the model's full resolution.

One window serves the whole clip: a window that moves or changes size makes the result jitter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lora_edit.types import EditMask, Size, mask_bounds

MIN_CROP_SHARE = 0.25
"""Least side of the window, share of the frame's shorter side."""

WHOLE_FRAME_SHARE = 0.8
"""A window that covers more than this share of the frame becomes the whole frame."""


@dataclass(frozen=True)
class RegionCrop:
    """A window in source pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Height and width of the window."""
        return Size(self.height, self.width)


def compute_crop(mask: EditMask, context: float, aspect: float | None = None, multiple: int = 1) -> RegionCrop:
    """The window around the union of the edit region over all frames, grown by `context` of its size on each side.

    `aspect` (width / height, the model's) widens the shorter dimension as far as the frame allows; `multiple` rounds both
    sides up to a multiple, again as far as the frame allows. An empty mask gives the whole frame.
    """
    whole = RegionCrop(0, 0, mask.size.width, mask.size.height)
    bounds = mask_bounds(mask.frames.any(0))
    if bounds is None:
        return whole
    least = MIN_CROP_SHARE * min(whole.width, whole.height)
    spans = [(bounds[0], bounds[2]), (bounds[1], bounds[3])]
    sides = [max((1 + 2 * context) * (last - first), least) for first, last in spans]
    # The frame's own border supplies no context: what it cuts off isn't asked for on the other side.
    window = [_expand_span(span, side, limit) for span, side, limit in zip(spans, sides, (whole.width, whole.height), strict=True)]
    width, height = (last - first for first, last in window)
    if aspect is not None:
        width, height = max(width, round(height * aspect)), max(height, round(width / aspect))
    left, width = _fit_span(window[0], max(width, round(least)), multiple, whole.width)
    top, height = _fit_span(window[1], max(height, round(least)), multiple, whole.height)
    return whole if width * height > WHOLE_FRAME_SHARE * whole.width * whole.height else RegionCrop(left, top, width, height)


def _expand_span(span: tuple[int, int], side: float, limit: int) -> tuple[int, int]:
    """The span grown about its middle to `side`, rounded outward and cut to `[0, limit]`."""
    margin = max(0.0, side - (span[1] - span[0])) / 2
    return max(0, math.floor(span[0] - margin)), min(limit, math.ceil(span[1] + margin))


def _fit_span(span: tuple[int, int], side: int, multiple: int, limit: int) -> tuple[int, int]:
    """First pixel and length of a stretch of at least `side` pixels around the span, moved inside `[0, limit]`."""
    side = min(limit, -(-side // multiple) * multiple)
    middle = (span[0] + span[1] - side) // 2
    return min(max(0, middle), limit - side), side


def crop_frames(frames: torch.Tensor, crop: RegionCrop) -> torch.Tensor:
    """The window of `[T, H, W, ...]` frames or masks: a view, no copy."""
    return frames[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def paste_crop(frames: torch.Tensor, patch: torch.Tensor, crop: RegionCrop) -> torch.Tensor:
    """A copy of the frames `[T, H, W, ...]` with `patch` (`[T, crop.height, crop.width, ...]`) in the window."""
    out = frames.clone()
    crop_frames(out, crop).copy_(patch)
    return out
