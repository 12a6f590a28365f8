"""From what was drawn on the page to the edit region, by the rooms that know how."""

from __future__ import annotations

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
from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
from lora_edit.masks.files import read_mask
from lora_edit.masks.saliency import load_saliency_network
from lora_edit.masks.segmenter import Click, Prompt, Segmenter
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
"""Source frames from which a new clip is trimmed at first, so that a feature film does not fill the memory."""

MAX_STROKE_POINTS = 4000
"""Points of a stroke of the brush."""

OUTLINE_SHAPES = ("tight", "noisy")
"""Shapes that follow the outline, which is made steady over the frames first."""

PROMPT_KINDS = ("point", "not-point", "box")
"""Marks that say where a thing is."""

REGION_FIELDS = {"clip", "start", "frames", "marks", "left_out", "imported", "imported_use"} | {
    "grown", "inverted", "bridged", "smooth", "shape", "expand", "feather",
}  # fmt: skip
"""What of a project decides its region; the first frame too, where nothing else does."""


@dataclass(frozen=True)
class Region:
    """`drawn` is what was marked and followed, `shaped` what will be edited: with the soft edge, where that lies around an outline."""

    base_mask: EditMask
    edit_mask: EditMask

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the person."""
        return tuple(dict.fromkeys((*self.base_mask.notes, *self.edit_mask.notes)))


def read_clip(folder: Project, state: ProjectState) -> Video:
    """The project's clip in its range. Raises `VideoError`."""
    return _read_clip(folder.path / state.clip, state.start, state.frames)


@single_flight_cache(4)
def _read_clip(path: Path, start: int, frames: int | None) -> Video:
    return read_video(path, VideoSettings(start=start, frames=frames))


def choose_initial_length(file: Path) -> int | None:
    """How many frames of a new clip to take: all, unless it is very long. Raises `VideoError` for what is no clip."""
    count = probe_video(file).num_frames
    return MAX_INITIAL_FRAMES if count is not None and count > MAX_INITIAL_FRAMES else None


def check_range(folder: Project, state: ProjectState) -> int:
    """How many frames the project's range has. Raises `InputError` kin where it is no clip, or where an imported mask doesn't cover it."""
    video = read_clip(folder, state)
    if video.num_frames < 2:
        raise VideoError("one frame is no clip; take at least two")
    if state.imported:
        read_mask(folder.path / state.imported, video.num_frames, video.size, state.start)
    return video.num_frames


def check_edit(folder: Project, state: ProjectState) -> None:
    """Raises `InputError` kin where the edited first frame doesn't fit the clip, or where nothing is edited in it."""
    video = read_clip(folder, state)
    edited, _ = read_edited_frame(folder, state.first_frame, video.size)
    if (compute_change_level(subtract_colour_shift(video.frames[0], edited)) <= TOLERANCE).all():
        raise MaskError("nothing is edited in this picture: it is the clip's own first frame; edit it, save it, and drop the edited one")
    if not has_region(state):
        compute_region(folder, state)


def has_region(state: ProjectState) -> bool:
    """Has the person said where to edit? If not, the edited first frame says it."""
    return bool(state.marks or state.imported)


def compute_region(folder: Project, state: ProjectState) -> Region:
    """The region of a project that has a clip and marks, a mask, or an edited first frame. Raises `MaskError`."""
    if not has_region(state) and not state.first_frame:
        raise MaskError(
            "nothing is marked yet; click on what changes, or go on: what your edited first frame changes is then found by itself"
        )
    parts = REGION_FIELDS if has_region(state) else {*REGION_FIELDS, "first_frame"}
    return _compute_region(folder, ProjectState.model_validate(state.model_dump(include=parts)))


@single_flight_cache(8)
def _compute_region(folder: Project, state: ProjectState) -> Region:
    video = read_clip(folder, state)
    drawn = _paint_strokes(state, _build_base_mask(folder, state, video))
    if state.bridged:
        drawn = interpolate_missing_frames(drawn)
    # Neighbouring frames outvote what was painted on one of them; what a person painted is what they want.
    steady = _paint_strokes(state, smooth_mask_over_time(drawn, state.smooth)) if state.shape in OUTLINE_SHAPES else drawn
    if state.inverted:
        drawn, steady = invert(drawn), invert(steady)
    shaped = grow_sides(shape_mask(steady, state.shape, state.expand, state.smooth), state.grown)
    return Region(drawn, shaped if state.inverted else _add_soft_edge(state, shaped))


def _add_soft_edge(state: ProjectState, mask: EditMask) -> EditMask:
    """The region with its soft edge around an outline instead of inside it, and with all that was painted by hand."""
    if state.shape != "tight":
        strokes = _paint_strokes(state, EditMask(torch.zeros_like(mask.frames)))
        return union([mask, strokes])
    return _paint_strokes(state, grow_by_soft_edge(mask, state.shape, state.feather))


def _build_base_mask(folder: Project, state: ProjectState, video: Video) -> EditMask:
    """What was marked, imported, or is told by the edited first frame; objects that are left out are taken away from all of it."""
    names = dict.fromkeys(mark.object for mark in state.marks if mark.kind in PROMPT_KINDS)
    things = {name: _build_object_mask(folder, state, video, name) for name in names if name in state.left_out or _uses_marks(state)}
    drawn = _merge_masks([each for name, each in things.items() if name not in state.left_out], video)
    if state.imported:
        mask = read_mask(folder.path / state.imported, video.num_frames, video.size, state.start)
        both = {"instead": mask, "add": union([drawn, mask]), "subtract": subtract(drawn, mask)}
        drawn = both[state.imported_use]
    elif not things and state.first_frame:
        drawn = find_edit_region(video.frames, read_edited_frame(folder, state.first_frame, video.size)[0])
    return subtract(drawn, _merge_masks([each for name, each in things.items() if name in state.left_out], video))


def _uses_marks(state: ProjectState) -> bool:
    """Does what is marked count, or a mask instead of it?"""
    return not state.imported or state.imported_use != "instead"


def _merge_masks(masks: list[EditMask], video: Video) -> EditMask:
    """All of them, with their remarks."""
    return union([EditMask(torch.zeros(video.frames.shape[:3], dtype=torch.bool)), *masks])


def _build_object_mask(folder: Project, state: ProjectState, video: Video, object_name: str) -> EditMask:
    """One marked object through the clip: boxes at several frames glide, anything else is outlined and followed. Raises `MaskError`."""
    marks = _select_prompt_marks(state, video, object_name)
    if not marks:
        return EditMask(torch.zeros(video.frames.shape[:3], dtype=torch.bool))
    boxes = _build_keyed_boxes(marks)
    if boxes:
        return mask_from_boxes(boxes, video.num_frames, video.size)
    return _load_segmenter(folder).segment(video.frames, [_build_prompt(mark) for mark in marks])[object_name]


def parse_mark(data: Any, object_name: str, num_frames: int) -> Mark:
    """A mark of the object `name` as the viewer tells it. Raises `MaskError` for what is none, or is on no frame of the clip."""
    try:
        mark = Mark(**{key: value for key, value in dict(data).items() if key in Mark.model_fields} | {"object": object_name})
    except (TypeError, ValueError) as error:
        raise MaskError("this mark cannot be read; draw it again") from error
    if not 0 <= mark.frame < num_frames or len(mark.stroke) > MAX_STROKE_POINTS:
        raise MaskError(f"this mark cannot be kept; draw it again, on one of the frames 0 to {num_frames - 1}")
    return mark


def select_mark_fields(state: ProjectState) -> ProjectState:
    """What of a project decides how its marks are followed."""
    return ProjectState.model_validate(state.model_dump(include={"clip", "start", "frames", "marks"}))


def propagate_marks(folder: Project, state: ProjectState, reporter: Reporter) -> None:
    """Follow all that is marked through the clip, telling how far it is; `region_of` then finds it done. Raises `MaskError`."""
    video = read_clip(folder, state)
    names = dict.fromkeys(mark.object for mark in state.marks if mark.kind in PROMPT_KINDS)
    placed = [marks for name in names if (marks := _select_prompt_marks(state, video, name)) and not _build_keyed_boxes(marks)]
    for number, marks in enumerate(placed):

        def told(done: int, total: int, before: int = number * video.num_frames) -> None:
            reporter.step("follow", before + done, len(placed) * total)

        _load_segmenter(folder).segment(video.frames, [_build_prompt(mark) for mark in marks], told)


def segment_object(folder: Project, state: ProjectState, video: Video, frame: int, object_name: str) -> torch.Tensor:
    """An object `[H, W]` bool as it is marked, on one frame. Raises `MaskError` when nothing says where it is."""
    marks = _select_prompt_marks(state, video, object_name)
    boxes = _build_keyed_boxes(marks)
    if boxes:
        return mask_from_boxes(boxes, video.num_frames, video.size).frames[frame]
    return _load_segmenter(folder).segment_frame(video.frames, [_build_prompt(mark) for mark in marks], frame)


@single_flight_cache(4)
def _load_segmenter(folder: Project) -> Segmenter:
    """The project's own segmenter, which keeps what it followed, so that a correction computes only what it changes."""
    return EmbeddedSegmenter(load_saliency_network())


def _select_prompt_marks(state: ProjectState, video: Video, object_name: str) -> list[Mark]:
    """The marks that say where an object is, on the frames that are left of the clip."""
    return [mark for mark in state.marks if mark.object == object_name and mark.kind in PROMPT_KINDS and 0 <= mark.frame < video.num_frames]


def _build_keyed_boxes(marks: list[Mark]) -> list[KeyframeBox]:
    """The boxes, where there are several and nothing else."""
    boxes = [_build_prompt(mark) for mark in marks if mark.kind == "box"]
    return [box for box in boxes if isinstance(box, KeyframeBox)] if 1 < len(boxes) == len(marks) else []


def _build_prompt(mark: Mark) -> Prompt:
    if mark.kind == "box":
        return KeyframeBox(Box(mark.x, mark.y, mark.width, mark.height), mark.frame, mark.object)
    return Click(mark.x, mark.y, mark.kind == "point", mark.frame, mark.object)


def _paint_strokes(state: ProjectState, mask: EditMask) -> EditMask:
    """The mask with what was painted by hand on single frames."""
    if not any(mark.kind in ("paint", "erase") for mark in state.marks):
        return mask
    frames = mask.frames.clone()
    for mark in state.marks:
        if mark.kind in ("paint", "erase") and 0 <= mark.frame < len(frames):
            picture = frames[mark.frame].numpy().view(np.uint8)
            points = np.array(mark.stroke, np.float64).reshape(-1, 1, 2).round().astype(np.int32)
            cv2.polylines(picture, [points], isClosed=False, color=int(mark.kind == "paint"), thickness=max(1, round(mark.width)))
    return EditMask(frames, mask.notes)


def read_edited_frame(folder: Project, file: str, size: Size) -> tuple[torch.Tensor, str | None]:
    """An edited frame `[H, W, 3]` at the clip's size, and a remark where it had to be resized. Raises `InputError` kin."""
    return fit_first_frame(read_image(folder.path / file), size)


def describe_conversions(folder: Project, file: str, size: Size) -> str:
    """What was converted of an edited picture, in one sentence; nothing where nothing was. Raises `InputError` kin."""
    _, resized = read_edited_frame(folder, file, size)
    changes = [*list_conversions(folder.path / file), *([resized.removeprefix("the edited first frame was ")] if resized else [])]
    return f"The picture was converted: {', '.join(changes)}." if changes else ""


def find_edit_outside_region(folder: Project, state: ProjectState) -> OutsideChange | None:
    """What the edited first frame changes outside the region; None when it keeps to it, or when there is nothing to compare."""
    if not state.first_frame or not has_region(state):
        return None
    video = read_clip(folder, state)
    edited, _ = read_edited_frame(folder, state.first_frame, video.size)
    change = detect_outside_change(video.frames[0], edited, compute_region(folder, state).edit_mask.frames[0])
    return change if change is not None and change.share >= 0.0005 else None


def compute_growth(folder: Project, state: ProjectState, box: Box) -> tuple[int, int, int, int]:
    """How far the region has to grow on each side to cover a box in frame 0: the project's next `grown`."""
    bounds = mask_bounds(compute_region(folder, state).edit_mask.frames[0])
    if bounds is None:
        return state.grown
    lacks = (bounds[0] - box.left, bounds[1] - box.top, box.right - bounds[2], box.bottom - bounds[3])
    left, top, right, bottom = (before + max(0, round(lack)) for before, lack in zip(state.grown, lacks, strict=True))
    return left, top, right, bottom


def compute_covering_growth(folder: Project, state: ProjectState) -> tuple[int, int, int, int]:
    """The `grown` with which the region holds what the edited first frame changes around it; what is told of the rest shifts a little as
    the region grows, so that this is asked more than once."""
    for _ in range(4):
        change = find_edit_outside_region(folder, state)
        grown = state.grown if change is None else compute_growth(folder, state, change.suggested_box)
        if grown == state.grown:
            break
        state = state.replace_fields(grown=grown)
    return state.grown
