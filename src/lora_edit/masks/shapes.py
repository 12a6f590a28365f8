"""What the edit region looks like: boxes, tight or noisy outlines, soft edges, whole latent cells.

Masks are `[T, H, W]` bool with True = edit here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from lora_edit.masks.boxes import box_to_edges, edges_to_box, fill_box, track_objects
from lora_edit.masks.morphology import compute_signed_distance
from lora_edit.masks.settings import RegionShape
from lora_edit.types import Box, EditMask

NOISY_GRID = 7
"""Cells per side of the noisy mask (paper B.2)."""

CLOSING_RADIUS = 0.005
"""Radius of the closing of a tight mask, share of the frame's shorter side."""


def shape_mask(mask: EditMask, shape: RegionShape, expand: float, smooth: int) -> EditMask:
    """The edit region of the given shape.

    - `box`: one rectangle per object (of each of the mask's parts, where it has some) and frame, its path smoothed over `smooth`
      frames, grown by `expand` of its width and height in all (half on each side), rounded outward, stopped at the frame (paper
      appendix A: the default).
    - `tight`: the mask as given with cracks closed.
    - `noisy`: paper B.2's degraded mask, see `noisy_frames`.
    - `as-is`: the mask as given.
    - `auto`: as `box`; `auto_shape.py` decides where the edited first frame is known.
    """
    if shape == "as-is":
        return mask
    if shape == "tight":
        return EditMask(_close_cracks(mask.frames, max(1, round(CLOSING_RADIUS * min(mask.size.height, mask.size.width)))), mask.notes)
    if shape == "noisy":
        return EditMask(build_noisy_frames(mask), mask.notes)
    frames = torch.zeros_like(mask.frames)
    for part in mask.parts or (mask.frames,):
        for track in track_objects(EditMask(part), smooth):
            for offset, box in enumerate(track.boxes):
                fill_box(frames[track.first_frame + offset], grow_box(box, expand))
    return EditMask(frames, mask.notes)


def grow_box(box: Box, share: float) -> Box:
    """The box grown about its centre by `share` of its width and height in all."""
    margin = 0.5 * share * np.array([box.width, box.height])
    return edges_to_box(box_to_edges(box) + np.concatenate([-margin, margin]))


def build_noisy_frames(mask: EditMask) -> torch.Tensor:
    """`[T, H, W]` bool: each object's mask averaged on a 7 x 7 grid and put back as whole cells (paper B.2).

    The paper does not say what the grid spans. It spans the object's box here, so that the error is about a seventh of the
    object whatever its size. A cell is white when half of it is; where no cell is that full, the fullest ones are.
    """
    out = torch.zeros_like(mask.frames)
    for track in track_objects(mask):
        for offset, box in enumerate(track.boxes):
            _add_noisy_object(out[track.first_frame + offset], mask.frames[track.first_frame + offset], box)
    return out


def _add_noisy_object(out: torch.Tensor, frame: torch.Tensor, box: Box) -> None:
    left, top, right, bottom = box_to_edges(box).round().astype(int).tolist()
    part = frame[top:bottom, left:right].numpy()
    if not part.any():
        return
    cells = cv2.resize(part.astype(np.float32), (NOISY_GRID, NOISY_GRID), interpolation=cv2.INTER_AREA)
    white = (cells >= min(0.5, float(cells.max()))).astype(np.uint8)
    large = cv2.resize(white, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
    out[top:bottom, left:right] |= torch.from_numpy(large > 0)


def union(masks: Sequence[EditMask]) -> EditMask:
    """What any of the masks covers, with all their notes; one at least, all of one size. Where one has parts, the others are parts too."""
    frames = masks[0].frames.clone()
    for mask in masks[1:]:
        frames |= mask.frames
    notes = tuple(dict.fromkeys(note for mask in masks for note in mask.notes))
    parts = tuple(part for mask in masks for part in mask.parts or (mask.frames,))
    return EditMask(frames, notes, parts if any(mask.parts for mask in masks) else ())


def subtract(mask: EditMask, other: EditMask) -> EditMask:
    """What `mask` covers and `other` does not."""
    return EditMask(mask.frames & ~other.frames, mask.notes, tuple(part & ~other.frames for part in mask.parts))


def invert(mask: EditMask) -> EditMask:
    """Everything but the region."""
    return EditMask(~mask.frames, mask.notes)


def smooth_outline(mask: EditMask, pixels: float) -> EditMask:
    """The region with its outline rounded: corners and specks smaller than about `pixels` go."""
    if pixels <= 0:
        return mask
    soft = (cv2.GaussianBlur(frame.numpy().view(np.uint8) * np.uint8(255), (0, 0), pixels) for frame in mask.frames)
    return EditMask(torch.stack([torch.from_numpy(frame > 127) for frame in soft]), mask.notes)


def interpolate_missing_frames(mask: EditMask) -> EditMask:
    """One object's mask with the frames filled in which it was lost between two sights of it.

    The outline before turns into the one after evenly: both are moved to a place on the straight way between them, and their signed
    distances are mixed. Frames before the first sight and after the last one stay empty.
    """
    frames = mask.frames.clone()
    seen = torch.nonzero(frames.flatten(1).any(1)).flatten().tolist()
    for first, last in pairwise(seen):
        for number in range(first + 1, last):
            frames[number] = torch.from_numpy(
                _interpolate_outline(frames[first].numpy(), frames[last].numpy(), (number - first) / (last - first))
            )
    return EditMask(frames, mask.notes)


def _interpolate_outline(first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.bool_]:
    """The outline a `share` of the way from `first` to `last` `[H, W]`."""
    middles = [np.array([part.mean() for part in np.nonzero(mask)[::-1]]) for mask in (first, last)]
    place = (1 - share) * middles[0] + share * middles[1]
    total = np.zeros(first.shape, np.float32)
    for mask, middle, weight in ((first, middles[0], 1 - share), (last, middles[1], share)):
        move = np.array([[1, 0, place[0] - middle[0]], [0, 1, place[1] - middle[1]]], np.float32)
        moved = cv2.warpAffine(mask.view(np.uint8), move, mask.shape[::-1], flags=cv2.INTER_NEAREST)
        total += np.float32(weight) * compute_signed_distance(np.asarray(moved > 0))
    return np.asarray(total > 0)


def dilate(mask: EditMask, pixels: int) -> EditMask:
    """The region grown by a disc of that radius."""
    if pixels <= 0:
        return mask
    kernel = _build_disc_kernel(pixels)
    grown = [torch.from_numpy(cv2.dilate(frame.numpy().view(np.uint8), kernel) > 0) for frame in mask.frames]
    return EditMask(torch.stack(grown), mask.notes)


def grow_by_soft_edge(mask: EditMask, shape: RegionShape, feather: float) -> EditMask:
    """The region of a `tight` outline grown by the soft edge that compositing draws inside it, so that all of the outline shows the edit:
    no rim of the old colour stays, and thin parts are edited whole. Other shapes leave room around the outline already, or are meant as
    they are. `feather` is `compositing.feather`, a share of the frame's shorter side."""
    radius = round(feather * min(mask.size.height, mask.size.width))
    return dilate(mask, radius + 1) if shape == "tight" and radius else mask  # the edge is whole one pixel beyond its radius


def grow_sides(mask: EditMask, pixels: tuple[int, int, int, int]) -> EditMask:
    """The region grown by so many pixels to the left, top, right and bottom; negative numbers count as none."""
    left, top, right, bottom = (max(0, side) for side in pixels)
    if not (left or top or right or bottom):
        return mask
    kernel = np.ones((top + bottom + 1, left + right + 1), np.uint8)
    anchor = (right, bottom)  # a pixel is set when one is that the kernel reaches: to its right for growth to the left
    grown = [torch.from_numpy(cv2.dilate(frame.numpy().view(np.uint8), kernel, anchor=anchor) > 0) for frame in mask.frames]
    return EditMask(torch.stack(grown), mask.notes)


def _close_cracks(frames: torch.Tensor, radius: int) -> torch.Tensor:
    kernel = _build_disc_kernel(radius)
    closed = [cv2.morphologyEx(frame.numpy().view(np.uint8), cv2.MORPH_CLOSE, kernel) > 0 for frame in frames]
    return torch.stack([torch.from_numpy(frame) for frame in closed]) | frames


def _build_disc_kernel(radius: int) -> cv2.typing.MatLike:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def feather(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Blend weights `[T, H, W]` float32 of a bool mask `[T, H, W]`: see `feather_frame`."""
    return torch.stack([feather_frame(frame, radius) for frame in mask])


def feather_frame(frame: torch.Tensor, radius: int) -> torch.Tensor:
    """Blend weights `[H, W]` float32 of a bool mask `[H, W]`.

    Exactly 0 outside, so that the source's pixels stay; inside they rise smoothly to exactly 1 over `radius` pixels. The
    frame's own border is no edge. A part too thin for that rises over half of its depth, so that it never stays a ghost.
    """
    if radius <= 0 or not frame.any() or frame.all():
        return frame.float()
    rows, columns = (torch.nonzero(frame.any(axis)).flatten().tolist() for axis in (1, 0))
    # One pixel more on each side, so that the region's edge stays an edge; the frame's border is none.
    window = np.s_[max(0, rows[0] - 1) : rows[-1] + 2, max(0, columns[0] - 1) : columns[-1] + 2]
    weight = torch.zeros(frame.shape)
    weight[window] = torch.from_numpy(_compute_blend_weights(np.ascontiguousarray(frame[window].numpy()).view(np.uint8), radius))
    return weight


def _compute_blend_weights(inside: npt.NDArray[np.uint8], radius: int) -> npt.NDArray[np.float32]:
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    count, found = cv2.connectedComponents(inside, connectivity=8)
    labels = np.asarray(found, dtype=np.int32)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, labels.ravel(), depth.ravel())
    width = np.minimum(radius + 1, np.maximum(1, deepest / 2))[labels]
    weight = np.clip(depth / width, 0, 1)
    return np.asarray(weight * weight * (3 - 2 * weight), dtype=np.float32)


def snap_to_cells(mask: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """The bool mask `[T, H, W]` grown outward to whole cells of (height, width) pixels, counted from the frame's top left."""
    grown = _find_touched_cells(mask, cell).repeat_interleave(cell[0], 1).repeat_interleave(cell[1], 2)
    return grown[:, : mask.shape[1], : mask.shape[2]].contiguous()


def union_latent_frames(mask: torch.Tensor, stride: int = 4) -> torch.Tensor:
    """The union of the bool mask `[T, H, W]` over the frames of each latent frame: 1 + `stride` + `stride` + ...

    The autoencoder mixes the frames of a group, so a pixel hidden in one of them would still be seen through the others.
    The first frame stands alone; a last group that is not full is united as it is.
    """
    out = mask.clone()
    for start in range(1, len(mask), stride):
        out[start : start + stride] = mask[start : start + stride].any(0)
    return out


def find_given_cells(mask: torch.Tensor, cell: tuple[int, int], stride: int = 4) -> torch.Tensor:
    """`[F, h, w]` bool: True where a latent cell is given, which takes every pixel of all its frames outside the mask.

    `stride` frames make a latent frame after the first; 1 keeps frames apart. Cells that the frame cuts off count as whole.
    """
    touched = _find_touched_cells(mask, cell)
    groups = [touched[:1], *(touched[start : start + stride] for start in range(1, len(mask), stride))]
    return ~torch.stack([group.any(0) for group in groups])


def _find_touched_cells(mask: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """`[T, h, w]` bool: True where any pixel of the cell is in the mask."""
    frames, height, width = mask.shape
    rows, columns = -(-height // cell[0]), -(-width // cell[1])
    padded = F.pad(mask, (0, columns * cell[1] - width, 0, rows * cell[0] - height))
    return padded.view(frames, rows, cell[0], columns, cell[1]).any(4).any(2)
