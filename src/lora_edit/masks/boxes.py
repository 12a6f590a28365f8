"""Boxes to masks and masks to boxes.

The paper edits inside a loose rectangle per object (appendix A, B.2). A segmentation becomes such rectangles here: nearby
parts form one object, objects are followed over time, frames in which an object was lost are bridged, and the path of every
box is smoothed without ever uncovering a pixel of its object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.errors import MaskError
from lora_edit.types import Box, EditMask, Size

Edges = npt.NDArray[np.float64]
"""`[..., 4]`: left, top, right, bottom."""

MAX_PART_GAP = 0.05
"""Parts closer than this share of the frame's diagonal belong to one object; an object may move as far between two frames."""

_ROUNDING = 1e-6


@dataclass(frozen=True)
class KeyframeBox:
    """A rectangle in source pixels at `frame` (every frame when None); boxes of the same `name` are one object's path."""

    box: Box
    frame: int | None = None
    name: str = "1"


@dataclass(frozen=True)
class ObjectTrack:
    """One object's boxes: `boxes[i]` is its box at frame `first_frame + i`; there are no gaps."""

    first_frame: int
    boxes: tuple[Box, ...]

    def get_box(self, frame: int) -> Box | None:
        """The box at `frame`, or None before the object appears and after it has gone."""
        index = frame - self.first_frame
        return self.boxes[index] if 0 <= index < len(self.boxes) else None


def box_to_edges(box: Box) -> Edges:
    """Left, top, right, bottom of a box."""
    return np.array([box.left, box.top, box.left + box.width, box.top + box.height], dtype=np.float64)


def edges_to_box(edges: Edges) -> Box:
    """The box with these left, top, right and bottom edges."""
    left, top, right, bottom = (float(value) for value in edges)
    return Box(left, top, right - left, bottom - top)


def fill_box(frame: torch.Tensor, box: Box) -> None:
    """Set every pixel of the bool frame `[H, W]` that the box touches: edges round outward and stop at the frame."""
    height, width = frame.shape
    left, top, right, bottom = box_to_edges(box).tolist()
    rows = slice(max(0, math.floor(top + _ROUNDING)), min(height, max(0, math.ceil(bottom - _ROUNDING))))
    columns = slice(max(0, math.floor(left + _ROUNDING)), min(width, max(0, math.ceil(right - _ROUNDING))))
    frame[rows, columns] = True


def mask_from_boxes(boxes: Sequence[KeyframeBox], num_frames: int, size: Size) -> EditMask:
    """The union of all objects' boxes, frame by frame.

    Boxes of one name at several frames are interpolated linearly, held before the first and after the last; a box without a
    frame number stands in every frame. Raises `MaskError` for a box outside the frame or a frame number outside the clip.
    """
    if not boxes:
        raise MaskError("no box given; write --box X,Y,W,H in pixels of the source")
    notes = [note for keyed in boxes for note in _check_box(keyed, num_frames, size)]
    frames = torch.zeros(num_frames, size.height, size.width, dtype=torch.bool)
    for name in dict.fromkeys(keyed.name for keyed in boxes):
        still = [keyed for keyed in boxes if keyed.name == name and keyed.frame is None]
        keys = {keyed.frame: box_to_edges(keyed.box) for keyed in boxes if keyed.name == name and keyed.frame is not None}
        if len(keys) + len(still) < sum(keyed.name == name for keyed in boxes):
            raise MaskError(f"object {name}: two boxes at the same frame; give the second one another object name")
        if still and keys:
            notes.append(f"object {name}: a box without a frame number stands in every frame; write :0 to start its path with it")
        for keyed in still:
            for frame in frames:
                fill_box(frame, keyed.box)
        if keys:
            for frame, edges in zip(frames, _interpolate(keys, 0, num_frames), strict=True):
                fill_box(frame, edges_to_box(edges))
    return EditMask(frames, tuple(notes))


def _check_box(keyframe: KeyframeBox, num_frames: int, size: Size) -> list[str]:
    """Notes on a box that is partly outside; raises `MaskError` for one that cannot be used."""
    box = keyframe.box
    words = f"box {box.left:g},{box.top:g},{box.width:g},{box.height:g}" + ("" if keyframe.frame is None else f" at frame {keyframe.frame}")
    left, top, right, bottom = box_to_edges(box).tolist()
    if not all(map(math.isfinite, (left, top, right, bottom))) or box.width <= 0 or box.height <= 0:
        raise MaskError(f"{words}: width and height must be positive numbers; write X,Y,W,H")
    if keyframe.frame is not None and not 0 <= keyframe.frame < num_frames:
        raise MaskError(f"{words}: the clip has frames 0 to {num_frames - 1}; give a frame number in that range")
    if right <= 0 or bottom <= 0 or left >= size.width or top >= size.height:
        raise MaskError(f"{words}: outside the frame, which is {size}; give X,Y,W,H in pixels of the source")
    if left < 0 or top < 0 or right > size.width or bottom > size.height:
        return [f"{words} reaches beyond the frame ({size}) and was cut to it"]
    return []


def _interpolate(keys: dict[int, Edges], first: int, stop: int) -> Edges:
    """Edges `[stop - first, 4]` between the key frames, held outside them."""
    known = sorted(keys)
    values = np.stack([keys[frame] for frame in known])
    at = np.arange(first, stop)
    return np.stack([np.interp(at, known, values[:, side]) for side in range(4)], axis=1)


def track_objects(mask: EditMask, smooth: int = 1) -> tuple[ObjectTrack, ...]:
    """Every object's boxes over time, in order of appearance.

    An object is what stays together: parts closer than `REACH` are one, as are tracks that are joined in most of the frames
    they share; objects that only cross stay two. Frames between an object's first and last sight in which it is missing are
    bridged by interpolation. Paths are smoothed over `smooth` frames (1 = off); each box still contains its object.
    """
    reach = MAX_PART_GAP * math.hypot(mask.size.height, mask.size.width)
    tracks: list[_Track] = []
    for index, frame in enumerate(mask.frames):
        _extend_tracks(tracks, _find_object_edges(frame.numpy().view(np.uint8), reach), index, reach)
    limits = np.array([0, 0, mask.size.width, mask.size.height])
    found = []
    for group in _group_tracks(tracks):
        first, edges = _merge_tracks(group)
        edges = smooth_edges(edges, smooth)
        edges = np.clip(edges, 0, np.concatenate([limits[2:], limits[2:]]))
        found.append(ObjectTrack(first, tuple(edges_to_box(row) for row in edges)))
    return tuple(sorted(found, key=lambda track: track.first_frame))


@dataclass
class _Track:
    """A chain of sightings; `joined[other]` counts the frames in which it was one blob with another track."""

    sightings: dict[int, Edges]
    last_edges: Edges
    last_frame: int
    joined_counts: dict[int, int] = field(default_factory=dict)


def _find_object_edges(frame: npt.NDArray[np.uint8], max_gap: float) -> list[Edges]:
    """Boxes of the parts of one frame `[H, W]`, parts nearer than `reach` put together."""
    if not frame.any():
        return []
    kernel = np.ones((2 * int(max_gap / 2) + 1,) * 2, np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(frame, kernel), connectivity=8)
    boxes = []
    for label in range(1, count):
        x, y, width, height = (int(value) for value in stats[label, :4])
        window = np.s_[y : y + height, x : x + width]
        part = (labels[window] == label) & (frame[window] > 0)
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        boxes.append(np.array([x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1], dtype=np.float64))
    return _merge_near_boxes(boxes, max_gap)


def _merge_near_boxes(boxes: list[Edges], max_gap: float) -> list[Edges]:
    """Boxes nearer than `reach` replaced by their common box until none are left."""
    done: list[Edges] = []
    for box in boxes:
        near = [other for other in done if _compute_gap(box, other) < max_gap]
        while near:
            done = [other for other in done if not any(other is one for one in near)]
            box = _enclose_edges([box, *near])
            near = [other for other in done if _compute_gap(box, other) < max_gap]
        done.append(box)
    return done


def _enclose_edges(boxes: Sequence[Edges]) -> Edges:
    stacked = np.stack(boxes)
    return np.concatenate([stacked[:, :2].min(0), stacked[:, 2:].max(0)])


def _compute_gap(a: Edges, b: Edges) -> float:
    """Gap between two boxes along the axis that separates them more; 0 when they touch."""
    return float(max(0.0, *np.maximum(a[:2], b[:2]) - np.minimum(a[2:], b[2:])))


def _compute_iou(a: Edges, b: Edges) -> float:
    """Intersection over union."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = float(sides.prod())
    return shared / (float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared)


def _extend_tracks(tracks: list[_Track], boxes: list[Edges], index: int, max_gap: float) -> None:
    """Give frame `index`'s boxes to the tracks; a box left over starts a track, a track left over may be joined to another."""
    before = {t: track.last_edges for t, track in enumerate(tracks) if track.last_frame == index - 1}
    owner = _assign_boxes(tracks, boxes, index, max_gap)
    left_over = [t for t in before if t not in owner.values()]
    for b, box in enumerate(boxes):
        if b not in owner:
            parents = [t for t, last in before.items() if _compute_gap(last, box) < max_gap]
            # A part that comes off was one with its parent until now.
            together = {t: len(tracks[t].sightings) for t in parents[:1]}
            owner[b] = len(tracks)
            tracks.append(_Track({}, box, index, together))
        track = tracks[owner[b]]
        track.sightings[index], track.last_edges, track.last_frame = box, box, index
    for t in left_over:
        hosts = [b for b, box in enumerate(boxes) if _compute_gap(before[t], box) < max_gap]
        if hosts:
            host = owner[hosts[0]]
            tracks[t].joined_counts[host] = tracks[t].joined_counts.get(host, 0) + 1
            tracks[t].last_edges, tracks[t].last_frame = boxes[hosts[0]], index


def _assign_boxes(tracks: list[_Track], boxes: list[Edges], index: int, max_gap: float) -> dict[int, int]:
    """Which track each box continues: largest overlap first, one box per track."""
    pairs = []
    for t, track in enumerate(tracks):
        for b, box in enumerate(boxes):
            gap = _compute_gap(track.last_edges, box)
            # An object out of sight for n frames may have moved n times as far.
            if gap <= max_gap * (index - track.last_frame):
                pairs.append((-_compute_iou(track.last_edges, box), gap, t, b))
    owner: dict[int, int] = {}
    for _, _, t, b in sorted(pairs):
        if b not in owner and t not in owner.values():
            owner[b] = t
    return owner


def _group_tracks(tracks: list[_Track]) -> list[list[_Track]]:
    """Tracks that are joined at least as often as they are seen apart, put together."""
    root = list(range(len(tracks)))
    for t, track in enumerate(tracks):
        for other, joined in track.joined_counts.items():
            if joined >= len(track.sightings.keys() & tracks[other].sightings.keys()):
                old, new = root[t], root[other]
                root = [new if value == old else value for value in root]
    return [[track for t, track in enumerate(tracks) if root[t] == value] for value in dict.fromkeys(root)]


def _merge_tracks(group: list[_Track]) -> tuple[int, Edges]:
    """First frame and gapless common edges `[N, 4]` of tracks that are one object."""
    first, stop = min(min(track.sightings) for track in group), max(max(track.sightings) for track in group) + 1
    common: dict[int, list[Edges]] = {}
    for track in group:
        start = min(track.sightings)
        for offset, edges in enumerate(_interpolate(track.sightings, start, max(track.sightings) + 1)):
            common.setdefault(start + offset, []).append(edges)
    return first, _interpolate({frame: _enclose_edges(edges) for frame, edges in common.items()}, first, stop)


def smooth_edges(edges: Edges, smoothing_frames: int) -> Edges:
    """A smoother path of boxes `[N, 4]`, each of which contains the box it came from.

    Moving average over `window` frames (made odd), then grown by the smoothed local maximum of what the average uncovers:
    a steady motion is not grown at all, a jerk only near itself.
    """
    half = smoothing_frames // 2
    if half == 0 or len(edges) < 2:
        return edges
    outward = edges * np.array([-1.0, -1.0, 1.0, 1.0])
    average = _view_sliding_rows(np.pad(outward, ((half, half), (0, 0)), mode="reflect", reflect_type="odd"), half).mean(1)
    lack = np.maximum(outward - average, 0)
    peak = _view_sliding_rows(np.pad(lack, ((2 * half, 2 * half), (0, 0)), mode="edge"), half).max(1)
    grown = np.maximum(average + _view_sliding_rows(peak, half).mean(1), outward)
    return np.asarray(grown * np.array([-1.0, -1.0, 1.0, 1.0]), dtype=np.float64)


def _view_sliding_rows(values: Edges, half: int) -> Edges:
    """Windows `[N - 2 * half, 2 * half + 1, 4]` of the rows."""
    return np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1, axis=0).swapaxes(1, 2)
