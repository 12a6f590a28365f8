"""The edit region of a project: from the marks drawn on the page, an imported mask, or the edited first frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lora_edit.errors import MaskError, VideoError
from lora_edit.masks.boxes import KeyframeBox, mask_from_boxes
from lora_edit.masks.change_detection import (
    TOLERANCE,
    OutsideChange,
    compute_change_level,
    detect_outside_change,
    fit_first_frame,
    subtract_colour_shift,
)
from lora_edit.masks.edit_region import find_edit_region
from lora_edit.masks.files import read_mask
from lora_edit.masks.segmenter import Click, Prompt, Segmenter
from lora_edit.masks.segmenter_registry import detect_prompts, load_segmenter
from lora_edit.masks.shapes import grow_by_soft_edge, grow_sides, interpolate_missing_frames, invert, shape_mask, subtract, union
from lora_edit.masks.temporal_smoothing import smooth_mask_over_time
from lora_edit.reporting import Reporter
from lora_edit.types import Box, EditMask, Size, Video, mask_bounds
from lora_edit.ui.projects import Mark, Project, ProjectState
from lora_edit.ui.single_flight import single_flight_cache
from lora_edit.video.images import list_conversions
from lora_edit.video.read import probe_video, read_image, read_video
from lora_edit.video.settings import VideoSettings

MAX_INITIAL_FRAMES = 240
"""Longest initial range of a new clip in frames, so that a feature film does not fill the memory."""

MAX_STROKE_POINTS = 4000
"""Maximum number of points of a brush stroke."""

MAX_COORDINATE = 1e6
"""Maximum absolute coordinate, width and height of a mark in pixels."""

OUTLINE_SHAPES = ("tight", "noisy")
"""Shapes that follow the outline; they smooth it over time first."""

PROMPT_KINDS = ("point", "not-point", "box")
"""Kinds of marks that locate an object."""

REGION_FIELDS = {"clip", "start", "frames", "marks", "left_out", "imported", "imported_use"} | {
    "grown", "inverted", "bridged", "smooth", "shape", "expand", "feather",
}  # fmt: skip
"""State fields that determine the region; without marks and mask, `first_frame` does too."""


@dataclass(frozen=True)
class Region:
    """`base_mask` is the propagated marks; `edit_mask` is the shaped region to edit, including a soft edge that lies around an outline."""

    base_mask: EditMask
    edit_mask: EditMask

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of both masks, without duplicates."""
        return tuple(dict.fromkeys((*self.base_mask.notes, *self.edit_mask.notes)))


def read_clip(project: Project, state: ProjectState) -> Video:
    """Read the project's clip in its range. Raises `VideoError`."""
    return _read_clip(project.path / state.clip, state.start, state.frames)


@single_flight_cache(4)
def _read_clip(path: Path, start: int, frames: int | None) -> Video:
    return read_video(path, VideoSettings(start=start, frames=frames))


def choose_initial_length(file: Path) -> int | None:
    """Return `MAX_INITIAL_FRAMES` for a longer clip, else None for all frames. Raises `VideoError` for a file that is not a clip."""
    count = probe_video(file).num_frames
    return MAX_INITIAL_FRAMES if count is not None and count > MAX_INITIAL_FRAMES else None


def check_range(project: Project, state: ProjectState) -> int:
    """Return the number of frames in the project's range.

    Raises a subclass of `InputError` for fewer than two frames, or if an imported mask does not cover the range.
    """
    video = read_clip(project, state)
    if video.num_frames < 2:
        raise VideoError("one frame is no clip; take at least two")
    if state.imported:
        read_mask(project.path / state.imported, video.num_frames, video.size, state.start)
    return video.num_frames


def check_edit(project: Project, state: ProjectState) -> None:
    """Raise a subclass of `InputError` if the edited first frame does not fit the clip or equals its first frame."""
    video = read_clip(project, state)
    edited, _ = read_edited_frame(project, state.first_frame, video.size)
    if (compute_change_level(subtract_colour_shift(video.frames[0], edited)) <= TOLERANCE).all():
        raise MaskError("nothing is edited in this picture: it is the clip's own first frame; edit it, save it, and drop the edited one")
    if not has_region(state):
        compute_region(project, state)


def has_region(state: ProjectState) -> bool:
    """Return whether marks or a mask define the region; otherwise the edited first frame does."""
    return bool(state.marks or state.imported)


def compute_region(project: Project, state: ProjectState) -> Region:
    """Compute the region from marks, a mask, or the edited first frame. Raises `MaskError` if all are missing."""
    if not has_region(state) and not state.first_frame:
        raise MaskError(
            "nothing is marked yet; click on what changes, or continue: the region is then detected from your edited first frame"
        )
    fields = REGION_FIELDS if has_region(state) else {*REGION_FIELDS, "first_frame"}
    return _compute_region(project, ProjectState.model_validate(state.model_dump(include=fields)))


@single_flight_cache(8)
def _compute_region(project: Project, state: ProjectState) -> Region:
    video = read_clip(project, state)
    base_mask = _paint_strokes(state, _build_base_mask(project, state, video))
    if state.bridged:
        base_mask = interpolate_missing_frames(base_mask)
    # Smoothing drops strokes that exist on a single frame, so they are painted again.
    smoothed = _paint_strokes(state, smooth_mask_over_time(base_mask, state.smooth)) if state.shape in OUTLINE_SHAPES else base_mask
    if state.inverted:
        base_mask, smoothed = invert(base_mask), invert(smoothed)
    shaped = grow_sides(shape_mask(smoothed, state.shape, state.expand, state.smooth), state.grown)
    return Region(base_mask, shaped if state.inverted else _add_soft_edge(state, shaped))


def _add_soft_edge(state: ProjectState, mask: EditMask) -> EditMask:
    """Grow a `tight` region by its soft edge, which then lies around the outline instead of inside it; add all painted strokes."""
    if state.shape != "tight":
        strokes = _paint_strokes(state, EditMask(torch.zeros_like(mask.frames)))
        return union([mask, strokes])
    return _paint_strokes(state, grow_by_soft_edge(mask, state.shape, state.feather))


def _build_base_mask(project: Project, state: ProjectState, video: Video) -> EditMask:
    """Build the mask from marks, an imported mask, or the edited first frame, and subtract the excluded objects."""
    names = dict.fromkeys(mark.object for mark in state.marks if mark.kind in PROMPT_KINDS)
    object_masks = {name: _build_object_mask(project, state, video, name) for name in names if name in state.left_out or _uses_marks(state)}
    drawn = _merge_masks([each for name, each in object_masks.items() if name not in state.left_out], video)
    if state.imported:
        mask = read_mask(project.path / state.imported, video.num_frames, video.size, state.start)
        combinations = {"instead": mask, "add": union([drawn, mask]), "subtract": subtract(drawn, mask)}
        drawn = combinations[state.imported_use]
    elif not object_masks and state.first_frame:
        drawn = find_edit_region(video.frames, read_edited_frame(project, state.first_frame, video.size)[0])
    return subtract(drawn, _merge_masks([each for name, each in object_masks.items() if name in state.left_out], video))


def _uses_marks(state: ProjectState) -> bool:
    """Return whether the marks count: an imported mask may replace them."""
    return not state.imported or state.imported_use != "instead"


def _merge_masks(masks: list[EditMask], video: Video) -> EditMask:
    """Unite the masks and their notes."""
    return union([EditMask(torch.zeros(video.frames.shape[:3], dtype=torch.bool)), *masks])


def _build_object_mask(project: Project, state: ProjectState, video: Video, object_name: str) -> EditMask:
    """Build the mask of one marked object: interpolate boxes on several frames, segment and propagate anything else. Raises `MaskError`."""
    marks = _select_prompt_marks(state, video, object_name)
    if not marks:
        return EditMask(torch.zeros(video.frames.shape[:3], dtype=torch.bool))
    boxes = _build_keyed_boxes(marks)
    if boxes:
        return mask_from_boxes(boxes, video.num_frames, video.size)
    return _load_segmenter(project).segment(video.frames, [_build_prompt(mark) for mark in marks])[object_name]


def parse_mark(data: Any, object_name: str, num_frames: int) -> Mark:
    """Parse a mark of an object from the viewer's data. Raises `MaskError` if it is malformed or on no frame of the clip."""
    try:
        mark = Mark(**{key: value for key, value in dict(data).items() if key in Mark.model_fields} | {"object": object_name})
    except (TypeError, ValueError) as error:
        raise MaskError("this mark cannot be read; draw it again") from error
    coordinates = (mark.x, mark.y, mark.width, mark.height, *(value for point in mark.stroke for value in point))
    is_too_large = len(mark.stroke) > MAX_STROKE_POINTS or any(abs(each) > MAX_COORDINATE for each in coordinates)
    if not 0 <= mark.frame < num_frames or is_too_large:
        raise MaskError(f"this mark cannot be stored; draw it again, on one of the frames 0 to {num_frames - 1}")
    return mark


def select_mark_fields(state: ProjectState) -> ProjectState:
    """Return a state with only the fields that determine the propagation of marks."""
    return ProjectState.model_validate(state.model_dump(include={"clip", "start", "frames", "marks"}))


def propagate_marks(project: Project, state: ProjectState, reporter: Reporter) -> None:
    """Propagate all marks through the clip and report progress; the segmenter caches the masks for `compute_region`. Raises `MaskError`."""
    video = read_clip(project, state)
    names = dict.fromkeys(mark.object for mark in state.marks if mark.kind in PROMPT_KINDS)
    object_marks = [marks for name in names if (marks := _select_prompt_marks(state, video, name)) and not _build_keyed_boxes(marks)]
    for number, marks in enumerate(object_marks):

        def report_progress(done: int, total: int, offset: int = number * video.num_frames) -> None:
            reporter.step("follow", offset + done, len(object_marks) * total)

        _load_segmenter(project).segment(video.frames, [_build_prompt(mark) for mark in marks], report_progress)


def segment_object(project: Project, state: ProjectState, video: Video, frame: int, object_name: str) -> torch.Tensor:
    """Segment a marked object on one frame, `[H, W]` bool. Raises `MaskError` if no mark locates it."""
    marks = _select_prompt_marks(state, video, object_name)
    boxes = _build_keyed_boxes(marks)
    if boxes:
        return mask_from_boxes(boxes, video.num_frames, video.size).frames[frame]
    return _load_segmenter(project).segment_frame(video.frames, [_build_prompt(mark) for mark in marks], frame)


@single_flight_cache(4)
def _load_segmenter(project: Project) -> Segmenter:
    """Load the project's own segmenter. It caches propagated masks, so that a correction recomputes only the frames that it changes."""
    return load_segmenter(project.segmenter)


def find_described_marks(project: Project, state: ProjectState, text: str, object_names: Sequence[str]) -> list[Mark]:
    """Find the objects in the first frame that `text` describes; returns a box for each, named in order.

    Objects beyond the number of names are left out. Raises `MaskError` if there is none.
    """
    prompts = detect_prompts(project.segmenter, read_clip(project, state).frames[0], text)
    boxes = [(name, prompt.box) for name, prompt in zip(object_names, prompts, strict=False)]
    return [Mark(kind="box", frame=0, object=name, x=box.left, y=box.top, width=box.width, height=box.height) for name, box in boxes]


def _select_prompt_marks(state: ProjectState, video: Video, object_name: str) -> list[Mark]:
    """Return the marks that locate an object, on frames within the clip's range."""
    return [mark for mark in state.marks if mark.object == object_name and mark.kind in PROMPT_KINDS and 0 <= mark.frame < video.num_frames]


def _build_keyed_boxes(marks: list[Mark]) -> list[KeyframeBox]:
    """Return the boxes if there are at least two and no other marks, else an empty list."""
    boxes = [_build_prompt(mark) for mark in marks if mark.kind == "box"]
    return [box for box in boxes if isinstance(box, KeyframeBox)] if 1 < len(boxes) == len(marks) else []


def _build_prompt(mark: Mark) -> Prompt:
    if mark.kind == "box":
        return KeyframeBox(Box(mark.x, mark.y, mark.width, mark.height), mark.frame, mark.object)
    return Click(mark.x, mark.y, mark.kind == "point", mark.frame, mark.object)


def _paint_strokes(state: ProjectState, mask: EditMask) -> EditMask:
    """Apply the painted and erased strokes to the mask, each on its own frame."""
    if not any(mark.kind in ("paint", "erase") for mark in state.marks):
        return mask
    frames = mask.frames.clone()
    for mark in state.marks:
        if mark.kind in ("paint", "erase") and 0 <= mark.frame < len(frames):
            picture = frames[mark.frame].numpy().view(np.uint8)
            points = np.array(mark.stroke, np.float64).reshape(-1, 1, 2).round().astype(np.int32)
            cv2.polylines(picture, [points], isClosed=False, color=int(mark.kind == "paint"), thickness=max(1, round(mark.width)))
    return EditMask(frames, mask.notes)


def read_edited_frame(project: Project, file: str, size: Size) -> tuple[torch.Tensor, str | None]:
    """Read an edited frame `[H, W, 3]` at the clip's size, with a note if it was resized. Raises a subclass of `InputError`."""
    return fit_first_frame(read_image(project.path / file), size)


def describe_conversions(project: Project, file: str, size: Size) -> str:
    """Describe the conversions of an edited picture in one sentence; an empty string without any. Raises a subclass of `InputError`."""
    _, resized = read_edited_frame(project, file, size)
    changes = [*list_conversions(project.path / file), *([resized.removeprefix("the edited first frame was ")] if resized else [])]
    return f"The picture was converted: {', '.join(changes)}." if changes else ""


def find_edit_outside_region(project: Project, state: ProjectState) -> OutsideChange | None:
    """Find the change of the edited first frame outside the region. None if there is none or nothing to compare."""
    if not state.first_frame or not has_region(state):
        return None
    video = read_clip(project, state)
    edited, _ = read_edited_frame(project, state.first_frame, video.size)
    change = detect_outside_change(video.frames[0], edited, compute_region(project, state).edit_mask.frames[0])
    return change if change is not None and change.share >= 0.0005 else None


def compute_growth(project: Project, state: ProjectState, box: Box) -> tuple[int, int, int, int]:
    """Compute the `grown` value with which the region covers a box in frame 0: left, top, right, bottom in pixels."""
    bounds = mask_bounds(compute_region(project, state).edit_mask.frames[0])
    if bounds is None:
        return state.grown
    missing = (bounds[0] - box.left, bounds[1] - box.top, box.right - bounds[2], box.bottom - bounds[3])
    left, top, right, bottom = (grown + max(0, round(lack)) for grown, lack in zip(state.grown, missing, strict=True))
    return left, top, right, bottom


def compute_covering_growth(project: Project, state: ProjectState) -> tuple[int, int, int, int]:
    """Compute the `grown` value with which the region covers the change around it in the edited first frame.

    The detected change shifts slightly as the region grows, so the search is repeated up to four times.
    """
    for _ in range(4):
        change = find_edit_outside_region(project, state)
        grown = state.grown if change is None else compute_growth(project, state, change.suggested_box)
        if grown == state.grown:
            break
        state = state.replace_fields(grown=grown)
    return state.grown
