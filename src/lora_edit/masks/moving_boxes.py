"""Boxes that are drawn in the first frame only: they move with the edited object inside them.

Boxes of one object at several frames are a path drawn by the user, which is kept exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lora_edit.masks.boxes import KeyframeBox, box_to_edges, mask_from_boxes
from lora_edit.masks.change_detection import detect_changed_area, select_main_parts
from lora_edit.masks.edit_region import RegionTrack, build_region_track, scale_progress, track_box
from lora_edit.types import BoolArray, EditMask, OnFrame, Size

MAX_STILL_MOTION = 0.02
"""Motion of a box's edges, as a share of the frame's shorter side, up to which it counts as still and keeps its exact position."""


def track_boxes(
    frames: torch.Tensor,
    edited_frame: torch.Tensor,
    boxes: Sequence[KeyframeBox],
    on_frame: OnFrame = lambda done, total: None,
) -> list[RegionTrack]:
    """Track every box through `frames` `[T, H, W, 3]` uint8, given the edited first frame `[H, W, 3]`.

    An object's only box, in the first frame, moves with the changed pixels inside it. It stays in place where the edit changes
    nothing inside it, where the change cannot be tracked, and where it covers the whole frame. Boxes at several frames, or at a later
    one, are drawn by `mask_from_boxes`, which also defines the errors raised. `on_frame` receives the number of finished frames and
    their total.
    """
    size = Size(frames.shape[1], frames.shape[2])
    mask_from_boxes(boxes, len(frames), size)  # checks every box before any is tracked
    path_names = {box.name for box in boxes if box.frame}
    moving_boxes = [box for box in boxes if box.name not in path_names]
    path_boxes = [box for box in boxes if box.name in path_names]
    change_mask = detect_changed_area(frames[0], edited_frame)
    regions = [RegionTrack(mask_from_boxes(path_boxes, len(frames), size))] if path_boxes else []
    for number, box in enumerate(moving_boxes):
        regions.append(_build_box_region(frames, change_mask, box, scale_progress(on_frame, number, len(moving_boxes))))
    return regions


def _build_box_region(frames: torch.Tensor, change_mask: BoolArray, drawn_box: KeyframeBox, on_frame: OnFrame) -> RegionTrack:
    """Track one box with the changed pixels `[H, W]` inside it."""
    static_mask = mask_from_boxes([drawn_box], len(frames), Size(frames.shape[1], frames.shape[2]))
    inside = change_mask & static_mask.frames[0].numpy()
    if static_mask.frames[0].all() or not inside.any():
        return RegionTrack(static_mask)
    track = track_box(frames, select_main_parts(inside), drawn_box.box, on_frame)
    max_motion = float(np.abs(track.edges - box_to_edges(drawn_box.box)).max())
    mask = track.to_mask(frames.shape[1:3])
    mask[0] = static_mask.frames[0]  # exactly as drawn
    box = drawn_box.box
    box_option, last_frame = f"--box {box.left:g},{box.top:g},{box.width:g},{box.height:g}", len(frames) - 1
    note = f"{box_option} follows what the edit changes in it, by up to {max_motion:.0f} pixels"
    moving_track = build_region_track(
        mask, track, (*static_mask.notes, f"{note}; for a box that stays, give {box_option}:0 {box_option}:{last_frame}")
    )
    if not moving_track.exceeds_lost_share:
        return RegionTrack(static_mask) if max_motion <= MAX_STILL_MOTION * min(frames.shape[1:3]) else moving_track
    # The user placed the box. That it moves is a convenience, so a failure to track it is a note and not an error.
    note = (
        f"what the edit changes in {box_option} could not be followed from frame {moving_track.lost_frames[0]} on, "
        "so the box stays where it was drawn"
    )
    return RegionTrack(
        EditMask(static_mask.frames, (*static_mask.notes, f"{note}; where the object leaves it, give --box at several frames"))
    )
