"""Where to edit, found from the edit itself: what the edited first frame changes, followed through the clip.

Points inside the changed area move with the optical flow from frame to frame. A point that does not return where it came from on the way
back (Kalal et al. 2010, "Forward-backward error"), or lies on another colour than at first, is lost and goes with the object's motion as a
whole (`object_motion`), or, where that is lost too, with the others' median. An edit that covers only what is behind, as a hat does, moves
with what it sits on (`support`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.errors import MaskError, RegionError
from lora_edit.masks.boxes import box_to_edges, edges_to_box, fill_box
from lora_edit.masks.change_detection import detect_changed_area, select_main_parts
from lora_edit.masks.morphology import find_bounds
from lora_edit.masks.overlay import draw_region
from lora_edit.masks.parts import split_into_parts
from lora_edit.masks.region_check import CONTINUE_HINT, WHOLE_FRAME_NOTE, is_whole_frame_edit, touches_border
from lora_edit.types import Box, EditMask, Float32Array, OnFrame
from lora_edit.video.camera_motion import CameraTracker
from lora_edit.video.flow import OpticalFlow, chain_flow_with_confidence, sample_image
from lora_edit.video.object_motion import ObjectMotion, track_object
from lora_edit.video.supporting_object import find_supporting_object
from lora_edit.video.working_size import WorkingSize, to_grey

NUM_POINTS = 900
"""About so many points are spread over the changed area."""

MARGIN = 7.5
"""Pixels of the flow's picture that points keep from the area's edge where they can: there they would stick to what is behind."""

MAX_COLOUR_CHANGE = 48
"""Levels in any channel from which a point has lost what it was on."""

ROWS = (256, 480)
SUPPORT_ROWS = (160, 240)
"""Rows, at least and at most, of the pictures that points are followed in, and of those by which it is found what an edit sits on."""

OUTLIER_SHARE = 0.01
"""Share of the points that may lie beyond each edge of the box: stray ones."""

MAX_AREA_GROWTH, MIN_CONFIDENCE = 2.5, 0.25
"""How many times its first area a region may have, and what share of its points has to be where it was, before it counts as lost."""

MIN_MOVING_SHARE = 0.5
"""Share of the changed area that has to move of itself for its points to be followed; else it moves with what it sits on."""

NUM_SUPPORT_FRAMES = 48
"""Frames by which it is found what an edit sits on."""

MAX_LOST_SHARE = 0.25
"""Share of the frames in which a region may be lost without its being an error."""


@dataclass(frozen=True)
class RegionTrack:
    """The `region` of an edit through the clip, the frames in which it was probably `lost`, and whether it was lost for good at the
    frame's border, where things leave the picture."""

    region: EditMask
    lost_frames: tuple[int, ...] = ()
    left_picture: bool = False

    @property
    def exceeds_lost_share(self) -> bool:
        """Whether it was lost in so many frames that something is wrong, unless it left the picture."""
        return not self.left_picture and len(self.lost_frames) > MAX_LOST_SHARE * self.region.num_frames


def find_edit_region(frames: torch.Tensor, edited_frame: torch.Tensor) -> EditMask:
    """The region of `follow`."""
    return track_edit_region(frames, edited_frame).region


def track_edit_region(frames: torch.Tensor, edited_frame: torch.Tensor, on_frame: OnFrame = lambda done, total: None) -> RegionTrack:
    """A box per frame around what `edited_first` `[H, W, 3]` changes in the first of `frames` `[T, H, W, 3]` (uint8), or one around each
    thing where it changes several that lie apart; the whole frame when it changes most of the picture.

    Whether the region is lost is told by the largest part. `on_frame` is told how many frames are done, of how many. Raises `MaskError`
    when the edit changes nothing that stands out.
    """
    if is_whole_frame_edit(frames[0], edited_frame):
        return RegionTrack(EditMask(torch.ones(frames.shape[:3], dtype=torch.bool), (WHOLE_FRAME_NOTE,)))
    changed = select_main_parts(detect_changed_area(frames[0], edited_frame))
    if not changed.any():
        raise MaskError(
            "the edited first frame changes nothing that stands out, so where to edit is unknown; check the picture, "
            "or give --mask PATH (white = edit) or --box X,Y,W,H[:FRAME]"
        )
    parts = split_into_parts(changed)
    tracks = [
        track_box(frames, part, edges_to_box(np.asarray(find_bounds(part), np.float64)), scale_progress(on_frame, number, len(parts)))
        for number, part in enumerate(parts)
    ]
    masks = [track.to_mask(frames.shape[1:3]) for track in tracks]
    mask = torch.stack(masks).any(0)
    share, where = float(mask[0].float().mean()), f" in {len(parts)} places" if len(parts) > 1 else ""
    note = (
        f"no mask was given: the region is what the edited first frame changes ({share:.0%} of the frame{where}), followed through the clip"
    )
    largest = build_region_track(masks[0], tracks[0], (f"{note}; --mask or --box gives another",))
    return replace(largest, region=EditMask(mask, largest.region.notes, tuple(masks)))


def scale_progress(on_frame: OnFrame, number: int, count: int) -> OnFrame:
    """Progress of part `number` of `count` that all go through the clip, as progress of all."""
    return lambda done, total: on_frame(number * total + done, count * total)


def build_region_track(mask: torch.Tensor, track: BoxTrack, notes: tuple[str, ...]) -> RegionTrack:
    """The region `mask` `[T, H, W]` bool of a track, with the frames in which it is lost, and a note on them after the `notes`."""
    shares = mask.flatten(1).float().mean(1).tolist()
    lost = tuple(
        number
        for number, share in enumerate(shares)
        if not 0 < share <= MAX_AREA_GROWTH * shares[0] or track.confidences[number] < MIN_CONFIDENCE
    )
    if lost:
        where = "look there, or give --mask, or --box at several frames"
        notes = (*notes, f"from frame {lost[0]} on the followed region was probably lost or hidden; {where}")
    left_picture = bool(lost) and lost[-1] == len(mask) - 1 and touches_border(mask[lost[0] - 1])
    return RegionTrack(EditMask(mask, notes), lost, left_picture)


def region_track_from_mask(mask: EditMask) -> RegionTrack:
    """A mask that was followed by other means: lost where it is empty."""
    lost = tuple(number for number, frame in enumerate(mask.frames) if not frame.any())
    left_picture = bool(lost) and lost[0] > 0 and lost[-1] == mask.num_frames - 1 and touches_border(mask.frames[lost[0] - 1])
    return RegionTrack(mask, lost, left_picture)


def check_region_track(
    edited_frame: torch.Tensor, track: RegionTrack, frames: torch.Tensor, origin: str = "the edited first frame"
) -> None:
    """Raise `RegionError` when the region was lost in too many of `frames` `[T, H, W, 3]`, unless it left the picture; `origin` says what
    it was followed from."""
    if not track.exceeds_lost_share:
        return
    lost, region = track.lost_frames, track.region
    raise RegionError(
        f"the region that was followed from {origin} is lost from frame {lost[0]} on ({len(lost)} of {region.num_frames} "
        f"frames); give --box X,Y,W,H:FRAME at several frames or --mask PATH, {CONTINUE_HINT}",
        torch.cat([draw_region(edited_frame, region.frames[0]), draw_region(frames[lost[0]], region.frames[lost[0]])], dim=1),
    )


@dataclass(frozen=True)
class BoxTrack:
    """A box in every frame: its `edges` `[T, 4]` (left, top, right, bottom) in pixels, and the share of its points that were `kept`,
    which are where they were."""

    edges: Float32Array
    confidences: list[float]

    def to_mask(self, size: Sequence[int]) -> torch.Tensor:
        """The boxes as a mask `[T, H, W]` bool of frames of `size` (height, width)."""
        mask = torch.zeros(len(self.edges), *size, dtype=torch.bool)
        for frame, edges in zip(mask, self.edges, strict=True):
            fill_box(frame, edges_to_box(edges))
        return mask


def track_box(frames: torch.Tensor, change_mask: npt.NDArray[np.bool_], box: Box, on_frame: OnFrame) -> BoxTrack:
    """A `box` of the first of `frames` `[T, H, W, 3]`, carried along by the points of the changed area `[H, W]` in it."""
    flow = OpticalFlow(frames.shape[1], frames.shape[2], ROWS, 320)
    scale = flow.size[1] / frames.shape[1]
    points = _sample_grid_points(_shrink_area(change_mask, MARGIN / scale)) * scale
    # The outermost points lie inside the box, and a few are left out: both are made up for as in frame 0.
    rim = box_to_edges(box) - _bound_points(points) / scale
    before, looks, kept, edges = flow.to_grey(frames[0]), _sample_colours(frames[0], points, scale), [], []
    first, support = points, _find_support(frames, change_mask)
    motions = track_object(frames, 0, torch.from_numpy(change_mask if support is None else support))
    for (number, frame), motion in zip(enumerate(frames), motions, strict=True):
        now = flow.to_grey(frame)
        there, proven = _move_points(points, *flow.compute_backward_flow(before, now))
        alike = np.abs(_sample_colours(frame, there, scale) - looks).max(-1) < MAX_COLOUR_CHANGE
        placed = _transform_points(first, motion, scale)
        if support is None:
            points = _update_points(points, there, proven & alike, placed)
            kept.append(float(alike.mean()))
        else:
            points = points if placed is None else placed
            kept.append(motion.confidence)
        before = now
        edges.append(_bound_points(points) / scale + rim)
        on_frame(number + 1, len(frames))
    return BoxTrack(np.asarray(edges, np.float32), kept)


def _find_support(frames: torch.Tensor, change_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """What the changed area `[H, W]` of frame 0 sits on, where hardly anything below it moves of itself; None where that moves.

    Only the first frames are looked at, where positions in frame 0 are sure.
    """
    work = WorkingSize(frames.shape[1], frames.shape[2], SUPPORT_ROWS)
    pictures = [work.resize_image(frame) for frame in frames[:NUM_SUPPORT_FRAMES]]
    small = work.resize_mask(torch.from_numpy(change_mask))
    tracker = CameraTracker(pictures[0], ~small)
    cameras = [np.asarray(tracker.track(picture, to_grey(picture)), np.float32) for picture in pictures]
    small_frames = torch.from_numpy(np.stack(pictures).clip(0, 255).astype(np.uint8))
    found = list(chain_flow_with_confidence(small_frames, SUPPORT_ROWS, SUPPORT_ROWS[1]))
    support = find_supporting_object(found[1:], cameras[1:], small)
    if support is None or (support & small).sum() > MIN_MOVING_SHARE * small.sum():
        return None
    return np.asarray(cv2.resize(support.view(np.uint8), change_mask.shape[::-1], interpolation=cv2.INTER_NEAREST), np.bool_)


def _shrink_area(change_mask: npt.NDArray[np.bool_], margin: float) -> npt.NDArray[np.bool_]:
    """What lies `margin` pixels inside of the area, or half as deep as a thin part goes."""
    depth = cv2.distanceTransform(change_mask.view(np.uint8), cv2.DIST_L2, 5)
    side = 2 * int(margin) + 1
    around = cv2.dilate(depth, np.ones((side, side), np.uint8))
    return np.asarray(change_mask & (depth >= np.minimum(margin, around / 2)), np.bool_)


def _sample_grid_points(change_mask: npt.NDArray[np.bool_]) -> Float32Array:
    """Points `[N, 2]` (x, y) on a regular grid over the area."""
    step = max(1, int(np.sqrt(change_mask.sum() / NUM_POINTS)))
    lattice = np.zeros_like(change_mask)
    lattice[::step, ::step] = True
    y, x = np.nonzero(change_mask & lattice)
    return np.stack([x, y], -1).astype(np.float32) + 0.5


def _bound_points(points: Float32Array) -> Float32Array:
    """Left, top, right, bottom around all but the extreme points."""
    low, high = np.quantile(points, [OUTLIER_SHARE, 1 - OUTLIER_SHARE], axis=0)
    return np.concatenate([low, high]).astype(np.float32)


def _sample_colours(frame: torch.Tensor, points: Float32Array, scale: float) -> Float32Array:
    """Colours `[N, 3]` around points, which are in flow pixels."""
    soft = cv2.blur(frame.numpy(), (2 * int(2 / scale) + 1,) * 2)
    return sample_image(np.asarray(soft), (points / scale - 0.5)[None])[0]


def _move_points(
    points: Float32Array, motion: Float32Array, valid_mask: npt.NDArray[np.bool_]
) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """Where the points are one frame later by the flow field `[h, w, 2]`, and for which of them it is `proven` `[h, w]`."""
    here = points[None] - 0.5
    return points + sample_image(motion, here)[0], sample_image(valid_mask.view(np.uint8), here)[0] > 0.5


def _transform_points(first_points: Float32Array, motion: ObjectMotion, scale: float) -> Float32Array | None:
    """Where the object's motion as a whole puts the points of frame 0, both in flow pixels; None where the object is lost."""
    if motion.confidence <= 0:
        return None
    matrix = cv2.invertAffineTransform(motion.matrix)
    there = (first_points / scale - 0.5) @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray((there + 0.5) * scale, np.float32)


def _update_points(
    points: Float32Array, tracked_points: Float32Array, valid: npt.NDArray[np.bool_], fallback_points: Float32Array | None
) -> Float32Array:
    """The points one frame later: `there`, or, of those that are not sure, where the object's motion has `placed` them, or moved by the
    sure ones' median."""
    if fallback_points is not None:
        return np.asarray(np.where(valid[:, None], tracked_points, fallback_points), np.float32)
    if not valid.any():
        return points
    return np.asarray(np.where(valid[:, None], tracked_points, points + np.median((tracked_points - points)[valid], axis=0)), np.float32)
