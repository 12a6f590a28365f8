"""Drawing of a region over its frame, for viewing."""

from __future__ import annotations

import cv2
import numpy as np
import torch

TINT = (56, 189, 168)
"""Colour of the edit region."""


def draw_region(frame: torch.Tensor, region: torch.Tensor, drawn_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Draw the edit region `[H, W]` bool on the frame `[H, W, 3]` uint8: tinted and outlined, with the outside slightly darkened.

    Where `drawn_mask`, the mask from which the region was built, is given, it is tinted instead of the region.
    """
    inside, tinted_mask = (mask.numpy().view(np.uint8) for mask in (region, region if drawn_mask is None else drawn_mask))
    levels = np.arange(256)[:, None, None].repeat(3, 2)
    darker_levels, tinted_levels = (
        (share * levels + (1 - share) * np.array(colour)).astype(np.uint8) for share, colour in ((0.65, 0), (0.65, TINT))
    )
    picture = cv2.copyTo(frame.numpy(), inside, cv2.LUT(frame.numpy(), darker_levels))
    picture = cv2.copyTo(cv2.LUT(picture, tinted_levels), tinted_mask, picture)
    thickness = max(1, round(min(picture.shape[:2]) / 240))
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, contours, -1, TINT, thickness, cv2.LINE_AA)
    return torch.from_numpy(picture)
