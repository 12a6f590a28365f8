"""What of a clip some of its frames never show: the other side of a turning head, what comes into the picture later."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from lora_edit.types import Size
from lora_edit.video.flow import chain_flow_in_order, sample_image
from lora_edit.video.resize import resize_frames

MAX_ROWS = 160
"""Rows of the pictures that are compared, at most: a share of an area needs no more."""

DIFFERENCE_THRESHOLD = 24.0
"""Levels of 255, over a neighbourhood and light apart, from which what a known frame shows is not what is here."""


def compute_unseen_shares(frames: torch.Tensor, region: torch.Tensor, known_frames: Sequence[int] = (0,)) -> list[float]:
    """For each of `frames` `[T, H, W, 3]` uint8 the share of its pixels that lie in `region` `[T, H, W]` bool and that no frame number
    `given` shows, moved here by optical flow."""
    height = min(MAX_ROWS, frames.shape[1])
    size = Size(height, max(1, round(frames.shape[2] * height / frames.shape[1])))
    small = resize_frames(frames, size)
    inside = [cv2.resize(each.numpy().view(np.uint8), (size.width, size.height), interpolation=cv2.INTER_NEAREST) > 0 for each in region]
    least = np.ones((len(frames), size.height, size.width), bool)
    for known in known_frames:
        for order in (range(known, len(frames)), range(known, -1, -1)):
            for number, places in zip(order, chain_flow_in_order(small, order), strict=True):
                least[number] &= _find_differences(small[known].numpy(), small[number].numpy(), places, inside[number])
    return [float((lacking & here).mean()) for lacking, here in zip(least, inside, strict=True)]


def suggest_next_frame(shares: Sequence[float], region: torch.Tensor, min_share: float = 0.1) -> int | None:
    """The frame with the largest unseen area; None when that is less than the share `least` of its region, or of no frame's."""
    best = max(range(len(shares)), key=lambda number: shares[number])
    return best if best and shares[best] > min_share * float(region[best].float().mean()) else None


def _find_differences(known_image: np.ndarray, current_image: np.ndarray, flow_to_known: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Where the known picture, moved to `places` `[h, w, 2]`, shows something else than the picture here."""
    moved = sample_image(known_image, flow_to_known)
    difference = cv2.GaussianBlur(moved, (0, 0), 1.5) - cv2.GaussianBlur(current_image.astype(np.float32), (0, 0), 1.5)
    light = np.median(difference[region], axis=0) if region.any() else np.zeros(3, np.float32)
    edge = np.array([known_image.shape[1], known_image.shape[0]]) - 0.5
    within = ((flow_to_known >= -0.5) & (flow_to_known <= edge)).all(-1)
    return np.asarray((np.abs(difference - light).max(-1) > DIFFERENCE_THRESHOLD) | ~within, bool)
