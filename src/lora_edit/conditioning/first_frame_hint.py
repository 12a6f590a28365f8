"""The first frame moved with the edit region's box: the plainest hint, which studies compare with.

Stable Video Diffusion repeats the first frame behind itself as its condition; here the part inside the box also follows the box. It uses
frame 0 and the mask alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lora_edit.types import mask_bounds

BORDER_TOLERANCE = 0.5
"""A box that comes this near to the frame's border, in pixels, may be only the visible part of its object."""


def compute_region_boxes(edit_mask: torch.Tensor) -> torch.Tensor:
    """Bounds `[T, 4]` (left, top, right, bottom; pixels) of a bool mask `[T, H, W]`, NaN in frames where it is empty."""
    boxes = torch.full((len(edit_mask), 4), torch.nan)
    for index, frame in enumerate(edit_mask):
        bounds = mask_bounds(frame)
        if bounds is not None:
            boxes[index] = torch.tensor(bounds)
    return boxes


def move_with_box(first_frame: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Frame 0 `[3, H, W]` as every frame `[3, T, H, W]`: inside the box moved and scaled with it, outside as it is.

    `boxes` is `[T, 4]` (left, top, right, bottom). Frames without a box, and clips without one in frame 0, show frame 0.
    """
    usable = torch.isfinite(boxes).all(1) & torch.isfinite(boxes[0]).all()
    index = torch.nonzero(usable).flatten()
    out = first_frame[:, None].repeat(1, len(boxes), 1, 1)
    if not len(index):
        return out
    height, width = first_frame.shape[1:]
    now, then = boxes[index].float(), boxes[0].float()
    x, inside_x = _compute_axis_positions(now[:, 0::2], then[0::2], width)
    y, inside_y = _compute_axis_positions(now[:, 1::2], then[1::2], height)
    inside = inside_y[:, :, None] & inside_x[:, None, :]
    positions = torch.stack([x[:, None, :].expand(inside.shape), y[:, :, None].expand(inside.shape)], -1).to(first_frame)
    size = first_frame.new_tensor([width, height])
    still = first_frame.expand(len(index), -1, -1, -1)
    moved = F.grid_sample(still, (2 * positions + 1) / size - 1, padding_mode="border", align_corners=False)
    out[:, index] = torch.where(inside[:, None].to(first_frame.device), moved, still).transpose(0, 1)
    return out


def _compute_axis_positions(extents: torch.Tensor, first_extent: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Along one axis: where each pixel `[N, length]` of frames with extents `now` `[N, 2]` lies in frame 0, and whether it is in the box.

    Between two whole extents the pixels are stretched. An extent cut off by the border says nothing of its object's size: then the
    other edges are matched, and with both cut the pixels stay.
    """
    pixel = torch.arange(length).float()
    start, end = extents[:, :1], extents[:, 1:]
    cut_start = (start <= BORDER_TOLERANCE) | (first_extent[0] <= BORDER_TOLERANCE)
    cut_end = (end >= length - BORDER_TOLERANCE) | (first_extent[1] >= length - BORDER_TOLERANCE)
    stretched = first_extent[0] + (pixel + 0.5 - start) * (first_extent[1] - first_extent[0]) / (end - start).clamp(min=1e-3) - 0.5
    shift = torch.where(cut_start, first_extent[1] - end, first_extent[0] - start) * ~(cut_start & cut_end)
    return torch.where(cut_start | cut_end, pixel + shift, stretched), (pixel + 0.5 >= start) & (pixel + 0.5 <= end)
