"""The region's shape by what was given and what the edit does: close to a mask that the edit keeps to, else a box."""

from __future__ import annotations

import torch

from lora_edit.masks.change_detection import detect_changed_area, remove_small_components
from lora_edit.masks.shapes import dilate, shape_mask
from lora_edit.types import EditMask

OUTLINE_GROWTH = 0.028
"""By how much of the frame's shorter side an outline is grown: masks end on the edge, edges are soft, and compositing blends the source in
along the inside of the region's edge (`compositing.feather`), which must not be the thing's own rim."""

MAX_SHARE_BEYOND = 0.03
"""Share of the change beyond the grown outline from which the edit leaves it."""


def auto_shape_mask(drawn_mask: EditMask, source_frame: torch.Tensor, edited_frame: torch.Tensor, expand: float, smooth: int) -> EditMask:
    """The region of a mask that was `drawn`: its outline, slightly grown, where the change between the frames `[H, W, 3]` uint8 keeps to it
    in frame 0, else boxes as of `shape_mask`. A note says which."""
    if drawn_mask.frames.all():
        return drawn_mask
    pixels = max(1, round(OUTLINE_GROWTH * min(drawn_mask.size.height, drawn_mask.size.width)))
    outline = dilate(shape_mask(drawn_mask, "tight", expand, smooth), pixels)
    changed = torch.from_numpy(detect_changed_area(source_frame, edited_frame))
    beyond = remove_small_components((changed & ~outline.frames[0]).numpy())
    if beyond.sum() > MAX_SHARE_BEYOND * int(changed.sum()):
        note = "the edit reaches beyond the mask, so the region is a loose box around it; --mask-shape tight keeps to the mask"
        return _add_note(shape_mask(drawn_mask, "box", expand, smooth), note)
    return _add_note(
        outline, f"the edit keeps to the mask, so the region is the mask, {pixels} px wider; --mask-shape box gives a loose box"
    )


def _add_note(region: EditMask, note: str) -> EditMask:
    return EditMask(region.frames, (*region.notes, note))
