"""Marks to the edit region, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_edit.errors import MaskError
from lora_edit.masks.shapes import feather_frame
from lora_edit.ui.projects import Mark, Project, ProjectState
from lora_edit.ui.region import compute_region, read_clip, segment_object
from masks.synthetic_clips import overlap
from ui.rendered import place, write

FRAMES, HEIGHT, WIDTH = 5, 96, 128


@pytest.fixture
def project(tmp_path: Path) -> tuple[Project, ProjectState]:
    source, _ = write(tmp_path, FRAMES, HEIGHT, WIDTH)
    return Project(tmp_path), ProjectState(clip=source.name, shape="as-is")


def true_disc(number: int) -> torch.Tensor:
    x, y, radius = place(number, FRAMES, HEIGHT, WIDTH)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.hypot(columns - x, rows - y) < radius


def box_at(number: int) -> Mark:
    x, y, radius = place(number, FRAMES, HEIGHT, WIDTH)
    return Mark(kind="box", frame=number, x=x - radius - 2, y=y - radius - 2, width=2 * radius + 4, height=2 * radius + 4)


def test_a_click_or_a_box_gives_the_outline_on_every_frame(project: tuple[Project, ProjectState]) -> None:
    folder, blank = project
    x, y, _ = place(0, FRAMES, HEIGHT, WIDTH)
    for mark in (Mark(kind="point", frame=0, x=x, y=y), box_at(0)):
        region = compute_region(folder, blank.replace_fields(marks=(mark,)))
        assert [overlap(region.base_mask.frames[number], true_disc(number)) > 0.85 for number in range(FRAMES)] == [True] * FRAMES


def test_the_shape_makes_a_box_of_the_outline(project: tuple[Project, ProjectState]) -> None:
    folder, blank = project
    marked = blank.replace_fields(marks=(box_at(0),), shape="box", expand=0.0)
    region = compute_region(folder, marked)
    assert not (region.base_mask.frames & ~region.edit_mask.frames).any()
    rows, columns = torch.nonzero(region.edit_mask.frames[2], as_tuple=True)
    assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_boxes_on_several_frames_glide_as_they_are(project: tuple[Project, ProjectState]) -> None:
    folder, blank = project
    region = compute_region(folder, blank.replace_fields(marks=(box_at(0), box_at(4))))
    for number in range(FRAMES):
        assert not (true_disc(number) & ~region.base_mask.frames[number]).any()
        assert overlap(region.base_mask.frames[number], true_disc(number)) < 0.8


def test_what_is_shown_at_once_is_what_the_clip_gets_there(project: tuple[Project, ProjectState]) -> None:
    folder, blank = project
    x, y, _ = place(0, FRAMES, HEIGHT, WIDTH)
    marked = blank.replace_fields(marks=(Mark(kind="point", frame=0, x=x, y=y), Mark(kind="not-point", frame=3, x=120, y=8)))
    here = segment_object(folder, marked, read_clip(folder, marked), 3, "1")
    assert torch.equal(here, compute_region(folder, marked).base_mask.frames[3])


def test_a_click_off_a_thing_that_is_nowhere_says_what_to_do(project: tuple[Project, ProjectState]) -> None:
    folder, blank = project
    with pytest.raises(MaskError, match="no click is on it yet"):
        compute_region(folder, blank.replace_fields(marks=(Mark(kind="not-point", frame=0, x=5, y=5),)))


def stroke(frame: int, kind: str = "paint", y: float = 10) -> Mark:
    """A short stroke in a corner, away from the disc."""
    return Mark(kind=kind, frame=frame, width=4, stroke=((100, y), (110, y)))


@pytest.mark.parametrize("feather", [0.0, 0.02, 0.05])
def test_close_to_the_outline_all_that_is_marked_is_edited_in_full(project: tuple[Project, ProjectState], feather: float) -> None:
    """Thin parts too: the soft edge lies around the outline. Drawn exactly, it lies inside."""
    folder, blank = project
    marks = (box_at(0), *(stroke(number) for number in range(FRAMES)))
    radius = round(feather * HEIGHT)
    close = compute_region(folder, blank.replace_fields(marks=marks, shape="tight", feather=feather, smooth=1))
    for drawn, shaped in zip(close.base_mask.frames, close.edit_mask.frames, strict=True):
        assert feather_frame(shaped, radius)[drawn].min() == 1
        assert not shaped[:, 90:][20:].any(), "and no further than the edge is soft"
    exact = compute_region(folder, blank.replace_fields(marks=marks, shape="as-is", feather=feather))
    assert torch.equal(exact.edit_mask.frames, exact.base_mask.frames)


@pytest.mark.parametrize("shape", ["box", "tight", "noisy", "as-is"])
@pytest.mark.parametrize("bridged", [False, True])
def test_what_is_painted_by_hand_stays(project: tuple[Project, ProjectState], shape: str, bridged: bool) -> None:
    """On one frame alone, however many neighbours it is made steady over."""
    folder, blank = project
    marked = blank.replace_fields(marks=(box_at(0), stroke(2)), shape=shape, smooth=5, bridged=bridged)
    region = compute_region(folder, marked).edit_mask.frames
    assert region[2, 8:12, 100:111].all()
    erased = marked.replace_fields(marks=(*marked.marks, stroke(2, "erase")))
    assert shape == "box" or not compute_region(folder, erased).edit_mask.frames[2, 8:12, 100:111].any()
