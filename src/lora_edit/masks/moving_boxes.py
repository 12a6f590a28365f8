"""Boxes that a person draws in the first frame only: they go with what the edited first frame changes in them.

Boxes of one object at several frames are a person's own path, which is kept exactly.
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
"""Share of the frame's shorter side up to which a box's edges count as still: then it stays exactly where it was drawn."""


def track_boxes(
    frames: torch.Tensor,
    edited_frame: torch.Tensor,
    boxes: Sequence[KeyframeBox],
    on_frame: OnFrame = lambda done, total: None,
) -> list[RegionTrack]:
    """The region of every box in `frames` `[T, H, W, 3]` uint8, whose first is `edited_first` `[H, W, 3]` after the edit.

    An object's only box, in the first frame, goes with what the edit changes in it; it stays where the edit changes nothing in it, where
    that can't be followed, and where it holds the whole frame. Boxes at several frames, or at a later one, are drawn by
    `mask_from_boxes`, which says what it raises.
    `on_frame` is told how many frames are done, of how many.
    """
    size = Size(frames.shape[1], frames.shape[2])
    mask_from_boxes(boxes, len(frames), size)  # every box is checked before any is followed
    paths = {box.name for box in boxes if box.frame}
    moving = [box for box in boxes if box.name not in paths]
    kept = [box for box in boxes if box.name in paths]
    changed = detect_changed_area(frames[0], edited_frame)
    regions = [RegionTrack(mask_from_boxes(kept, len(frames), size))] if kept else []
    for number, box in enumerate(moving):
        regions.append(_build_box_region(frames, changed, box, scale_progress(on_frame, number, len(moving))))
    return regions


def _build_box_region(frames: torch.Tensor, change_mask: BoolArray, drawn_box: KeyframeBox, on_frame: OnFrame) -> RegionTrack:
    """One box with what of the changed area `[H, W]` lies in it."""
    still = mask_from_boxes([drawn_box], len(frames), Size(frames.shape[1], frames.shape[2]))
    inside = change_mask & still.frames[0].numpy()
    if still.frames[0].all() or not inside.any():
        return RegionTrack(still)
    track = track_box(frames, select_main_parts(inside), drawn_box.box, on_frame)
    moved = float(np.abs(track.edges - box_to_edges(drawn_box.box)).max())
    if moved <= MAX_STILL_MOTION * min(frames.shape[1:3]):
        return RegionTrack(still)
    mask = track.to_mask(frames.shape[1:3])
    mask[0] = still.frames[0]  # as it was drawn, to the pixel
    box = drawn_box.box
    place, last = f"--box {box.left:g},{box.top:g},{box.width:g},{box.height:g}", len(frames) - 1
    note = f"{place} goes with what the edit changes in it, by up to {moved:.0f} pixels"
    found = build_region_track(mask, track, (*still.notes, f"{note}; for a box that stays, give {place}:0 {place}:{last}"))
    if not found.exceeds_lost_share:
        return found
    # Where to edit was said; that it goes with the thing is a help, and no reason to refuse the clip.
    note = (
        f"what the edit changes in {place} could not be followed from frame {found.lost_frames[0]} on, so the box stays where it was drawn"
    )
    return RegionTrack(EditMask(still.frames, (*still.notes, f"{note}; where the thing leaves it, give --box at several frames")))
