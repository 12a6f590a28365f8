"""From what was drawn on the page to the edit region, by the rooms that know how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lora_edit.errors import MaskError, VideoError
from lora_edit.masks.boxes import KeyedBox, mask_from_boxes
from lora_edit.masks.check import TOLERANCE, OutsideChange, change_level, fit_first_frame, outside_change, without_shift
from lora_edit.masks.embedded import EmbeddedSegmenter
from lora_edit.masks.files import read_mask
from lora_edit.masks.follow import follow_change
from lora_edit.masks.over_time import steadied
from lora_edit.masks.salient import load_salient_net
from lora_edit.masks.segment import Click, Prompt, Segmenter
from lora_edit.masks.shapes import bridge, grow_sides, invert, shape_mask, subtract, union, with_soft_edge
from lora_edit.reporting import Reporter
from lora_edit.types import Box, EditMask, Size, Video
from lora_edit.ui.once import once
from lora_edit.ui.projects import Folder, Mark, Project
from lora_edit.video.images import conversions
from lora_edit.video.read import probe, read_image, read_video
from lora_edit.video.settings import VideoSettings

LONGEST = 240
"""Source frames from which a new clip is trimmed at first, so that a feature film does not fill the memory."""

LONGEST_STROKE = 4000
"""Points of a stroke of the brush."""

OUTLINES = ("tight", "noisy")
"""Shapes that follow the outline, which is made steady over the frames first."""

PLACES = ("point", "not-point", "box")
"""Marks that say where a thing is."""

REGION = {"clip", "start", "frames", "marks", "left_out", "imported", "imported_use"} | {
    "grown", "inverted", "bridged", "smooth", "shape", "expand", "feather",
}  # fmt: skip
"""What of a project decides its region; the first frame too, where nothing else does."""


@dataclass(frozen=True)
class Region:
    """`drawn` is what was marked and followed, `shaped` what will be edited: with the soft edge, where that lies around an outline."""

    drawn: EditMask
    shaped: EditMask

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the person."""
        return tuple(dict.fromkeys((*self.drawn.notes, *self.shaped.notes)))


def read_clip(folder: Folder, project: Project) -> Video:
    """The project's clip in its range. Raises `VideoError`."""
    return _read_clip(folder.path / project.clip, project.start, project.frames)


@once(4)
def _read_clip(path: Path, start: int, frames: int | None) -> Video:
    return read_video(path, VideoSettings(start=start, frames=frames))


def first_range(file: Path) -> int | None:
    """How many frames of a new clip to take: all, unless it is very long. Raises `VideoError` for what is no clip."""
    count = probe(file).num_frames
    return LONGEST if count is not None and count > LONGEST else None


def check_range(folder: Folder, project: Project) -> int:
    """How many frames the project's range has. Raises `InputError` kin where it is no clip, or where an imported mask doesn't cover it."""
    video = read_clip(folder, project)
    if video.num_frames < 2:
        raise VideoError("one frame is no clip; take at least two")
    if project.imported:
        read_mask(folder.path / project.imported, video.num_frames, video.size, project.start)
    return video.num_frames


def check_edit(folder: Folder, project: Project) -> None:
    """Raises `InputError` kin where the edited first frame doesn't fit the clip, or where nothing is edited in it."""
    video = read_clip(folder, project)
    edited, _ = edited_picture(folder, project.first_frame, video.size)
    if (change_level(without_shift(video.frames[0], edited)) <= TOLERANCE).all():
        raise MaskError("nothing is edited in this picture: it is the clip's own first frame; edit it, save it, and drop the edited one")
    if not has_region(project):
        region_of(folder, project)


def has_region(project: Project) -> bool:
    """Has the person said where to edit? If not, the edited first frame says it."""
    return bool(project.marks or project.imported)


def region_of(folder: Folder, project: Project) -> Region:
    """The region of a project that has a clip and marks, a mask, or an edited first frame. Raises `MaskError`."""
    if not has_region(project) and not project.first_frame:
        raise MaskError(
            "nothing is marked yet; click on what changes, or go on: what your edited first frame changes is then found by itself"
        )
    parts = REGION if has_region(project) else {*REGION, "first_frame"}
    return _region(folder, Project.model_validate(project.model_dump(include=parts)))


@once(8)
def _region(folder: Folder, project: Project) -> Region:
    video = read_clip(folder, project)
    drawn = _painted(project, _drawn(folder, project, video))
    if project.bridged:
        drawn = bridge(drawn)
    # Neighbouring frames outvote what was painted on one of them; what a person painted is what they want.
    steady = _painted(project, steadied(drawn, project.smooth)) if project.shape in OUTLINES else drawn
    if project.inverted:
        drawn, steady = invert(drawn), invert(steady)
    shaped = grow_sides(shape_mask(steady, project.shape, project.expand, project.smooth), project.grown)
    return Region(drawn, shaped if project.inverted else _finished(project, shaped))


def _finished(project: Project, shaped: EditMask) -> EditMask:
    """The region with its soft edge around an outline instead of inside it, and with all that was painted by hand."""
    if project.shape != "tight":
        strokes = _painted(project, EditMask(torch.zeros_like(shaped.frames)))
        return union([shaped, strokes])
    return _painted(project, with_soft_edge(shaped, project.shape, project.feather))


def _drawn(folder: Folder, project: Project, video: Video) -> EditMask:
    """What was marked, imported, or is told by the edited first frame; objects that are left out are taken away from all of it."""
    names = dict.fromkeys(mark.object for mark in project.marks if mark.kind in PLACES)
    things = {name: _thing(folder, project, video, name) for name in names if name in project.left_out or _needs_marks(project)}
    drawn = _united([each for name, each in things.items() if name not in project.left_out], video)
    if project.imported:
        mask = read_mask(folder.path / project.imported, video.num_frames, video.size, project.start)
        both = {"instead": mask, "add": union([drawn, mask]), "subtract": subtract(drawn, mask)}
        drawn = both[project.imported_use]
    elif not things and project.first_frame:
        drawn = follow_change(video.frames, edited_picture(folder, project.first_frame, video.size)[0])
    return subtract(drawn, _united([each for name, each in things.items() if name in project.left_out], video))


def _needs_marks(project: Project) -> bool:
    """Does what is marked count, or a mask instead of it?"""
    return not project.imported or project.imported_use != "instead"


def _united(things: list[EditMask], video: Video) -> EditMask:
    """All of them, with their remarks."""
    return union([EditMask(torch.zeros(video.frames.shape[:3], dtype=torch.bool)), *things])


def _thing(folder: Folder, project: Project, video: Video, name: str) -> EditMask:
    """One marked object through the clip: boxes at several frames glide, anything else is outlined and followed. Raises `MaskError`."""
    marks = _placed(project, video, name)
    if not marks:
        return EditMask(torch.zeros(video.frames.shape[:3], dtype=torch.bool))
    boxes = _gliding(marks)
    if boxes:
        return mask_from_boxes(boxes, video.num_frames, video.size)
    return _segmenter(folder).segment(video.frames, [_prompt(mark) for mark in marks])[name]


def drawn_mark(given: Any, name: str, num_frames: int) -> Mark:
    """A mark of the object `name` as the viewer tells it. Raises `MaskError` for what is none, or is on no frame of the clip."""
    try:
        mark = Mark(**{key: value for key, value in dict(given).items() if key in Mark.model_fields} | {"object": name})
    except (TypeError, ValueError) as error:
        raise MaskError("this mark cannot be read; draw it again") from error
    if not 0 <= mark.frame < num_frames or len(mark.stroke) > LONGEST_STROKE:
        raise MaskError(f"this mark cannot be kept; draw it again, on one of the frames 0 to {num_frames - 1}")
    return mark


def followed_part(project: Project) -> Project:
    """What of a project decides how its marks are followed."""
    return Project.model_validate(project.model_dump(include={"clip", "start", "frames", "marks"}))


def follow(folder: Folder, project: Project, reporter: Reporter) -> None:
    """Follow all that is marked through the clip, telling how far it is; `region_of` then finds it done. Raises `MaskError`."""
    video = read_clip(folder, project)
    names = dict.fromkeys(mark.object for mark in project.marks if mark.kind in PLACES)
    placed = [marks for name in names if (marks := _placed(project, video, name)) and not _gliding(marks)]
    for number, marks in enumerate(placed):

        def told(done: int, total: int, before: int = number * video.num_frames) -> None:
            reporter.step("follow", before + done, len(placed) * total)

        _segmenter(folder).segment(video.frames, [_prompt(mark) for mark in marks], told)


def seen_at(folder: Folder, project: Project, video: Video, frame: int, name: str) -> torch.Tensor:
    """An object `[H, W]` bool as it is marked, on one frame. Raises `MaskError` when nothing says where it is."""
    marks = _placed(project, video, name)
    boxes = _gliding(marks)
    if boxes:
        return mask_from_boxes(boxes, video.num_frames, video.size).frames[frame]
    return _segmenter(folder).outline(video.frames, [_prompt(mark) for mark in marks], frame)


@once(4)
def _segmenter(folder: Folder) -> Segmenter:
    """The project's own segmenter, which keeps what it followed, so that a correction computes only what it changes."""
    return EmbeddedSegmenter(load_salient_net())


def _placed(project: Project, video: Video, name: str) -> list[Mark]:
    """The marks that say where an object is, on the frames that are left of the clip."""
    return [mark for mark in project.marks if mark.object == name and mark.kind in PLACES and 0 <= mark.frame < video.num_frames]


def _gliding(marks: list[Mark]) -> list[KeyedBox]:
    """The boxes, where there are several and nothing else."""
    boxes = [_prompt(mark) for mark in marks if mark.kind == "box"]
    return [box for box in boxes if isinstance(box, KeyedBox)] if 1 < len(boxes) == len(marks) else []


def _prompt(mark: Mark) -> Prompt:
    if mark.kind == "box":
        return KeyedBox(Box(mark.x, mark.y, mark.width, mark.height), mark.frame, mark.object)
    return Click(mark.x, mark.y, mark.kind == "point", mark.frame, mark.object)


def _painted(project: Project, mask: EditMask) -> EditMask:
    """The mask with what was painted by hand on single frames."""
    if not any(mark.kind in ("paint", "erase") for mark in project.marks):
        return mask
    frames = mask.frames.clone()
    for mark in project.marks:
        if mark.kind in ("paint", "erase") and 0 <= mark.frame < len(frames):
            picture = frames[mark.frame].numpy().view(np.uint8)
            points = np.array(mark.stroke, np.float64).reshape(-1, 1, 2).round().astype(np.int32)
            cv2.polylines(picture, [points], isClosed=False, color=int(mark.kind == "paint"), thickness=max(1, round(mark.width)))
    return EditMask(frames, mask.notes)


def edited_picture(folder: Folder, file: str, size: Size) -> tuple[torch.Tensor, str | None]:
    """An edited frame `[H, W, 3]` at the clip's size, and a remark where it had to be resized. Raises `InputError` kin."""
    return fit_first_frame(read_image(folder.path / file), size)


def conversion_note(folder: Folder, file: str, size: Size) -> str:
    """What was converted of an edited picture, in one sentence; nothing where nothing was. Raises `InputError` kin."""
    _, resized = edited_picture(folder, file, size)
    changes = [*conversions(folder.path / file), *([resized.removeprefix("the edited first frame was ")] if resized else [])]
    return f"The picture was converted: {', '.join(changes)}." if changes else ""


def reaches_outside(folder: Folder, project: Project) -> OutsideChange | None:
    """What the edited first frame changes outside the region; None when it keeps to it, or when there is nothing to compare."""
    if not project.first_frame or not has_region(project):
        return None
    video = read_clip(folder, project)
    edited, _ = edited_picture(folder, project.first_frame, video.size)
    change = outside_change(video.frames[0], edited, region_of(folder, project).shaped.frames[0])
    return change if change is not None and change.share >= 0.0005 else None


def growth_to(folder: Folder, project: Project, box: Box) -> tuple[int, int, int, int]:
    """How far the region has to grow on each side to cover a box in frame 0: the project's next `grown`."""
    inside = region_of(folder, project).shaped.frames[0]
    if not inside.any():
        return project.grown
    rows, columns = (torch.nonzero(inside.any(axis)).flatten() for axis in (1, 0))
    lacks = (
        int(columns[0]) - box.left,
        int(rows[0]) - box.top,
        box.left + box.width - int(columns[-1]) - 1,
        box.top + box.height - int(rows[-1]) - 1,
    )
    left, top, right, bottom = (before + max(0, round(lack)) for before, lack in zip(project.grown, lacks, strict=True))
    return left, top, right, bottom


def covering_growth(folder: Folder, project: Project) -> tuple[int, int, int, int]:
    """The `grown` with which the region holds what the edited first frame changes around it; what is told of the rest shifts a little as
    the region grows, so that this is asked more than once."""
    for _ in range(4):
        change = reaches_outside(folder, project)
        grown = project.grown if change is None else growth_to(folder, project, change.suggested)
        if grown == project.grown:
            break
        project = project.having(grown=grown)
    return project.grown
