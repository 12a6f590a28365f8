"""Check that the region covers the change in the edited first frame."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from lora_edit.errors import RegionError
from lora_edit.masks.change_detection import (
    TOLERANCE,
    compute_change_level,
    detect_changed_area,
    find_covering_box,
    remove_small_components,
    resize_to_check_size,
    scale_box_to_full_size,
    subtract_colour_shift,
)
from lora_edit.masks.overlay import draw_region
from lora_edit.types import BoolArray, EditMask

WHOLE_FRAME_SHARE = 0.6
"""Changed share of the picture above which an edit is a whole-frame edit."""

MIN_STYLE_SHARE, MAX_STYLE_PROMINENCE = 0.2, 0.5
"""An edit that changes at least the first share of the picture, and of whose change less than the second share stands out, is a change
of style or lighting: a whole-frame edit."""

MIN_COVERED_SHARE = 0.5
"""Share of the change, or of the changed parts that it touches, that a region has to cover."""

WHOLE_FRAME_NOTE = "whole-frame edit: the edited first frame changes most of the picture; to edit a part of it only, give --mask or --box"

CONTINUE_HINT = "or continue anyway with --set masks.check=false"

CHANGED_TINT = (230, 60, 60)
"""Colour of the outline around the change in the edited first frame."""


def is_whole_frame_edit(source_frame: torch.Tensor, edited_frame: torch.Tensor) -> bool:
    """Return whether the edited frame changes most of the picture, as a style or other lighting does. Frames are `[H, W, 3]` uint8."""
    source_frame, edited_frame = resize_to_check_size(source_frame), resize_to_check_size(edited_frame)
    level = compute_change_level(subtract_colour_shift(source_frame, edited_frame))
    change_mask = detect_changed_area(source_frame, edited_frame)
    if change_mask.mean() > WHOLE_FRAME_SHARE:
        return True
    prominence = float(level[change_mask].sum()) / max(float(level.sum()), 1e-6)
    return bool((level > TOLERANCE).mean() >= MIN_STYLE_SHARE) and prominence < MAX_STYLE_PROMINENCE


def check_region(source_frame: torch.Tensor, edited_frame: torch.Tensor, drawn_mask: EditMask, region: EditMask, option: str) -> None:
    """Raise `RegionError` when the region leaves out most of the change in the edited first frame.

    `drawn_mask` is the mask before it was shaped into `region`, and `option` the command-line option that gave it. A region that
    deliberately covers only one of several changed objects passes, as long as it covers most of that object.
    """
    source, edited = resize_to_check_size(source_frame), resize_to_check_size(edited_frame)
    is_whole_frame = is_whole_frame_edit(source, edited)
    difference = subtract_colour_shift(source, edited)
    change_mask = np.asarray(compute_change_level(difference) > TOLERANCE) if is_whole_frame else detect_changed_area(source, edited)
    outline, inside = (resize_to_check_size(mask.frames[0]).numpy() for mask in (drawn_mask, region))
    is_inverted = option == "--mask" and _is_inverted(change_mask, outline)
    if not is_inverted and _covers_change(change_mask, inside, np.abs(difference).max(-1) > TOLERANCE):
        return
    box = scale_box_to_full_size(find_covering_box(change_mask), change_mask.shape, source_frame.shape)
    remedy = f"give --box {box.left:g},{box.top:g},{box.width:g},{box.height:g}"
    if is_inverted:
        problem, remedy = f"{option} covers the unedited part and leaves out the edited one", "invert it (white = edit)"
    elif not inside.any():
        problem = f"{option} is empty in frame 0, which the edited first frame changes"
    else:
        share = float((change_mask & ~inside).sum() / change_mask.sum())
        problem = f"{share:.0%} of what the edited first frame changes lies outside of {option}"
        remedy = "leave it out to edit the whole frame" if is_whole_frame else remedy
    raise RegionError(
        f"{problem}; {remedy}, {CONTINUE_HINT}",
        _draw_region_and_change(edited_frame, drawn_mask.frames[0] if is_inverted else region.frames[0], change_mask),
    )


def _is_inverted(change_mask: BoolArray, outline: BoolArray) -> bool:
    """Return whether the outline covers the surroundings of the change: it is large or lies along the frame's border, and hardly
    contains any change."""
    if not change_mask.any() or not outline.any():
        return False
    covers_surroundings = outline.mean() > 0.5 or sum(side.mean() > 0.5 for side in _get_border_pixels(outline)) >= 3
    return bool(covers_surroundings and change_mask[outline].sum() < 0.1 * change_mask.sum() and change_mask[outline].mean() < 0.02)


def _covers_change(change_mask: BoolArray, region: BoolArray, weak_change_mask: BoolArray) -> bool:
    """Return whether the region covers most of the change, or most of the changed parts that it touches. Inside the region even specks
    of `weak_change_mask` count."""
    missed, covered = remove_small_components(change_mask & ~region), (change_mask | weak_change_mask) & region
    if covered.sum() >= MIN_COVERED_SHARE * (covered.sum() + missed.sum()):
        return True
    _, labels = cv2.connectedComponents(change_mask.view(np.uint8), connectivity=8)
    touched = np.isin(labels, np.unique(labels[change_mask & region])) & change_mask
    return bool(touched.any() and (touched & region).sum() >= MIN_COVERED_SHARE * touched.sum())


def touches_border(region: torch.Tensor) -> bool:
    """Return whether the region `[H, W]` bool touches the frame's border."""
    return any(bool(side.any()) for side in _get_border_pixels(region.numpy()))


def _get_border_pixels(outline: BoolArray) -> tuple[BoolArray, BoolArray, BoolArray, BoolArray]:
    return outline[0], outline[-1], outline[:, 0], outline[:, -1]


def _draw_region_and_change(frame: torch.Tensor, region: torch.Tensor, change_mask: BoolArray) -> torch.Tensor:
    """Draw the region on the edited frame, and the change (at the size of checks) outlined in red."""
    picture = draw_region(frame, region).numpy()
    change_mask = cv2.resize(change_mask.view(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST).view(np.bool_)
    contours, _ = cv2.findContours(change_mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, contours, -1, CHANGED_TINT, max(1, round(min(picture.shape[:2]) / 240)), cv2.LINE_AA)
    return torch.from_numpy(picture)
