"""Comparison of the edited first frame with the source: which area the edit changes, and whether it stays inside the mask.

Image editors often change more than was requested, such as a hat that extends beyond the box, or a shift of all colours. Outside the mask
the result shows the source, so such a change is cut off or jumps between the first frame and the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.errors import MaskError
from lora_edit.types import Box, Size, mask_bounds

MIN_COMPONENT_SHARE = 0.0005
"""Changed areas smaller than this share of the frame are ignored."""

MAX_SCATTERED_SHARE = 0.1
"""Share of pixels up to which isolated changed pixels are ignored: other programs convert colours slightly differently along edges."""

MAX_IDENTICAL_DIFFERENCE = 2.5
"""Mean difference in levels of 255 up to which a picture without clear change counts as the source's own frame."""

MIN_MAIN_PART_SHARE = 0.1
"""Changed areas smaller than this share of the largest do not belong to the edit: image editors alter a little everywhere."""

NEIGHBOURHOOD_SIGMA = 0.01
"""Standard deviation of the averaging neighbourhood, as a share of the frame's shorter side."""

CHECK_SIDE = 1080
"""Maximum shorter side, in pixels, at which frames are compared. Larger frames are averaged down to it."""

TOLERANCE = 12
"""Levels of 255 up to which a pixel counts as unchanged."""

MAX_COLOUR_SHIFT = 16
"""Largest shift of all colours, in levels of 255, that counts as unintended. A larger shift is an edit."""

MIN_REPORTED_SHIFT = 2.0
"""Mean difference, in levels of 255, from which a colour shift is reported. FFmpeg's conversion of frames shifts by up to 1.5."""

ASPECT_TOLERANCE = 0.02
"""Largest relative difference between the aspect ratios of the edited frame and the source."""


@dataclass(frozen=True)
class OutsideChange:
    """The change outside the mask in the edited first frame.

    - `share`: share of the outside pixels whose largest channel difference is beyond the tolerance.
    - `mean_shift`: mean difference per channel (edited - source, levels of 255) over the outside pixels, without the extreme fifth at each
      end, so that it separates a shift of all colours from a local change.
    - `suggested_box`: box around the mask and the changed area connected to it.
    """

    share: float
    mean_shift: tuple[float, float, float]
    suggested_box: Box


def detect_outside_change(
    source_frame: torch.Tensor, edited_frame: torch.Tensor, mask: torch.Tensor, tolerance: int = TOLERANCE
) -> OutsideChange | None:
    """Compare two uint8 frames `[H, W, 3]` outside the bool mask `[H, W]`. Returns None when they agree there except for specks."""
    inside = resize_to_check_size(mask).numpy()
    outside = ~inside
    if not outside.any():
        return None
    difference = _compute_difference(source_frame, edited_frame)
    shift = _compute_trimmed_mean(difference[outside])
    share = float((np.abs(difference).max(-1) > tolerance)[outside].mean())
    clear_change = _detect_clear_change(difference - shift, outside, tolerance)
    if not clear_change.any() and share < MAX_SCATTERED_SHARE:
        share = 0.0
    if not clear_change.any() and share == 0 and np.abs(shift).max() < MIN_REPORTED_SHIFT:
        return None
    red, green, blue = (float(value) for value in shift)
    linked_box = _find_linked_box(inside, clear_change)
    parts = [_find_bounding_box(mask), linked_box and scale_box_to_full_size(linked_box, clear_change.shape, mask.shape)]
    return OutsideChange(share, (red, green, blue), _enclose_boxes([part for part in parts if part], mask.shape))


def detect_changed_area(source_frame: torch.Tensor, edited_frame: torch.Tensor, tolerance: int = TOLERANCE) -> npt.NDArray[np.bool_]:
    """Return the area `[H, W]` in which two uint8 frames `[H, W, 3]` differ, ignoring a shift of all colours."""
    difference = subtract_colour_shift(source_frame, edited_frame)
    change_mask = _detect_clear_change(difference, np.ones(difference.shape[:2], bool), tolerance)
    height, width = source_frame.shape[:2]
    if change_mask.shape == (height, width):
        return change_mask
    return np.asarray(cv2.resize(change_mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)


def subtract_colour_shift(source_frame: torch.Tensor, edited_frame: torch.Tensor) -> npt.NDArray[np.float32]:
    """Compute edited - source of two uint8 frames `[H, W, 3]` without the small shift per channel that most unchanged pixels share.

    The result has the size of `resize_to_check_size`. The shift is the most frequent difference near zero, so that an edit of more than
    half of the picture is not mistaken for it.
    """
    difference = _compute_difference(source_frame, edited_frame)
    return np.asarray(difference - [_find_common_shift(difference[..., channel]) for channel in range(3)], np.float32)


def _find_common_shift(difference: npt.NDArray[np.float32]) -> int:
    counts = np.bincount(difference.astype(int).ravel() + 255, minlength=511)
    near = np.convolve(counts, [1, 2, 3, 2, 1], "same")[255 - MAX_COLOUR_SHIFT : 256 + MAX_COLOUR_SHIFT]
    return int(near.argmax()) - MAX_COLOUR_SHIFT if near.any() else 0


def resize_to_check_size(picture: torch.Tensor) -> torch.Tensor:
    """Shrink a uint8 frame `[H, W, 3]` or a bool mask `[H, W]` to the size at which frames are compared: full 8K frames would need
    gigabytes. A shrunk mask covers every pixel that it touches."""
    height, width = picture.shape[:2]
    scale = CHECK_SIDE / min(height, width)
    if scale >= 1:
        return picture
    size = (round(width * scale), round(height * scale))
    if picture.dtype == torch.bool:
        touched = cv2.resize(picture.numpy().view(np.uint8) * np.uint8(255), size, interpolation=cv2.INTER_AREA)
        return torch.from_numpy(np.asarray(touched > 0))
    return torch.from_numpy(np.asarray(cv2.resize(picture.numpy(), size, interpolation=cv2.INTER_AREA), np.uint8))


def scale_box_to_full_size(box: Box, checked_size: Sequence[int], full_size: Sequence[int]) -> Box:
    """Scale a box from pictures of `checked_size` (height, width) to pictures of `full_size`, rounded outward. Equal sizes leave it
    unchanged."""
    scale_y, scale_x = full_size[0] / checked_size[0], full_size[1] / checked_size[1]
    left, top = math.floor(box.left * scale_x), math.floor(box.top * scale_y)
    right, bottom = math.ceil(box.right * scale_x), math.ceil(box.bottom * scale_y)
    return Box(left, top, min(right, full_size[1]) - left, min(bottom, full_size[0]) - top)


def _compute_difference(source_frame: torch.Tensor, edited_frame: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(
        resize_to_check_size(edited_frame).numpy().astype(np.float32) - resize_to_check_size(source_frame).numpy(), np.float32
    )


def compute_change_level(difference: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Compute how much each pixel's neighbourhood changed, `[H, W]` in levels of 255, from a difference `[H, W, 3]`. Redrawn texture
    averages out."""
    return np.asarray(np.abs(_average_neighbourhood(difference)).max(-1), np.float32)


def _average_neighbourhood(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Average `[H, W]` or `[H, W, C]` around every pixel."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), NEIGHBOURHOOD_SIGMA * min(picture.shape[:2])), np.float32)


def _compute_trimmed_mean(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Compute the mean per channel of the middle three fifths of whole numbers `[N, 3]` from -255 to 255."""
    num_cut = len(values) // 5
    num_kept = len(values) - 2 * num_cut
    means = []
    for channel in range(3):
        counts = np.bincount(values[:, channel].astype(np.int16) + 255, minlength=511)
        cumulative = np.clip(np.cumsum(counts) - num_cut, 0, num_kept)  # number of kept values up to each level
        means.append((np.diff(cumulative, prepend=0) * np.arange(-255, 256)).sum() / num_kept)
    return np.asarray(means, dtype=np.float32)


def _detect_clear_change(difference: npt.NDArray[np.float32], outside: npt.NDArray[np.bool_], tolerance: int) -> npt.NDArray[np.bool_]:
    """Detect the area `[H, W]` outside the mask whose content differs.

    Image editors redraw every texture slightly. That noise averages out over a neighbourhood, while another object does not. The remaining
    noise (the lower half) sets the threshold. The caller removes a shift of all colours from `difference`, because a shift requires no
    larger box.
    """
    weight = outside.astype(np.float32)
    mean = _average_neighbourhood(difference * weight[..., None]) / np.maximum(_average_neighbourhood(weight), 1e-6)[..., None]
    level = np.abs(mean).max(-1)
    # For an edit of half of the picture the median is the edit itself; the lower quarter is still unedited.
    quarter, median = np.quantile(level[outside], [0.25, 0.5])
    threshold = max(float(tolerance), min(4 * float(median), 6 * float(quarter)))
    changed = (level > threshold) & (np.abs(difference).max(-1) > tolerance) & outside
    return remove_small_components(np.asarray(changed, dtype=np.bool_))


def remove_small_components(change_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Remove the parts of the area `[H, W]` that are smaller than `MIN_COMPONENT_SHARE` of the frame."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(change_mask.view(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= max(2, MIN_COMPONENT_SHARE * change_mask.size)
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)


def select_main_parts(change_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Select the largest changed area, with holes and cracks closed, and the areas that are not minor beside it."""
    side = max(3, round(0.02 * min(change_mask.shape)) | 1)
    closed = cv2.morphologyEx(change_mask.view(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(np.asarray(closed, np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0
    return np.asarray((areas >= MIN_MAIN_PART_SHARE * max(areas.max(), 1))[labels] & (labels > 0), np.bool_)


def find_covering_box(change_mask: npt.NDArray[np.bool_]) -> Box:
    """Return the box around the main parts of a changed area `[H, W]`, or the whole frame where there are none."""
    return _find_bounding_box(select_main_parts(change_mask)) or Box(0, 0, change_mask.shape[1], change_mask.shape[0])


def _find_linked_box(mask: npt.NDArray[np.bool_], change_mask: npt.NDArray[np.bool_]) -> Box | None:
    """Return the box around the changed areas that touch the mask, with small gaps bridged, or around the whole change where the mask is
    empty."""
    combined = (mask | change_mask).view(np.uint8)
    gap = max(1, round(0.01 * min(mask.shape)))
    _, labels = cv2.connectedComponents(cv2.dilate(combined, np.ones((2 * gap + 1,) * 2, np.uint8)), connectivity=8)
    linked_mask = np.isin(labels, np.unique(labels[mask])) if mask.any() else np.ones_like(mask)
    return _find_bounding_box(linked_mask & change_mask)


def check_first_frame(source_frame: torch.Tensor, edited_frame: torch.Tensor, mask: torch.Tensor) -> tuple[str, ...]:
    """Return notes for the user on an edited first frame (uint8 `[H, W, 3]`) and its bool mask `[H, W]`."""
    notes = []
    if mask.any() and _equals_source_inside(source_frame, edited_frame, mask):
        notes.append("the edited first frame equals the source inside the mask; check that it is the edited picture and that white = edit")
    change = detect_outside_change(source_frame, edited_frame, mask)
    if change is None:
        return tuple(notes)
    shift = max(change.mean_shift, key=abs)
    if abs(shift) >= MIN_REPORTED_SHIFT:
        shift_text = ", ".join(f"{value:+.1f}" for value in change.mean_shift)
        notes.append(f"the edited first frame shifts all colours outside the mask (red, green, blue by {shift_text} of 255)")
    if change.share >= MIN_COMPONENT_SHARE:
        box = change.suggested_box
        note = f"the edited first frame changes {change.share:.1%} of the pixels outside the mask; the result shows the source there"
        if _find_bounding_box(mask) != box:
            note += f"; to include the change that touches the region, use --box {box.left:g},{box.top:g},{box.width:g},{box.height:g}"
        notes.append(note)
    return tuple(notes)


def _equals_source_inside(source_frame: torch.Tensor, edited_frame: torch.Tensor, mask: torch.Tensor) -> bool:
    """Return whether the picture shows the source inside the mask, up to the differences of another program's colour conversion."""
    inside = resize_to_check_size(mask).numpy()
    difference = _compute_difference(source_frame, edited_frame)
    if np.abs(difference[inside]).mean() > MAX_IDENTICAL_DIFFERENCE:
        return False
    return not _detect_clear_change(difference, inside, TOLERANCE).any()


def _enclose_boxes(boxes: Sequence[Box], shape: Sequence[int]) -> Box:
    """Return the box around all boxes, or the frame of that shape where there are none."""
    if not boxes:
        return Box(0, 0, shape[1], shape[0])
    left, top = min(box.left for box in boxes), min(box.top for box in boxes)
    right, bottom = max(box.right for box in boxes), max(box.bottom for box in boxes)
    return Box(left, top, right - left, bottom - top)


def _find_bounding_box(mask: torch.Tensor | npt.NDArray[np.bool_]) -> Box | None:
    """Return the box around a mask `[H, W]`, or None where it is empty."""
    bounds = mask_bounds(mask)
    if bounds is None:
        return None
    left, top, right, bottom = bounds
    return Box(left, top, right - left, bottom - top)


def fit_first_frame(edited_frame: torch.Tensor, size: Size) -> tuple[torch.Tensor, str | None]:
    """Resize the edited frame `[h, w, 3]` uint8 to the source's size, and return it with a note where it was resized.

    Raises `MaskError` when the aspect ratios differ by more than 2 %: the picture was then cropped or belongs to another clip.
    """
    edited_size = Size(edited_frame.shape[0], edited_frame.shape[1])
    if edited_size == size:
        return edited_frame, None
    ratio = (edited_size.width * size.height) / (edited_size.height * size.width)
    if abs(ratio - 1) > ASPECT_TOLERANCE:
        raise MaskError(f"the edited first frame is {edited_size} but the source is {size}; export it uncropped at {size}")
    is_larger = edited_size.height * edited_size.width > size.height * size.width
    interpolation = cv2.INTER_AREA if is_larger else cv2.INTER_CUBIC
    resized = cv2.resize(edited_frame.numpy(), (size.width, size.height), interpolation=interpolation)
    return torch.from_numpy(
        np.asarray(resized, dtype=np.uint8)
    ), f"the edited first frame was resized from {edited_size} to the source's {size}"
