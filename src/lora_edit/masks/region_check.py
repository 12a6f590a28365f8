"""Does the region hold the edit? What the edited first frame changes, held against where the edit is to live."""

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
"""Share of the picture from which an edit is one of the whole frame."""

MIN_STYLE_SHARE, MAX_STYLE_PROMINENCE = 0.2, 0.5
"""An edit that changes at least this share of the picture, and less than this share of its change stands out, is a style or a light: one of
the whole frame."""

MIN_COVERED_SHARE = 0.5
"""Share of the change, and of the changed parts that it touches, that a region has to hold."""

WHOLE_FRAME_NOTE = "whole-frame edit: the edited first frame changes most of the picture; to edit a part of it only, give --mask or --box"

CONTINUE_HINT = "or go on all the same with --set masks.check=false"

CHANGED_TINT = (230, 60, 60)
"""Colour of what the edited first frame changes."""


def is_whole_frame_edit(source_frame: torch.Tensor, edited_frame: torch.Tensor) -> bool:
    """Does the edited frame change most of the picture, as a style or another light does? Frames are `[H, W, 3]` uint8."""
    source_frame, edited_frame = resize_to_check_size(source_frame), resize_to_check_size(edited_frame)
    level = compute_change_level(subtract_colour_shift(source_frame, edited_frame))
    changed = detect_changed_area(source_frame, edited_frame)
    if changed.mean() > WHOLE_FRAME_SHARE:
        return True
    stands_out = float(level[changed].sum()) / max(float(level.sum()), 1e-6)
    return bool((level > TOLERANCE).mean() >= MIN_STYLE_SHARE) and stands_out < MAX_STYLE_PROMINENCE


def check_region(source_frame: torch.Tensor, edited_frame: torch.Tensor, drawn_mask: EditMask, region: EditMask, option: str) -> None:
    """Raise `RegionError` when the region leaves out most of what the edited first frame changes.

    `drawn` is the mask before it was shaped into `region`; `given` the option that it came from. What a person left out on purpose passes:
    one of several changed things may be chosen, as long as most of that thing is held.
    """
    source, edited = resize_to_check_size(source_frame), resize_to_check_size(edited_frame)
    whole = is_whole_frame_edit(source, edited)
    difference = subtract_colour_shift(source, edited)
    changed = np.asarray(compute_change_level(difference) > TOLERANCE) if whole else detect_changed_area(source, edited)
    outline, inside = (resize_to_check_size(mask.frames[0]).numpy() for mask in (drawn_mask, region))
    inverted = option == "--mask" and _is_inverted(changed, outline)
    if not inverted and _covers_change(changed, inside, np.abs(difference).max(-1) > TOLERANCE):
        return
    box = scale_box_to_full_size(find_covering_box(changed), changed.shape, source_frame.shape)
    remedy = f"give --box {box.left:g},{box.top:g},{box.width:g},{box.height:g}"
    if inverted:
        where, remedy = f"{option} covers what was not edited, and not what was", "invert it (white = edit)"
    elif not inside.any():
        where = f"{option} is empty in frame 0, which the edited first frame changes"
    else:
        share = float((changed & ~inside).sum() / changed.sum())
        where = f"{share:.0%} of what the edited first frame changes lies outside of {option}"
        remedy = "leave it out to edit the whole frame" if whole else remedy
    raise RegionError(
        f"{where}; {remedy}, {CONTINUE_HINT}",
        _draw_region_and_change(edited_frame, drawn_mask.frames[0] if inverted else region.frames[0], changed),
    )


def _is_inverted(change_mask: BoolArray, outline: BoolArray) -> bool:
    """Is the outline what surrounds the change: large or all around the frame, and changed hardly anywhere?"""
    if not change_mask.any() or not outline.any():
        return False
    around = outline.mean() > 0.5 or sum(side.mean() > 0.5 for side in _get_border_pixels(outline)) >= 3
    return bool(around and change_mask[outline].sum() < 0.1 * change_mask.sum() and change_mask[outline].mean() < 0.02)


def _covers_change(change_mask: BoolArray, region: BoolArray, weak_change_mask: BoolArray) -> bool:
    """Does the region hold most of the change, or at least of the changed parts that it touches? Inside even specks of `altered` count."""
    out, held = remove_small_components(change_mask & ~region), (change_mask | weak_change_mask) & region
    if held.sum() >= MIN_COVERED_SHARE * (held.sum() + out.sum()):
        return True
    _, labels = cv2.connectedComponents(change_mask.view(np.uint8), connectivity=8)
    touched = np.isin(labels, np.unique(labels[change_mask & region])) & change_mask
    return bool(touched.any() and (touched & region).sum() >= MIN_COVERED_SHARE * touched.sum())


def touches_border(region: torch.Tensor) -> bool:
    """Does the region `[H, W]` bool reach the frame's border?"""
    return any(bool(side.any()) for side in _get_border_pixels(region.numpy()))


def _get_border_pixels(outline: BoolArray) -> tuple[BoolArray, BoolArray, BoolArray, BoolArray]:
    return outline[0], outline[-1], outline[:, 0], outline[:, -1]


def _draw_region_and_change(frame: torch.Tensor, region: torch.Tensor, change_mask: BoolArray) -> torch.Tensor:
    """The edited frame with its region, and what it changes (at the size of checks) outlined in red."""
    picture = draw_region(frame, region).numpy()
    change_mask = cv2.resize(change_mask.view(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST).view(np.bool_)
    contours, _ = cv2.findContours(change_mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, contours, -1, CHANGED_TINT, max(1, round(min(picture.shape[:2]) / 240)), cv2.LINE_AA)
    return torch.from_numpy(picture)
