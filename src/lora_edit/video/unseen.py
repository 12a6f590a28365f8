"""What of a clip some of its frames never show: the other side of a turning head, what comes into the picture later."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from lora_edit.types import Size
from lora_edit.video.flow import places_along, sample
from lora_edit.video.resize import resize_frames

ROWS = 160
"""Rows of the pictures that are compared, at most: a share of an area needs no more."""

ANOTHER = 24.0
"""Levels of 255, over a neighbourhood and light apart, from which what a known frame shows is not what is here."""


def unseen_shares(frames: torch.Tensor, region: torch.Tensor, given: Sequence[int] = (0,)) -> list[float]:
    """For each of `frames` `[T, H, W, 3]` uint8 the share of its pixels that lie in `region` `[T, H, W]` bool and that no frame number
    `given` shows, moved here by optical flow."""
    height = min(ROWS, frames.shape[1])
    size = Size(height, max(1, round(frames.shape[2] * height / frames.shape[1])))
    small = resize_frames(frames, size)
    inside = [cv2.resize(each.numpy().view(np.uint8), (size.width, size.height), interpolation=cv2.INTER_NEAREST) > 0 for each in region]
    least = np.ones((len(frames), size.height, size.width), bool)
    for known in given:
        for order in (range(known, len(frames)), range(known, -1, -1)):
            for number, places in zip(order, places_along(small, order), strict=True):
                least[number] &= _differs(small[known].numpy(), small[number].numpy(), places, inside[number])
    return [float((lacking & here).mean()) for lacking, here in zip(least, inside, strict=True)]


def next_to_edit(shares: Sequence[float], region: torch.Tensor, least: float = 0.1) -> int | None:
    """The frame with the largest unseen area; None when that is less than the share `least` of its region, or of no frame's."""
    best = max(range(len(shares)), key=lambda number: shares[number])
    return best if best and shares[best] > least * float(region[best].float().mean()) else None


def _differs(known: np.ndarray, here: np.ndarray, places: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Where the known picture, moved to `places` `[h, w, 2]`, shows something else than the picture here."""
    moved = sample(known, places)
    difference = cv2.GaussianBlur(moved, (0, 0), 1.5) - cv2.GaussianBlur(here.astype(np.float32), (0, 0), 1.5)
    light = np.median(difference[inside], axis=0) if inside.any() else np.zeros(3, np.float32)
    edge = np.array([known.shape[1], known.shape[0]]) - 0.5
    within = ((places >= -0.5) & (places <= edge)).all(-1)
    return np.asarray((np.abs(difference - light).max(-1) > ANOTHER) | ~within, bool)
