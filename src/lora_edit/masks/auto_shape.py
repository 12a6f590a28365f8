"""Automatic choice of the region's shape: the mask itself where the edit stays inside it, else a box."""

from __future__ import annotations

import torch

from lora_edit.masks.change_detection import detect_changed_area, remove_small_components
from lora_edit.masks.shapes import dilate, shape_mask
from lora_edit.types import EditMask

OUTLINE_GROWTH = 0.028
"""Growth of an outline, as a share of the frame's shorter side. Masks end on the object's edge, edges are soft, and compositing blends the
source in along the inside of the region's edge (`compositing.feather`). The growth keeps the object's own rim out of that blend."""

MAX_SHARE_BEYOND = 0.03
"""Share of the changed pixels outside the grown outline above which the edit counts as leaving the mask."""


def auto_shape_mask(drawn_mask: EditMask, source_frame: torch.Tensor, edited_frame: torch.Tensor, expand: float, smooth: int) -> EditMask:
    """Build the region of a drawn mask from its outline or from boxes, and add a note that names the choice.

    The outline, slightly grown, is used where the change between the frames `[H, W, 3]` uint8 stays inside it in frame 0. Otherwise the
    region is the boxes of `shape_mask`. A mask of whole frames is returned unchanged.
    """
    if drawn_mask.frames.all():
        return drawn_mask
    growth = max(1, round(OUTLINE_GROWTH * min(drawn_mask.size.height, drawn_mask.size.width)))
    outline = dilate(shape_mask(drawn_mask, "tight", expand, smooth), growth)
    change_mask = torch.from_numpy(detect_changed_area(source_frame, edited_frame))
    outside_change = remove_small_components((change_mask & ~outline.frames[0]).numpy())
    if outside_change.sum() > MAX_SHARE_BEYOND * int(change_mask.sum()):
        note = "the edit reaches beyond the mask, so the region is a loose box around it; --mask-shape tight keeps to the mask"
        return _add_note(shape_mask(drawn_mask, "box", expand, smooth), note)
    return _add_note(
        outline, f"the edit keeps to the mask, so the region is the mask, {growth} px wider; --mask-shape box gives a loose box"
    )


def _add_note(region: EditMask, note: str) -> EditMask:
    return EditMask(region.frames, (*region.notes, note))
