"""A region drawn over its frame, for people to look at."""

from __future__ import annotations

import cv2
import numpy as np
import torch

TINT = (56, 189, 168)
"""Colour of the edit region."""


def draw_region(frame: torch.Tensor, region: torch.Tensor, drawn_mask: torch.Tensor | None = None) -> torch.Tensor:
    """The frame `[H, W, 3]` uint8 with its edit region `[H, W]` bool tinted and outlined, what lies outside a little darker; `drawn` is the
    mask that the region was made of, tinted in its place."""
    inside, shade = (mask.numpy().view(np.uint8) for mask in (region, region if drawn_mask is None else drawn_mask))
    levels = np.arange(256)[:, None, None].repeat(3, 2)
    darker, tinted = ((share * levels + (1 - share) * np.array(colour)).astype(np.uint8) for share, colour in ((0.65, 0), (0.65, TINT)))
    picture = cv2.copyTo(frame.numpy(), inside, cv2.LUT(frame.numpy(), darker))
    picture = cv2.copyTo(cv2.LUT(picture, tinted), shade, picture)
    thick = max(1, round(min(picture.shape[:2]) / 240))
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, contours, -1, TINT, thick, cv2.LINE_AA)
    return torch.from_numpy(picture)
