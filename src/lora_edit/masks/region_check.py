"""Does the region hold the edit? What the edited first frame changes, held against where the edit is to live."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from lora_edit.errors import RegionError
from lora_edit.masks.check import (
    TOLERANCE,
    change_level,
    changed_area,
    covering_box,
    to_check_size,
    to_full_size,
    without_shift,
    without_specks,
)
from lora_edit.masks.overlay import with_region
from lora_edit.types import BoolArray, EditMask

MOST = 0.6
"""Share of the picture from which an edit is one of the whole frame."""

SPREAD, STANDS_OUT = 0.2, 0.5
"""An edit that changes at least this share of the picture, and less than this share of its change stands out, is a style or a light: one of
the whole frame."""

HELD = 0.5
"""Share of the change, and of the changed parts that it touches, that a region has to hold."""

WHOLE = "whole-frame edit: the edited first frame changes most of the picture; to edit a part of it only, give --mask or --box"

GO_ON = "or go on all the same with --set masks.check=false"

CHANGED_TINT = (230, 60, 60)
"""Colour of what the edited first frame changes."""


def changes_most(source_frame: torch.Tensor, edited_frame: torch.Tensor) -> bool:
    """Does the edited frame change most of the picture, as a style or another light does? Frames are `[H, W, 3]` uint8."""
    source_frame, edited_frame = to_check_size(source_frame), to_check_size(edited_frame)
    level = change_level(without_shift(source_frame, edited_frame))
    changed = changed_area(source_frame, edited_frame)
    if changed.mean() > MOST:
        return True
    stands_out = float(level[changed].sum()) / max(float(level.sum()), 1e-6)
    return bool((level > TOLERANCE).mean() >= SPREAD) and stands_out < STANDS_OUT


def check_region(source_frame: torch.Tensor, edited_frame: torch.Tensor, drawn: EditMask, region: EditMask, given: str) -> None:
    """Raise `RegionError` when the region leaves out most of what the edited first frame changes.

    `drawn` is the mask before it was shaped into `region`; `given` the option that it came from. What a person left out on purpose passes:
    one of several changed things may be chosen, as long as most of that thing is held.
    """
    source, edited = to_check_size(source_frame), to_check_size(edited_frame)
    whole = changes_most(source, edited)
    difference = without_shift(source, edited)
    changed = np.asarray(change_level(difference) > TOLERANCE) if whole else changed_area(source, edited)
    outline, inside = (to_check_size(mask.frames[0]).numpy() for mask in (drawn, region))
    inverted = given == "--mask" and _is_inverted(changed, outline)
    if not inverted and _holds(changed, inside, np.abs(difference).max(-1) > TOLERANCE):
        return
    box = to_full_size(covering_box(changed), changed.shape, source_frame.shape)
    remedy = f"give --box {box.left:g},{box.top:g},{box.width:g},{box.height:g}"
    if inverted:
        where, remedy = f"{given} covers what was not edited, and not what was", "invert it (white = edit)"
    elif not inside.any():
        where = f"{given} is empty in frame 0, which the edited first frame changes"
    else:
        share = float((changed & ~inside).sum() / changed.sum())
        where = f"{share:.0%} of what the edited first frame changes lies outside of {given}"
        remedy = "leave it out to edit the whole frame" if whole else remedy
    raise RegionError(f"{where}; {remedy}, {GO_ON}", _picture(edited_frame, drawn.frames[0] if inverted else region.frames[0], changed))


def _is_inverted(changed: BoolArray, outline: BoolArray) -> bool:
    """Is the outline what surrounds the change: large or all around the frame, and changed hardly anywhere?"""
    if not changed.any() or not outline.any():
        return False
    around = outline.mean() > 0.5 or sum(side.mean() > 0.5 for side in _sides(outline)) >= 3
    return bool(around and changed[outline].sum() < 0.1 * changed.sum() and changed[outline].mean() < 0.02)


def _holds(changed: BoolArray, inside: BoolArray, altered: BoolArray) -> bool:
    """Does the region hold most of the change, or at least of the changed parts that it touches? Inside even specks of `altered` count."""
    out, held = without_specks(changed & ~inside), (changed | altered) & inside
    if held.sum() >= HELD * (held.sum() + out.sum()):
        return True
    _, labels = cv2.connectedComponents(changed.view(np.uint8), connectivity=8)
    touched = np.isin(labels, np.unique(labels[changed & inside])) & changed
    return bool(touched.any() and (touched & inside).sum() >= HELD * touched.sum())


def touches_border(region: torch.Tensor) -> bool:
    """Does the region `[H, W]` bool reach the frame's border?"""
    return any(bool(side.any()) for side in _sides(region.numpy()))


def _sides(outline: BoolArray) -> tuple[BoolArray, BoolArray, BoolArray, BoolArray]:
    return outline[0], outline[-1], outline[:, 0], outline[:, -1]


def _picture(frame: torch.Tensor, region: torch.Tensor, changed: BoolArray) -> torch.Tensor:
    """The edited frame with its region, and what it changes (at the size of checks) outlined in red."""
    picture = with_region(frame, region).numpy()
    changed = cv2.resize(changed.view(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST).view(np.bool_)
    contours, _ = cv2.findContours(changed.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, contours, -1, CHANGED_TINT, max(1, round(min(picture.shape[:2]) / 240)), cv2.LINE_AA)
    return torch.from_numpy(picture)
