"""Conversion between boxes and masks.

The paper edits inside a loose rectangle per object (appendix A, B.2). This module turns a segmentation into such rectangles: nearby parts
form one object, objects are tracked over time, frames in which an object was lost are interpolated, and the path of every box is smoothed
without uncovering a pixel of its object.
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
from lora_edit.types import Box, EditMask, Size, mask_bounds

Edges = npt.NDArray[np.float64]
"""`[..., 4]`: left, top, right, bottom."""

MAX_PART_GAP = 0.05
"""Parts closer than this share of the frame's diagonal belong to one object. An object may move by as much between two frames."""

_ROUNDING = 1e-6


@dataclass(frozen=True)
class KeyframeBox:
    """A rectangle in source pixels at `frame`, or in every frame when that is None. Boxes of the same `name` form one object's path."""

    box: Box
    frame: int | None = None
    name: str = "1"


@dataclass(frozen=True)
class ObjectTrack:
    """One object's boxes without gaps: `boxes[i]` is the box at frame `first_frame + i`."""

    first_frame: int
    boxes: tuple[Box, ...]

    def get_box(self, frame: int) -> Box | None:
        """Return the box at `frame`, or None before the object appears and after it disappears."""
        index = frame - self.first_frame
        return self.boxes[index] if 0 <= index < len(self.boxes) else None


def box_to_edges(box: Box) -> Edges:
    """Convert a box to left, top, right and bottom."""
    return np.array([box.left, box.top, box.right, box.bottom], dtype=np.float64)


def edges_to_box(edges: Edges) -> Box:
    """Convert left, top, right and bottom to a box."""
    left, top, right, bottom = (float(value) for value in edges)
    return Box(left, top, right - left, bottom - top)


def fill_box(frame: torch.Tensor, box: Box) -> None:
    """Set every pixel of the bool frame `[H, W]` that the box touches. Edges are rounded outward and clipped to the frame."""
    height, width = frame.shape
    left, top, right, bottom = box_to_edges(box).tolist()
    rows = slice(max(0, math.floor(top + _ROUNDING)), min(height, max(0, math.ceil(bottom - _ROUNDING))))
    columns = slice(max(0, math.floor(left + _ROUNDING)), min(width, max(0, math.ceil(right - _ROUNDING))))
    frame[rows, columns] = True


def mask_from_boxes(boxes: Sequence[KeyframeBox], num_frames: int, size: Size) -> EditMask:
    """Build the union of all objects' boxes for every frame.

    Boxes of one name at several frames are interpolated linearly and held constant before the first and after the last. A box without a
    frame number applies to every frame. Raises `MaskError` for a box outside the frame or a frame number outside the clip.
    """
    if not boxes:
        raise MaskError("no box given; write --box X,Y,W,H in pixels of the source")
    notes = [note for keyframe in boxes for note in _check_box(keyframe, num_frames, size)]
    frames = torch.zeros(num_frames, size.height, size.width, dtype=torch.bool)
    for name in dict.fromkeys(keyframe.name for keyframe in boxes):
        static_boxes = [keyframe for keyframe in boxes if keyframe.name == name and keyframe.frame is None]
        edges_by_frame = {
            keyframe.frame: box_to_edges(keyframe.box) for keyframe in boxes if keyframe.name == name and keyframe.frame is not None
        }
        if len(edges_by_frame) + len(static_boxes) < sum(keyframe.name == name for keyframe in boxes):
            raise MaskError(f"object {name}: two boxes at the same frame; give the second one another object name")
        if static_boxes and edges_by_frame:
            notes.append(f"object {name}: a box without a frame number applies to every frame; write :0 to start its path with it")
        for keyframe in static_boxes:
            for frame in frames:
                fill_box(frame, keyframe.box)
        if edges_by_frame:
            for frame, edges in zip(frames, _interpolate(edges_by_frame, 0, num_frames), strict=True):
                fill_box(frame, edges_to_box(edges))
    return EditMask(frames, tuple(notes))


def _check_box(keyframe: KeyframeBox, num_frames: int, size: Size) -> list[str]:
    """Return notes on a box that is partly outside the frame. Raises `MaskError` for an unusable box."""
    box = keyframe.box
    description = f"box {box.left:g},{box.top:g},{box.width:g},{box.height:g}" + (
        "" if keyframe.frame is None else f" at frame {keyframe.frame}"
    )
    left, top, right, bottom = box_to_edges(box).tolist()
    if not all(map(math.isfinite, (left, top, right, bottom))) or box.width <= 0 or box.height <= 0:
        raise MaskError(f"{description}: width and height must be positive numbers; write X,Y,W,H")
    if keyframe.frame is not None and not 0 <= keyframe.frame < num_frames:
        raise MaskError(f"{description}: the clip has frames 0 to {num_frames - 1}; give a frame number in that range")
    if right <= 0 or bottom <= 0 or left >= size.width or top >= size.height:
        raise MaskError(f"{description}: outside the frame, which is {size}; give X,Y,W,H in pixels of the source")
    if left < 0 or top < 0 or right > size.width or bottom > size.height:
        return [f"{description} reaches beyond the frame ({size}) and was cut to it"]
    return []


def _interpolate(edges_by_frame: dict[int, Edges], first: int, stop: int) -> Edges:
    """Interpolate edges `[stop - first, 4]` between key frames. Outside of them the nearest key frame's edges are held."""
    key_frames = sorted(edges_by_frame)
    values = np.stack([edges_by_frame[frame] for frame in key_frames])
    frames = np.arange(first, stop)
    return np.stack([np.interp(frames, key_frames, values[:, side]) for side in range(4)], axis=1)


def track_objects(mask: EditMask, smooth: int = 1) -> tuple[ObjectTrack, ...]:
    """Track every object's box over time, in order of appearance.

    Parts closer than `MAX_PART_GAP` form one object, and so do tracks that are connected in most of the frames they share. Objects that
    only cross stay separate. Frames in which an object is missing between its first and last appearance are interpolated. Paths are
    smoothed over `smooth` frames (1 = off), and each box still contains its object.
    """
    max_gap = MAX_PART_GAP * math.hypot(mask.size.height, mask.size.width)
    tracks: list[_Track] = []
    for index, frame in enumerate(mask.frames):
        _extend_tracks(tracks, _find_object_edges(frame.numpy().view(np.uint8), max_gap), index, max_gap)
    frame_limits = np.array([0, 0, mask.size.width, mask.size.height])
    object_tracks = []
    for group in _group_tracks(tracks):
        first, edges = _merge_tracks(group)
        edges = smooth_edges(edges, smooth)
        edges = np.clip(edges, 0, np.concatenate([frame_limits[2:], frame_limits[2:]]))
        object_tracks.append(ObjectTrack(first, tuple(edges_to_box(row) for row in edges)))
    return tuple(sorted(object_tracks, key=lambda track: track.first_frame))


@dataclass
class _Track:
    """A chain of detections. `joined_counts[other]` counts the frames in which it formed one blob with another track."""

    detections: dict[int, Edges]
    last_edges: Edges
    last_frame: int
    joined_counts: dict[int, int] = field(default_factory=dict)


def _find_object_edges(frame: npt.NDArray[np.uint8], max_gap: float) -> list[Edges]:
    """Find the boxes of the parts of one frame `[H, W]`. Parts closer than `max_gap` share a box."""
    if not frame.any():
        return []
    kernel = np.ones((2 * int(max_gap / 2) + 1,) * 2, np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(frame, kernel), connectivity=8)
    boxes = []
    for label in range(1, count):
        x, y, width, height = (int(value) for value in stats[label, :4])
        window = np.s_[y : y + height, x : x + width]
        part = (labels[window] == label) & (frame[window] > 0)
        boxes.append(np.asarray(mask_bounds(part), np.float64) + np.array([x, y, x, y]))
    return _merge_near_boxes(boxes, max_gap)


def _merge_near_boxes(boxes: list[Edges], max_gap: float) -> list[Edges]:
    """Merge boxes closer than `max_gap` into their common box until none are left."""
    merged: list[Edges] = []
    for box in boxes:
        near = [other for other in merged if _compute_gap(box, other) < max_gap]
        while near:
            merged = [other for other in merged if not any(other is one for one in near)]
            box = _enclose_edges([box, *near])
            near = [other for other in merged if _compute_gap(box, other) < max_gap]
        merged.append(box)
    return merged


def _enclose_edges(boxes: Sequence[Edges]) -> Edges:
    stacked = np.stack(boxes)
    return np.concatenate([stacked[:, :2].min(0), stacked[:, 2:].max(0)])


def _compute_gap(a: Edges, b: Edges) -> float:
    """Compute the gap between two boxes along the axis that separates them more; 0 when they touch."""
    return float(max(0.0, *np.maximum(a[:2], b[:2]) - np.minimum(a[2:], b[2:])))


def _compute_iou(a: Edges, b: Edges) -> float:
    """Compute the intersection over union of two boxes."""
    overlap_size = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    intersection = float(overlap_size.prod())
    return intersection / (float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - intersection)


def _extend_tracks(tracks: list[_Track], boxes: list[Edges], index: int, max_gap: float) -> None:
    """Assign the boxes of frame `index` to the tracks. An unmatched box starts a track; an unmatched track may be joined to another."""
    previous_edges = {t: track.last_edges for t, track in enumerate(tracks) if track.last_frame == index - 1}
    track_of_box = _assign_boxes(tracks, boxes, index, max_gap)
    unmatched_tracks = [t for t in previous_edges if t not in track_of_box.values()]
    for b, box in enumerate(boxes):
        if b not in track_of_box:
            parents = [t for t, last in previous_edges.items() if _compute_gap(last, box) < max_gap]
            # A part that splits off was joined to its parent in all earlier frames.
            joined_counts = {t: len(tracks[t].detections) for t in parents[:1]}
            track_of_box[b] = len(tracks)
            tracks.append(_Track({}, box, index, joined_counts))
        track = tracks[track_of_box[b]]
        track.detections[index], track.last_edges, track.last_frame = box, box, index
    for t in unmatched_tracks:
        hosts = [b for b, box in enumerate(boxes) if _compute_gap(previous_edges[t], box) < max_gap]
        if hosts:
            host = track_of_box[hosts[0]]
            tracks[t].joined_counts[host] = tracks[t].joined_counts.get(host, 0) + 1
            tracks[t].last_edges, tracks[t].last_frame = boxes[hosts[0]], index


def _assign_boxes(tracks: list[_Track], boxes: list[Edges], index: int, max_gap: float) -> dict[int, int]:
    """Map each box to the track that it continues: largest overlap first, one box per track."""
    pairs = []
    for t, track in enumerate(tracks):
        for b, box in enumerate(boxes):
            gap = _compute_gap(track.last_edges, box)
            # An object that was hidden for n frames may have moved n times as far.
            if gap <= max_gap * (index - track.last_frame):
                pairs.append((-_compute_iou(track.last_edges, box), gap, t, b))
    track_of_box: dict[int, int] = {}
    for _, _, t, b in sorted(pairs):
        if b not in track_of_box and t not in track_of_box.values():
            track_of_box[b] = t
    return track_of_box


def _group_tracks(tracks: list[_Track]) -> list[list[_Track]]:
    """Group tracks that are joined in at least as many frames as they are seen apart."""
    group_ids = list(range(len(tracks)))
    for t, track in enumerate(tracks):
        for other, joined in track.joined_counts.items():
            if joined >= len(track.detections.keys() & tracks[other].detections.keys()):
                old_id, new_id = group_ids[t], group_ids[other]
                group_ids = [new_id if group_id == old_id else group_id for group_id in group_ids]
    return [[track for t, track in enumerate(tracks) if group_ids[t] == group_id] for group_id in dict.fromkeys(group_ids)]


def _merge_tracks(group: list[_Track]) -> tuple[int, Edges]:
    """Return the first frame and the gapless common edges `[N, 4]` of tracks that form one object."""
    first, stop = min(min(track.detections) for track in group), max(max(track.detections) for track in group) + 1
    edges_by_frame: dict[int, list[Edges]] = {}
    for track in group:
        start = min(track.detections)
        for offset, edges in enumerate(_interpolate(track.detections, start, max(track.detections) + 1)):
            edges_by_frame.setdefault(start + offset, []).append(edges)
    return first, _interpolate({frame: _enclose_edges(edges) for frame, edges in edges_by_frame.items()}, first, stop)


def smooth_edges(edges: Edges, smoothing_frames: int) -> Edges:
    """Smooth a path of boxes `[N, 4]` so that each smoothed box contains the original one.

    A moving average over `smoothing_frames` frames (made odd) is grown by the smoothed local maximum of what the average uncovers. A
    steady motion is not grown at all, a jerk only near itself.
    """
    half = smoothing_frames // 2
    if half == 0 or len(edges) < 2:
        return edges
    outward = edges * np.array([-1.0, -1.0, 1.0, 1.0])
    average = _view_sliding_rows(np.pad(outward, ((half, half), (0, 0)), mode="reflect", reflect_type="odd"), half).mean(1)
    deficit = np.maximum(outward - average, 0)
    peak = _view_sliding_rows(np.pad(deficit, ((2 * half, 2 * half), (0, 0)), mode="edge"), half).max(1)
    grown = np.maximum(average + _view_sliding_rows(peak, half).mean(1), outward)
    return np.asarray(grown * np.array([-1.0, -1.0, 1.0, 1.0]), dtype=np.float64)


def _view_sliding_rows(values: Edges, half: int) -> Edges:
    """View the rows as sliding windows `[N - 2 * half, 2 * half + 1, 4]`."""
    return np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1, axis=0).swapaxes(1, 2)
