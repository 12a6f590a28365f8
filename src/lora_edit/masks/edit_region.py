"""Edit region derived from the edit itself: the area that the edited first frame changes, tracked through the clip.

Points inside the changed area move with the optical flow from frame to frame. A point is lost where its backward flow does not return
to its origin (Kalal et al. 2010, "Forward-backward error"), or where its colour differs from that in frame 0. A lost point takes the
rigid motion of the object (`video.object_motion`), or, where that is lost too, the camera's motion if the object followed it before, or the
median motion of the other points. An edit that covers only background, as a hat does, moves with the object that it sits on
(`video.supporting_object`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.errors import MaskError, RegionError
from lora_edit.masks.boxes import box_to_edges, edges_to_box, fill_box
from lora_edit.masks.change_detection import detect_changed_area, select_main_parts
from lora_edit.masks.overlay import draw_region
from lora_edit.masks.parts import split_into_parts
from lora_edit.masks.region_check import CONTINUE_HINT, WHOLE_FRAME_NOTE, is_whole_frame_edit, touches_border
from lora_edit.types import Box, EditMask, Float32Array, OnFrame, mask_bounds
from lora_edit.video.camera_motion import CameraTracker
from lora_edit.video.flow import OpticalFlow, chain_flow_with_confidence, sample_image
from lora_edit.video.object_motion import LOST_SCORE, UNSURE_SCORE, ObjectMotion, ObjectTracker, track_object
from lora_edit.video.supporting_object import find_supporting_object, passes_in_front
from lora_edit.video.working_size import WorkingSize, to_grey

NUM_POINTS = 900
"""Approximate number of points spread over the changed area."""

MARGIN = 7.5
"""Distance, in pixels of the flow's picture, that points keep from the area's edge where possible: at the edge they would follow the
background."""

MAX_COLOUR_CHANGE = 48
"""Difference in any channel, in levels of 255, from which a point counts as lost."""

ROWS = (256, 480)
SUPPORT_ROWS = (160, 240)
"""Minimum and maximum rows of the pictures in which points are tracked (`ROWS`), and of those in which the supporting object is
detected."""

OUTLIER_SHARE = 0.01
"""Share of the points that may lie beyond each edge of the box, as outliers."""

MAX_AREA_GROWTH, MIN_CONFIDENCE = 2.5, 0.25
"""A region counts as lost when it exceeds this multiple of its first area, or when a smaller share of its points keeps its colour."""

MIN_MOVING_SHARE = 0.5
"""Share of the changed area that has to move on its own for its points to be tracked. Otherwise the area moves with its supporting
object."""

MAX_DIVERGENCE = 0.35
"""Distance between a point and its position by the object's rigid motion, as a share of the square root of the changed area, from which the
point has to match frame 0 better than that position does. An occluder of similar colour drags points along."""

MIN_CAMERA_FRAMES = 3
"""Number of frames in succession, frame 0 among them, in which an object has to follow the camera before it does so while it is hidden."""

MIN_VISIBLE_SHARE = 0.5
"""Smallest share of valid points of an object whose motion is unsure. With fewer, all points far from the expected position are lost."""

NUM_SUPPORT_FRAMES = 48
"""Number of frames used to detect the supporting object."""

MAX_LOST_SHARE = 0.25
"""Share of the frames in which a region may be lost without an error."""


@dataclass(frozen=True)
class RegionTrack:
    """The `region` of an edit through the clip.

    `lost_frames` are the frames in which it was probably lost. `left_picture` is True where it was lost for good at the frame's
    border, as objects that leave the picture are.
    """

    region: EditMask
    lost_frames: tuple[int, ...] = ()
    left_picture: bool = False

    @property
    def exceeds_lost_share(self) -> bool:
        """Whether the region was lost in too many frames, unless it left the picture."""
        return not self.left_picture and len(self.lost_frames) > MAX_LOST_SHARE * self.region.num_frames


def find_edit_region(frames: torch.Tensor, edited_frame: torch.Tensor) -> EditMask:
    """Return the region of `track_edit_region`."""
    return track_edit_region(frames, edited_frame).region


def track_edit_region(frames: torch.Tensor, edited_frame: torch.Tensor, on_frame: OnFrame = lambda done, total: None) -> RegionTrack:
    """Track a box around the area that `edited_frame` `[H, W, 3]` changes in the first of `frames` `[T, H, W, 3]` (uint8).

    An edit of several separate objects gets one box per object, and an edit of most of the picture the whole frame. The largest part
    decides whether the region is lost. `on_frame` receives the number of finished frames and their total. Raises `MaskError` when the
    edit changes nothing that stands out.
    """
    if is_whole_frame_edit(frames[0], edited_frame):
        return RegionTrack(EditMask(torch.ones(frames.shape[:3], dtype=torch.bool), (WHOLE_FRAME_NOTE,)))
    change_mask = select_main_parts(detect_changed_area(frames[0], edited_frame))
    if not change_mask.any():
        raise MaskError(
            "the edited first frame changes nothing that stands out, so where to edit is unknown; check the picture, "
            "or give --mask PATH (white = edit) or --box X,Y,W,H[:FRAME]"
        )
    parts = split_into_parts(change_mask)
    tracks = [
        track_box(frames, part, edges_to_box(np.asarray(mask_bounds(part), np.float64)), scale_progress(on_frame, number, len(parts)))
        for number, part in enumerate(parts)
    ]
    masks = [track.to_mask(frames.shape[1:3]) for track in tracks]
    mask = torch.stack(masks).any(0)
    share, location = float(mask[0].float().mean()), f" in {len(parts)} places" if len(parts) > 1 else ""
    note = (
        "no mask was given: the region is what the edited first frame changes "
        f"({share:.0%} of the frame{location}), followed through the clip"
    )
    largest_track = build_region_track(masks[0], tracks[0], (f"{note}; --mask or --box gives another",))
    return replace(largest_track, region=EditMask(mask, largest_track.region.notes, tuple(masks)))


def scale_progress(on_frame: OnFrame, number: int, count: int) -> OnFrame:
    """Convert progress of part `number` of `count`, each of which goes through the whole clip, to progress of all parts."""
    return lambda done, total: on_frame(number * total + done, count * total)


def build_region_track(mask: torch.Tensor, track: BoxTrack, notes: tuple[str, ...]) -> RegionTrack:
    """Build the track of the region `mask` `[T, H, W]` bool with its lost frames, and append a note on them to `notes`."""
    shares = mask.flatten(1).float().mean(1).tolist()
    lost_frames = tuple(
        number
        for number, share in enumerate(shares)
        if not 0 < share <= MAX_AREA_GROWTH * shares[0] or track.confidences[number] < MIN_CONFIDENCE
    )
    if lost_frames:
        remedy = "check these frames, or give --mask, or --box at several frames"
        notes = (*notes, f"from frame {lost_frames[0]} on the followed region was probably lost or hidden; {remedy}")
    left_picture = bool(lost_frames) and lost_frames[-1] == len(mask) - 1 and touches_border(mask[lost_frames[0] - 1])
    return RegionTrack(EditMask(mask, notes), lost_frames, left_picture)


def region_track_from_mask(mask: EditMask) -> RegionTrack:
    """Build the track of a mask that was propagated by other means. It is lost where the mask is empty."""
    lost_frames = tuple(number for number, frame in enumerate(mask.frames) if not frame.any())
    left_picture = (
        bool(lost_frames)
        and lost_frames[0] > 0
        and lost_frames[-1] == mask.num_frames - 1
        and touches_border(mask.frames[lost_frames[0] - 1])
    )
    return RegionTrack(mask, lost_frames, left_picture)


def check_region_track(
    edited_frame: torch.Tensor, track: RegionTrack, frames: torch.Tensor, origin: str = "the edited first frame"
) -> None:
    """Raise `RegionError` when the region was lost in too many of `frames` `[T, H, W, 3]`, unless it left the picture. `origin` names
    the source of the region in the message."""
    if not track.exceeds_lost_share:
        return
    lost_frames, region = track.lost_frames, track.region
    raise RegionError(
        f"the region that was followed from {origin} is lost from frame {lost_frames[0]} on ({len(lost_frames)} of {region.num_frames} "
        f"frames); give --box X,Y,W,H:FRAME at several frames or --mask PATH, {CONTINUE_HINT}",
        torch.cat([draw_region(edited_frame, region.frames[0]), draw_region(frames[lost_frames[0]], region.frames[lost_frames[0]])], dim=1),
    )


@dataclass(frozen=True)
class BoxTrack:
    """A box in every frame: `edges` `[T, 4]` (left, top, right, bottom) in pixels, and per frame the confidence, which is the share of
    points that keep their colour or the confidence of the object's motion."""

    edges: Float32Array
    confidences: list[float]

    def to_mask(self, size: Sequence[int]) -> torch.Tensor:
        """Draw the boxes as a mask `[T, H, W]` bool of frames of `size` (height, width)."""
        mask = torch.zeros(len(self.edges), *size, dtype=torch.bool)
        for frame, edges in zip(mask, self.edges, strict=True):
            fill_box(frame, edges_to_box(edges))
        return mask


def track_box(frames: torch.Tensor, change_mask: npt.NDArray[np.bool_], box: Box, on_frame: OnFrame) -> BoxTrack:
    """Track a `box` of the first of `frames` `[T, H, W, 3]` by the points of the changed area `[H, W]` in it."""
    flow = OpticalFlow(frames.shape[1], frames.shape[2], ROWS, 320)
    scale = flow.size[1] / frames.shape[1]
    points = _sample_grid_points(_shrink_area(change_mask, MARGIN / scale)) * scale
    # The outermost points lie inside the box, and outliers are left out: the margins of frame 0 compensate for both.
    margins = box_to_edges(box) - _bound_points(points) / scale
    previous_grey, confidences, edges = flow.to_grey(frames[0]), [], []
    camera_motions = _track_camera(frames, change_mask)
    first_camera_motions = list(islice(camera_motions, NUM_SUPPORT_FRAMES))
    support = _find_support(frames, change_mask, first_camera_motions)
    tracked = _TrackedPoints(points, _sample_colours(frames[0], points, scale), scale, float(np.sqrt(change_mask.sum())))
    motions = track_object(frames, 0, torch.from_numpy(change_mask if support is None else support))
    for (number, frame), motion, camera in zip(enumerate(frames), motions, chain(first_camera_motions, camera_motions), strict=True):
        current_grey = flow.to_grey(frame)
        if support is None:
            to_current, is_consistent = flow.compute_backward_flow(previous_grey, current_grey)
            confidences.append(tracked.update(frame, to_current, is_consistent, motion, camera))
        else:
            confidences.append(tracked.update_rigidly(motion))
        previous_grey = current_grey
        edges.append(_bound_points(tracked.points) / scale + margins)
        on_frame(number + 1, len(frames))
    return BoxTrack(np.asarray(edges, np.float32), confidences)


class _TrackedPoints:
    """Positions `points` `[N, 2]`, in flow pixels, of the points of frame 0's changed area in the current frame.

    `first_points` and `first_colours` `[N, 3]` are their positions and colours in frame 0, `scale` is the number of flow pixels per pixel,
    and `size` is the square root of the changed area in pixels.
    """

    def __init__(self, first_points: Float32Array, first_colours: Float32Array, scale: float, size: float) -> None:
        self.points = self.first_points = first_points
        self.first_colours, self.scale, self.max_divergence = first_colours, scale, MAX_DIVERGENCE * size * scale
        self.num_camera_frames = 0  # frames in succession in which the object followed the camera

    def update(
        self, frame: torch.Tensor, flow: Float32Array, is_consistent: npt.NDArray[np.bool_], motion: ObjectMotion, camera: ObjectMotion
    ) -> float:
        """Move the points to the next frame by the flow `[h, w, 2]`; return the share that keeps its colour.

        A point is lost where the flow is inconsistent, where its colour changes, and where it is far from its position by the object's
        rigid `motion` although its colour is no better there. Then it takes that position. While the motion of an object that follows
        the `camera` is unsure, the camera's motion takes its place.
        """
        tracked_points, consistent = _move_points(self.points, flow, is_consistent)
        colour_change = self._compute_colour_change(frame, tracked_points)
        same_colour = colour_change < MAX_COLOUR_CHANGE
        valid, expected_points = consistent & same_colour, self._map_points(motion) if motion.confidence > 0 else None
        camera_points = self._map_points(camera) if camera.confidence >= LOST_SCORE else None
        is_sure = motion.confidence >= UNSURE_SCORE
        # An occluder can attract an unsure motion, which therefore does not tell that the object left the camera's motion.
        if camera_points is not None and expected_points is not None and (is_sure or self.num_camera_frames < MIN_CAMERA_FRAMES):
            distances = np.linalg.norm(expected_points - camera_points, axis=-1)
            self.num_camera_frames = self.num_camera_frames + 1 if float(distances.mean()) <= self.max_divergence else 0
        is_hidden = self.num_camera_frames >= MIN_CAMERA_FRAMES and camera_points is not None and not is_sure
        if is_hidden:
            expected_points = camera_points
        if expected_points is not None:
            is_near = np.linalg.norm(tracked_points - expected_points, axis=-1) <= self.max_divergence
            valid &= is_near | (colour_change < self._compute_colour_change(frame, expected_points))
            if is_hidden and valid.mean() < MIN_VISIBLE_SHARE:
                valid &= is_near
        self.points = _update_points(self.points, tracked_points, valid, expected_points)
        return float(same_colour.mean())

    def update_rigidly(self, motion: ObjectMotion) -> float:
        """Move the points to the next frame by a rigid motion alone, unless it is lost; return its confidence."""
        if motion.confidence > 0:
            self.points = self._map_points(motion)
        return motion.confidence

    def _compute_colour_change(self, frame: torch.Tensor, points: Float32Array) -> Float32Array:
        """Compute the largest difference in any channel `[N]` between the frame's colours at `points` and those of frame 0."""
        return np.asarray(np.abs(_sample_colours(frame, points, self.scale) - self.first_colours).max(-1), np.float32)

    def _map_points(self, motion: ObjectMotion) -> Float32Array:
        """Map the points of frame 0 to the frame of a motion."""
        matrix = cv2.invertAffineTransform(motion.matrix)
        mapped_points = (self.first_points / self.scale - 0.5) @ matrix[:, :2].T + matrix[:, 2]
        return np.asarray((mapped_points + 0.5) * self.scale, np.float32)


def _track_camera(frames: torch.Tensor, change_mask: npt.NDArray[np.bool_]) -> Iterator[ObjectMotion]:
    """Track the background around the changed area `[H, W]` of frame 0: its motion in each frame."""
    working_size = WorkingSize(frames.shape[1], frames.shape[2], SUPPORT_ROWS)
    tracker = CameraTracker(working_size.resize_image(frames[0]), ~working_size.resize_mask(torch.from_numpy(change_mask)))
    for frame in frames:
        picture = working_size.resize_image(frame)
        matrix = tracker.track(picture, to_grey(picture))
        yield ObjectMotion(working_size.to_full_size(matrix), tracker.score)


def _find_support(
    frames: torch.Tensor, change_mask: npt.NDArray[np.bool_], camera_motions: Sequence[ObjectMotion]
) -> npt.NDArray[np.bool_] | None:
    """Find the object that the changed area `[H, W]` of frame 0 sits on, where the area below the edit hardly moves on its own. Returns
    None where it moves, and where the object only passes in front.

    Only the first frames are used, in which positions relative to frame 0 are reliable. `camera_motions` are those of these frames.
    """
    working_size = WorkingSize(frames.shape[1], frames.shape[2], SUPPORT_ROWS)
    pictures = [working_size.resize_image(frame) for frame in frames[:NUM_SUPPORT_FRAMES]]
    small_mask = working_size.resize_mask(torch.from_numpy(change_mask))
    camera_matrices = [working_size.to_working_size(motion.matrix) for motion in camera_motions]
    small_frames = torch.from_numpy(np.stack(pictures).clip(0, 255).astype(np.uint8))
    flows = list(chain_flow_with_confidence(small_frames, SUPPORT_ROWS, SUPPORT_ROWS[1]))
    support = find_supporting_object(flows[1:], camera_matrices[1:], small_mask)
    if support is None or (support & small_mask).sum() > MIN_MOVING_SHARE * small_mask.sum():
        return None
    tracker = ObjectTracker(pictures[0], support)
    motions = [tracker.track(picture) for picture in pictures]
    support_matrices = [motion.matrix if motion.confidence > 0 else None for motion in motions]
    if passes_in_front(pictures, small_mask, support, support_matrices, camera_matrices):
        return None
    return np.asarray(cv2.resize(support.view(np.uint8), change_mask.shape[::-1], interpolation=cv2.INTER_NEAREST), np.bool_)


def _shrink_area(change_mask: npt.NDArray[np.bool_], margin: float) -> npt.NDArray[np.bool_]:
    """Select the pixels at least `margin` inside the area, or half as deep as a thin part reaches."""
    depth = cv2.distanceTransform(change_mask.view(np.uint8), cv2.DIST_L2, 5)
    side = 2 * int(margin) + 1
    local_depth = cv2.dilate(depth, np.ones((side, side), np.uint8))
    return np.asarray(change_mask & (depth >= np.minimum(margin, local_depth / 2)), np.bool_)


def _sample_grid_points(change_mask: npt.NDArray[np.bool_]) -> Float32Array:
    """Sample points `[N, 2]` (x, y) on a regular grid over the area."""
    step = max(1, int(np.sqrt(change_mask.sum() / NUM_POINTS)))
    lattice = np.zeros_like(change_mask)
    lattice[::step, ::step] = True
    y, x = np.nonzero(change_mask & lattice)
    return np.stack([x, y], -1).astype(np.float32) + 0.5


def _bound_points(points: Float32Array) -> Float32Array:
    """Compute left, top, right and bottom of the points without outliers."""
    low, high = np.quantile(points, [OUTLIER_SHARE, 1 - OUTLIER_SHARE], axis=0)
    return np.concatenate([low, high]).astype(np.float32)


def _sample_colours(frame: torch.Tensor, points: Float32Array, scale: float) -> Float32Array:
    """Sample blurred colours `[N, 3]` at points in flow pixels."""
    blurred = cv2.blur(frame.numpy(), (2 * int(2 / scale) + 1,) * 2)
    return sample_image(np.asarray(blurred), (points / scale - 0.5)[None])[0]


def _move_points(
    points: Float32Array, motion: Float32Array, valid_mask: npt.NDArray[np.bool_]
) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """Move points one frame on by the flow field `[h, w, 2]`, and return for each whether `valid_mask` `[h, w]` is set there."""
    positions = points[None] - 0.5
    return points + sample_image(motion, positions)[0], sample_image(valid_mask.view(np.uint8), positions)[0] > 0.5


def _update_points(
    points: Float32Array, tracked_points: Float32Array, valid: npt.NDArray[np.bool_], fallback_points: Float32Array | None
) -> Float32Array:
    """Return the points one frame later: `tracked_points` where `valid`, else `fallback_points`, or, without these, the points moved by
    the median motion of the valid ones."""
    if fallback_points is not None:
        return np.asarray(np.where(valid[:, None], tracked_points, fallback_points), np.float32)
    if not valid.any():
        return points
    return np.asarray(np.where(valid[:, None], tracked_points, points + np.median((tracked_points - points)[valid], axis=0)), np.float32)
