"""Disocclusion: content of a clip that its known frames never show.

Examples are the other side of a turning head, and objects that enter the frame later.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from lora_edit.types import Size
from lora_edit.video.flow import chain_flow_in_order, sample_image
from lora_edit.video.resize import resize_frames

MAX_ROWS = 160
"""Largest number of rows of the compared images; a share of an area needs no more."""

DIFFERENCE_THRESHOLD = 24.0
"""Blurred, light-corrected difference in levels of 255 above which a known frame shows other content than the current one."""


def compute_unseen_shares(frames: torch.Tensor, region: torch.Tensor, known_frames: Sequence[int] = (0,)) -> list[float]:
    """Compute the unseen share of each of `frames` `[T, H, W, 3]` uint8.

    This is the share of the frame's pixels that lie in `region` `[T, H, W]` bool and that none of the frames `known_frames`, warped by
    optical flow, shows.
    """
    height = min(MAX_ROWS, frames.shape[1])
    size = Size(height, max(1, round(frames.shape[2] * height / frames.shape[1])))
    small = resize_frames(frames, size)
    regions = [cv2.resize(mask.numpy().view(np.uint8), (size.width, size.height), interpolation=cv2.INTER_NEAREST) > 0 for mask in region]
    unseen = np.ones((len(frames), size.height, size.width), bool)
    for known in known_frames:
        for order in (range(known, len(frames)), range(known, -1, -1)):
            for number, flow_to_known in zip(order, chain_flow_in_order(small, order), strict=True):
                unseen[number] &= _find_differences(small[known].numpy(), small[number].numpy(), flow_to_known, regions[number])
    return [float((frame_unseen & frame_region).mean()) for frame_unseen, frame_region in zip(unseen, regions, strict=True)]


def suggest_next_frame(shares: Sequence[float], region: torch.Tensor, min_share: float = 0.1) -> int | None:
    """Suggest the frame with the largest unseen area as the next one to edit.

    Returns None when that is frame 0, or when the unseen area is at most `min_share` of the frame's region.
    """
    best = max(range(len(shares)), key=lambda number: shares[number])
    return best if best and shares[best] > min_share * float(region[best].float().mean()) else None


def _find_differences(known_image: np.ndarray, current_image: np.ndarray, flow_to_known: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Find the pixels where the known image, warped by `flow_to_known` `[h, w, 2]`, differs from the current image."""
    warped = sample_image(known_image, flow_to_known)
    difference = cv2.GaussianBlur(warped, (0, 0), 1.5) - cv2.GaussianBlur(current_image.astype(np.float32), (0, 0), 1.5)
    light = np.median(difference[region], axis=0) if region.any() else np.zeros(3, np.float32)
    edge = np.array([known_image.shape[1], known_image.shape[0]]) - 0.5
    in_frame = ((flow_to_known >= -0.5) & (flow_to_known <= edge)).all(-1)
    return np.asarray((np.abs(difference - light).max(-1) > DIFFERENCE_THRESHOLD) | ~in_frame, bool)
