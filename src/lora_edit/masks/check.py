"""Does the edited first frame keep to the mask?

Image editors often change more than they were asked to: a hat beyond the box, a shift of all colours. Outside the mask the
result shows the source, so that such a change is cut off or jumps between the first frame and the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.errors import MaskError
from lora_edit.types import Box, Size

SPECK = 0.0005
"""Changed areas smaller than this share of the frame are ignored."""

SCATTERED = 0.1
"""Share of pixels up to which lone changed ones are ignored: other programs convert colours a little differently along edges."""

SAME = 2.5
"""Mean difference in levels of 255 up to which a picture without clear change counts as the source's own frame."""

MINOR = 0.1
"""Changed areas smaller than this share of the largest are none of the edit: image editors alter a little everywhere."""

BLUR = 0.01
"""Standard deviation of the neighbourhood, share of the frame's shorter side."""

BLUR_SIDE = 1080
"""Pixels of the shorter side at which neighbourhoods are taken at most."""

TOLERANCE = 12
"""Levels of 255 up to which a pixel counts as unchanged."""

LARGEST_SHIFT = 16
"""Levels of 255 by which a picture editor may shift all colours without meaning to; more is an edit."""

SHIFT = 2.0
"""Mean difference, in levels of 255, from which a colour shift is worth a remark; ffmpeg's conversion of frames shifts by up to 1.5."""

ASPECT = 0.02
"""How far an edited frame's aspect ratio may be from the source's."""


@dataclass(frozen=True)
class OutsideChange:
    """What the edited first frame changes outside the mask.

    `share` is the part of the pixels outside whose largest channel difference is beyond the tolerance. `mean_shift` is the
    mean difference (edited - source, levels of 255) per channel over the pixels outside, the extreme fifth at each end left
    out, so that it tells a shift of all colours from a local change. `suggested` covers the mask and the changed area
    connected to it.
    """

    share: float
    mean_shift: tuple[float, float, float]
    suggested: Box


def outside_change(
    source_frame: torch.Tensor, edited_frame: torch.Tensor, mask: torch.Tensor, tolerance: int = TOLERANCE
) -> OutsideChange | None:
    """Compare two uint8 frames `[H, W, 3]` outside the bool mask `[H, W]`; None when they agree there but for specks."""
    outside = ~mask.numpy()
    if not outside.any():
        return None
    difference = edited_frame.numpy().astype(np.float32) - source_frame.numpy()
    shift = _trimmed_mean(difference[outside])
    share = float((np.abs(difference).max(-1) > tolerance)[outside].mean())
    large = _clearly_changed(difference - shift, outside, tolerance)
    if not large.any() and share < SCATTERED:
        share = 0.0
    if not large.any() and share == 0 and np.abs(shift).max() < SHIFT:
        return None
    red, green, blue = (float(value) for value in shift)
    return OutsideChange(share, (red, green, blue), _covering(mask.numpy(), large))


def changed_area(source_frame: torch.Tensor, edited_frame: torch.Tensor, tolerance: int = TOLERANCE) -> npt.NDArray[np.bool_]:
    """Where two uint8 frames `[H, W, 3]` show something else, `[H, W]`, a shift of all colours apart."""
    everywhere = np.ones(source_frame.shape[:2], bool)
    return _clearly_changed(without_shift(source_frame, edited_frame), everywhere, tolerance)


def without_shift(source_frame: torch.Tensor, edited_frame: torch.Tensor) -> npt.NDArray[np.float32]:
    """Edited - source `[H, W, 3]` of two uint8 frames, less the small shift per channel that most unchanged pixels share.

    The shift is the commonest difference near zero, so that an edit of more than half of the picture is not taken for it.
    """
    difference = edited_frame.numpy().astype(np.float32) - source_frame.numpy()
    return np.asarray(difference - [_common_shift(difference[..., channel]) for channel in range(3)], np.float32)


def _common_shift(difference: npt.NDArray[np.float32]) -> int:
    counts = np.bincount(difference.astype(int).ravel() + 255, minlength=511)
    near = np.convolve(counts, [1, 2, 3, 2, 1], "same")[255 - LARGEST_SHIFT : 256 + LARGEST_SHIFT]
    return int(near.argmax()) - LARGEST_SHIFT if near.any() else 0


def change_level(difference: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far each pixel's neighbourhood changed, `[H, W]` levels of 255, of a difference `[H, W, 3]`: redrawn texture averages out."""
    return np.asarray(np.abs(_neighbourhood(difference)).max(-1), np.float32)


def _neighbourhood(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean around every pixel of `[H, W]` or `[H, W, C]`; taken at a smaller size where the picture is large, as it is smooth."""
    height, width = picture.shape[:2]
    scale = min(1.0, BLUR_SIDE / min(height, width))
    small = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA) if scale < 1 else picture
    blurred = cv2.GaussianBlur(small, (0, 0), BLUR * min(small.shape[:2]))
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR) if scale < 1 else blurred, np.float32)


def _trimmed_mean(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean of the middle three fifths of whole numbers `[N, 3]` from -255 to 255, per channel."""
    cut = len(values) // 5
    kept = len(values) - 2 * cut
    means = []
    for channel in range(3):
        counts = np.bincount(values[:, channel].astype(np.int16) + 255, minlength=511)
        below = np.clip(np.cumsum(counts) - cut, 0, kept)  # how many of the kept ones lie up to each level
        means.append((np.diff(below, prepend=0) * np.arange(-255, 256)).sum() / kept)
    return np.asarray(means, dtype=np.float32)


def _clearly_changed(difference: npt.NDArray[np.float32], outside: npt.NDArray[np.bool_], tolerance: int) -> npt.NDArray[np.bool_]:
    """Where the picture outside shows something else, `[H, W]`.

    Image editors redraw every texture a little. That noise averages out over a neighbourhood, another object does not; what is
    left of it (the lower half) sets the threshold. `difference` has no shift of all colours any more: it calls for no larger box.
    """
    weight = outside.astype(np.float32)
    mean = _neighbourhood(difference * weight[..., None]) / np.maximum(_neighbourhood(weight), 1e-6)[..., None]
    level = np.abs(mean).max(-1)
    # Of an edit of half of the picture the median is the edit itself; the lower quarter is still what was left alone.
    quarter, median = np.quantile(level[outside], [0.25, 0.5])
    threshold = max(float(tolerance), min(4 * float(median), 6 * float(quarter)))
    changed = (level > threshold) & (np.abs(difference).max(-1) > tolerance) & outside
    return without_specks(np.asarray(changed, dtype=np.bool_))


def without_specks(changed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The area `[H, W]` without the parts that are smaller than `SPECK` of the frame."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(changed.view(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= max(2, SPECK * changed.size)
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)


def main_parts(changed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest changed area, holes and cracks closed, and those that are not minor beside it."""
    side = max(3, round(0.02 * min(changed.shape)) | 1)
    closed = cv2.morphologyEx(changed.view(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(np.asarray(closed, np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0
    return np.asarray((areas >= MINOR * max(areas.max(), 1))[labels] & (labels > 0), np.bool_)


def covering_box(changed: npt.NDArray[np.bool_]) -> Box:
    """The box around the main parts of a changed area `[H, W]`."""
    return _covering(np.zeros_like(changed), main_parts(changed))


def _covering(mask: npt.NDArray[np.bool_], changed: npt.NDArray[np.bool_]) -> Box:
    """The box around the mask and the changed areas that touch it, small gaps bridged; the whole change where the mask is empty."""
    both = (mask | changed).view(np.uint8)
    gap = max(1, round(0.01 * min(mask.shape)))
    _, labels = cv2.connectedComponents(cv2.dilate(both, np.ones((2 * gap + 1,) * 2, np.uint8)), connectivity=8)
    linked = np.isin(labels, np.unique(labels[mask])) if mask.any() else np.ones_like(mask)
    rows, columns = (np.flatnonzero((linked & (both > 0)).any(axis)) for axis in (1, 0))
    if not len(rows):
        return Box(0, 0, mask.shape[1], mask.shape[0])
    left, top = int(columns[0]), int(rows[0])
    return Box(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)


def check_first_frame(source_frame: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor) -> tuple[str, ...]:
    """Remarks for a person on an edited first frame (uint8 `[H, W, 3]`) and its bool mask `[H, W]`."""
    notes = []
    if mask.any() and _equals_inside(source_frame, edited, mask):
        notes.append("the edited first frame equals the source inside the mask; check that it is the edited picture and that white = edit")
    change = outside_change(source_frame, edited, mask)
    if change is None:
        return tuple(notes)
    shift = max(change.mean_shift, key=abs)
    if abs(shift) >= SHIFT:
        words = ", ".join(f"{value:+.1f}" for value in change.mean_shift)
        notes.append(f"the edited first frame shifts all colours outside the mask (red, green, blue by {words} of 255)")
    if change.share >= SPECK:
        box = change.suggested
        note = f"the edited first frame changes {change.share:.1%} of the pixels outside the mask; the result shows the source there"
        if not _is_box(mask, box):
            note += f"; to include the change that touches the region, use --box {box.left:g},{box.top:g},{box.width:g},{box.height:g}"
        notes.append(note)
    return tuple(notes)


def _equals_inside(source_frame: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether the picture shows the source inside the mask, up to what another program's conversion of colours changes."""
    inside = mask.numpy()
    difference = edited.numpy().astype(np.float32) - source_frame.numpy()
    if np.abs(difference[inside]).mean() > SAME:
        return False
    return not _clearly_changed(difference, inside, TOLERANCE).any()


def _is_box(mask: torch.Tensor, box: Box) -> bool:
    """Whether the mask already spans the box."""
    if not mask.any():
        return False
    rows, columns = (torch.nonzero(mask.any(axis)).flatten() for axis in (1, 0))
    span = (int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)
    return span == (box.left, box.top, box.width, box.height)


def fit_first_frame(edited: torch.Tensor, size: Size) -> tuple[torch.Tensor, str | None]:
    """The edited frame `[h, w, 3]` uint8 at the source's size, and a remark when it had to be resized.

    Raises `MaskError` when the aspect ratios differ by more than 2 %: the picture was then cropped or is of another clip.
    """
    found = Size(edited.shape[0], edited.shape[1])
    if found == size:
        return edited, None
    ratio = (found.width * size.height) / (found.height * size.width)
    if abs(ratio - 1) > ASPECT:
        raise MaskError(f"the edited first frame is {found} but the source is {size}; export it uncropped at {size}")
    shrinks = found.height * found.width > size.height * size.width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = cv2.resize(edited.numpy(), (size.width, size.height), interpolation=method)
    return torch.from_numpy(np.asarray(resized, dtype=np.uint8)), f"the edited first frame was resized from {found} to the source's {size}"
