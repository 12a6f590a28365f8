"""Shapes of the edit region: boxes, tight or noisy outlines, soft edges, whole latent cells.

Masks are `[T, H, W]` bool with True = edit.
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
from lora_edit.masks.morphology import compute_signed_distance, find_slices
from lora_edit.masks.settings import RegionShape
from lora_edit.types import Box, EditMask

NOISY_GRID = 7
"""Cells per side of the noisy mask (paper B.2)."""

CLOSING_RADIUS = 0.005
"""Radius of the morphological closing of a tight mask, as a share of the frame's shorter side."""


def shape_mask(mask: EditMask, shape: RegionShape, expand: float, smooth: int) -> EditMask:
    """Build the edit region of the given shape.

    - `box`: one rectangle per object (of each of the mask's parts, where it has some) and frame, its path smoothed over `smooth`
      frames, grown by `expand` of its width and height in total (half on each side), rounded outward and clipped to the frame (paper
      appendix A: the default).
    - `tight`: the mask as given with cracks closed.
    - `noisy`: paper B.2's degraded mask, see `build_noisy_frames`.
    - `as-is`: the mask as given.
    - `auto`: as `box`; `auto_shape.py` selects the shape where the edited first frame is known.
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
    """Grow the box about its centre by `share` of its width and height in total."""
    margin = 0.5 * share * np.array([box.width, box.height])
    return edges_to_box(box_to_edges(box) + np.concatenate([-margin, margin]))


def build_noisy_frames(mask: EditMask) -> torch.Tensor:
    """Average each object's mask on a 7 x 7 grid and fill whole cells (paper B.2). Returns `[T, H, W]` bool.

    The paper does not define the extent of the grid. It spans the object's box here, so that the error is about a seventh of the
    object at any size. A cell is white when half of it is; where no cell is that full, the fullest ones are.
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
    """Return the union of at least one mask, all of one size, with all their notes. Where one has parts, the others count as parts too."""
    frames = masks[0].frames.clone()
    for mask in masks[1:]:
        frames |= mask.frames
    notes = tuple(dict.fromkeys(note for mask in masks for note in mask.notes))
    parts = tuple(part for mask in masks for part in mask.parts or (mask.frames,))
    return EditMask(frames, notes, parts if any(mask.parts for mask in masks) else ())


def subtract(mask: EditMask, other: EditMask) -> EditMask:
    """Return the pixels of `mask` that are not in `other`."""
    return EditMask(mask.frames & ~other.frames, mask.notes, tuple(part & ~other.frames for part in mask.parts))


def invert(mask: EditMask) -> EditMask:
    """Return all pixels outside the region."""
    return EditMask(~mask.frames, mask.notes)


def smooth_outline(mask: EditMask, pixels: float) -> EditMask:
    """The region with its outline rounded: corners and specks smaller than about `pixels` go."""
    if pixels <= 0:
        return mask
    soft = (cv2.GaussianBlur(frame.numpy().view(np.uint8) * np.uint8(255), (0, 0), pixels) for frame in mask.frames)
    return EditMask(torch.stack([torch.from_numpy(frame > 127) for frame in soft]), mask.notes)


def interpolate_missing_frames(mask: EditMask) -> EditMask:
    """Fill the frames of one object's mask in which it was lost between two appearances.

    The outline before morphs evenly into the one after: both are moved to a centre on the line between theirs, and their signed
    distances are blended. Frames before the first appearance and after the last stay empty.
    """
    frames = mask.frames.clone()
    visible_frames = torch.nonzero(frames.flatten(1).any(1)).flatten().tolist()
    for first, last in pairwise(visible_frames):
        for number in range(first + 1, last):
            frames[number] = torch.from_numpy(
                _interpolate_outline(frames[first].numpy(), frames[last].numpy(), (number - first) / (last - first))
            )
    return EditMask(frames, mask.notes)


def _interpolate_outline(first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.bool_]:
    """Interpolate the outline at a `share` of the way from `first` to `last` `[H, W]`."""
    centres = [np.array([part.mean() for part in np.nonzero(mask)[::-1]]) for mask in (first, last)]
    target = (1 - share) * centres[0] + share * centres[1]
    total = np.zeros(first.shape, np.float32)
    for mask, centre, weight in ((first, centres[0], 1 - share), (last, centres[1], share)):
        shift = np.array([[1, 0, target[0] - centre[0]], [0, 1, target[1] - centre[1]]], np.float32)
        moved = cv2.warpAffine(mask.view(np.uint8), shift, mask.shape[::-1], flags=cv2.INTER_NEAREST)
        total += np.float32(weight) * compute_signed_distance(np.asarray(moved > 0))
    return np.asarray(total > 0)


def dilate(mask: EditMask, pixels: int) -> EditMask:
    """Grow the region by a disc of the radius `pixels`."""
    if pixels <= 0:
        return mask
    kernel = _build_disc_kernel(pixels)
    grown = [torch.from_numpy(cv2.dilate(frame.numpy().view(np.uint8), kernel) > 0) for frame in mask.frames]
    return EditMask(torch.stack(grown), mask.notes)


def grow_by_soft_edge(mask: EditMask, shape: RegionShape, feather: float) -> EditMask:
    """Grow the region of a `tight` outline by the soft edge that compositing draws inside it.

    All of the outline then shows the edit: no rim of the old colour remains, and thin parts are edited completely. Other shapes
    already leave a margin around the outline, or are used as they are. `feather` is `compositing.feather`, a share of the frame's
    shorter side.
    """
    radius = round(feather * min(mask.size.height, mask.size.width))
    return dilate(mask, radius + 1) if shape == "tight" and radius else mask  # blend weights reach 1 one pixel beyond the radius


def grow_sides(mask: EditMask, pixels: tuple[int, int, int, int]) -> EditMask:
    """Grow the region by the given pixels to the left, top, right and bottom. Negative numbers count as 0."""
    left, top, right, bottom = (max(0, side) for side in pixels)
    if not (left or top or right or bottom):
        return mask
    kernel = np.ones((top + bottom + 1, left + right + 1), np.uint8)
    anchor = (right, bottom)  # growth to the left sets a pixel when the kernel reaches a set one to its right
    grown = [torch.from_numpy(cv2.dilate(frame.numpy().view(np.uint8), kernel, anchor=anchor) > 0) for frame in mask.frames]
    return EditMask(torch.stack(grown), mask.notes)


def _close_cracks(frames: torch.Tensor, radius: int) -> torch.Tensor:
    kernel = _build_disc_kernel(radius)
    closed = [cv2.morphologyEx(frame.numpy().view(np.uint8), cv2.MORPH_CLOSE, kernel) > 0 for frame in frames]
    return torch.stack([torch.from_numpy(frame) for frame in closed]) | frames


def _build_disc_kernel(radius: int) -> cv2.typing.MatLike:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def feather(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Compute blend weights `[T, H, W]` float32 of a bool mask `[T, H, W]`: see `feather_frame`."""
    return torch.stack([feather_frame(frame, radius) for frame in mask])


def feather_frame(frame: torch.Tensor, radius: int) -> torch.Tensor:
    """Compute blend weights `[H, W]` float32 of a bool mask `[H, W]`.

    Weights are exactly 0 outside, so that the source's pixels remain. Inside they rise smoothly to exactly 1 over `radius` pixels.
    The frame's border is not an edge. Parts too thin for that reach 1 at half of their depth, so that they never stay translucent.
    """
    if radius <= 0 or not frame.any() or frame.all():
        return frame.float()
    # One more pixel on each side keeps the region's edge inside the window. The frame's border is not an edge.
    window = find_slices(frame.numpy(), 1)
    weight = torch.zeros(frame.shape)
    weight[window] = torch.from_numpy(_compute_blend_weights(np.ascontiguousarray(frame[window].numpy()).view(np.uint8), radius))
    return weight


def _compute_blend_weights(inside: npt.NDArray[np.uint8], radius: int) -> npt.NDArray[np.float32]:
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    count, components = cv2.connectedComponents(inside, connectivity=8)
    labels = np.asarray(components, dtype=np.int32)
    max_depth = np.zeros(count, np.float32)
    np.maximum.at(max_depth, labels.ravel(), depth.ravel())
    width = np.minimum(radius + 1, np.maximum(1, max_depth / 2))[labels]
    weight = np.clip(depth / width, 0, 1)
    return np.asarray(weight * weight * (3 - 2 * weight), dtype=np.float32)


def snap_to_cells(mask: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """Grow the bool mask `[T, H, W]` outward to whole cells of (height, width) pixels, counted from the frame's top left."""
    grown = _find_touched_cells(mask, cell).repeat_interleave(cell[0], 1).repeat_interleave(cell[1], 2)
    return grown[:, : mask.shape[1], : mask.shape[2]].contiguous()


def union_latent_frames(mask: torch.Tensor, stride: int = 4) -> torch.Tensor:
    """Take the union of the bool mask `[T, H, W]` over the frames of each latent frame: 1 + `stride` + `stride` + ...

    The autoencoder mixes the frames of a group, so a pixel hidden in one of them would remain visible through the others. The first
    frame forms its own group, and an incomplete last group is united as it is.
    """
    out = mask.clone()
    for start in range(1, len(mask), stride):
        out[start : start + stride] = mask[start : start + stride].any(0)
    return out


def find_given_cells(mask: torch.Tensor, cell: tuple[int, int], stride: int = 4) -> torch.Tensor:
    """Return `[F, h, w]` bool: True where a latent cell is given, which requires every pixel of all its frames to be outside the mask.

    `stride` frames form a latent frame after the first; 1 keeps frames separate. Cells cut off by the frame count as whole.
    """
    touched = _find_touched_cells(mask, cell)
    groups = [touched[:1], *(touched[start : start + stride] for start in range(1, len(mask), stride))]
    return ~torch.stack([group.any(0) for group in groups])


def _find_touched_cells(mask: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """Return `[T, h, w]` bool: True where any pixel of the cell is in the mask."""
    frames, height, width = mask.shape
    rows, columns = -(-height // cell[0]), -(-width // cell[1])
    padded = F.pad(mask, (0, columns * cell[1] - width, 0, rows * cell[0] - height))
    return padded.view(frames, rows, cell[0], columns, cell[1]).any(4).any(2)
