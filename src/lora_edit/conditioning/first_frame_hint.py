"""The first frame moved with the edit region's box: the simplest hint, a baseline of the studies.

Stable Video Diffusion repeats the first frame over time as its condition; here the content of the box also follows the box. The hint uses
only frame 0 and the mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lora_edit.types import mask_bounds

BORDER_TOLERANCE = 0.5
"""Distance to the frame's border, in pixels, within which a box may show only a part of its object."""


def compute_region_boxes(edit_mask: torch.Tensor) -> torch.Tensor:
    """Compute the bounds `[T, 4]` (left, top, right, bottom; pixels) of a bool mask `[T, H, W]`, NaN in frames where it is empty."""
    boxes = torch.full((len(edit_mask), 4), torch.nan)
    for index, frame in enumerate(edit_mask):
        bounds = mask_bounds(frame)
        if bounds is not None:
            boxes[index] = torch.tensor(bounds)
    return boxes


def move_with_box(first_frame: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Repeat frame 0 `[3, H, W]` as a clip `[3, T, H, W]` whose content inside the box is moved and scaled with the box.

    `boxes` is `[T, 4]` (left, top, right, bottom). Frames without a box, and all frames of clips without a box in frame 0, equal frame 0.
    """
    usable = torch.isfinite(boxes).all(1) & torch.isfinite(boxes[0]).all()
    index = torch.nonzero(usable).flatten()
    video = first_frame[:, None].repeat(1, len(boxes), 1, 1)
    if not len(index):
        return video
    height, width = first_frame.shape[1:]
    frame_boxes, first_box = boxes[index].float(), boxes[0].float()
    x, inside_x = _compute_axis_positions(frame_boxes[:, 0::2], first_box[0::2], width)
    y, inside_y = _compute_axis_positions(frame_boxes[:, 1::2], first_box[1::2], height)
    inside = inside_y[:, :, None] & inside_x[:, None, :]
    positions = torch.stack([x[:, None, :].expand(inside.shape), y[:, :, None].expand(inside.shape)], -1).to(first_frame)
    size = first_frame.new_tensor([width, height])
    still = first_frame.expand(len(index), -1, -1, -1)
    moved = F.grid_sample(still, (2 * positions + 1) / size - 1, padding_mode="border", align_corners=False)
    video[:, index] = torch.where(inside[:, None].to(first_frame.device), moved, still).transpose(0, 1)
    return video


def _compute_axis_positions(extents: torch.Tensor, first_extent: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute, along one axis, each pixel's position `[N, length]` in frame 0 and whether it is in the box, for `extents` `[N, 2]`.

    Pixels are stretched between two complete extents. The object's size is unknown if the border cuts an extent: then the other edges are
    matched, and with both edges cut the pixels do not move.
    """
    pixel = torch.arange(length).float()
    start, end = extents[:, :1], extents[:, 1:]
    cut_start = (start <= BORDER_TOLERANCE) | (first_extent[0] <= BORDER_TOLERANCE)
    cut_end = (end >= length - BORDER_TOLERANCE) | (first_extent[1] >= length - BORDER_TOLERANCE)
    stretched = first_extent[0] + (pixel + 0.5 - start) * (first_extent[1] - first_extent[0]) / (end - start).clamp(min=1e-3) - 0.5
    shift = torch.where(cut_start, first_extent[1] - end, first_extent[0] - start) * ~(cut_start & cut_end)
    return torch.where(cut_start | cut_end, pixel + shift, stretched), (pixel + 0.5 >= start) & (pixel + 0.5 <= end)
