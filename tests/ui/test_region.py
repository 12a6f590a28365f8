"""Marks to the edit region, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_edit.errors import MaskError
from lora_edit.masks.shapes import feather_frame
from lora_edit.ui.projects import Folder, Mark, Project
from lora_edit.ui.region import read_clip, region_of, seen_at
from masks.things import overlap
from ui.rendered import place, write

FRAMES, HEIGHT, WIDTH = 5, 96, 128


@pytest.fixture
def project(tmp_path: Path) -> tuple[Folder, Project]:
    source, _ = write(tmp_path, FRAMES, HEIGHT, WIDTH)
    return Folder(tmp_path), Project(clip=source.name, shape="as-is")


def true_disc(number: int) -> torch.Tensor:
    x, y, radius = place(number, FRAMES, HEIGHT, WIDTH)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.hypot(columns - x, rows - y) < radius


def box_at(number: int) -> Mark:
    x, y, radius = place(number, FRAMES, HEIGHT, WIDTH)
    return Mark(kind="box", frame=number, x=x - radius - 2, y=y - radius - 2, width=2 * radius + 4, height=2 * radius + 4)


def test_a_click_or_a_box_gives_the_outline_on_every_frame(project: tuple[Folder, Project]) -> None:
    folder, blank = project
    x, y, _ = place(0, FRAMES, HEIGHT, WIDTH)
    for mark in (Mark(kind="point", frame=0, x=x, y=y), box_at(0)):
        region = region_of(folder, blank.having(marks=(mark,)))
        assert [overlap(region.drawn.frames[number], true_disc(number)) > 0.85 for number in range(FRAMES)] == [True] * FRAMES


def test_the_shape_makes_a_box_of_the_outline(project: tuple[Folder, Project]) -> None:
    folder, blank = project
    marked = blank.having(marks=(box_at(0),), shape="box", expand=0.0)
    region = region_of(folder, marked)
    assert not (region.drawn.frames & ~region.shaped.frames).any()
    rows, columns = torch.nonzero(region.shaped.frames[2], as_tuple=True)
    assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_boxes_on_several_frames_glide_as_they_are(project: tuple[Folder, Project]) -> None:
    folder, blank = project
    region = region_of(folder, blank.having(marks=(box_at(0), box_at(4))))
    for number in range(FRAMES):
        assert not (true_disc(number) & ~region.drawn.frames[number]).any()
        assert overlap(region.drawn.frames[number], true_disc(number)) < 0.8


def test_what_is_shown_at_once_is_what_the_clip_gets_there(project: tuple[Folder, Project]) -> None:
    folder, blank = project
    x, y, _ = place(0, FRAMES, HEIGHT, WIDTH)
    marked = blank.having(marks=(Mark(kind="point", frame=0, x=x, y=y), Mark(kind="not-point", frame=3, x=120, y=8)))
    here = seen_at(folder, marked, read_clip(folder, marked), 3, "1")
    assert torch.equal(here, region_of(folder, marked).drawn.frames[3])


def test_a_click_off_a_thing_that_is_nowhere_says_what_to_do(project: tuple[Folder, Project]) -> None:
    folder, blank = project
    with pytest.raises(MaskError, match="no click is on it yet"):
        region_of(folder, blank.having(marks=(Mark(kind="not-point", frame=0, x=5, y=5),)))


def stroke(frame: int, kind: str = "paint", y: float = 10) -> Mark:
    """A short stroke in a corner, away from the disc."""
    return Mark(kind=kind, frame=frame, width=4, stroke=((100, y), (110, y)))


@pytest.mark.parametrize("feather", [0.0, 0.02, 0.05])
def test_close_to_the_outline_all_that_is_marked_is_edited_in_full(project: tuple[Folder, Project], feather: float) -> None:
    """Thin parts too: the soft edge lies around the outline. Drawn exactly, it lies inside."""
    folder, blank = project
    marks = (box_at(0), *(stroke(number) for number in range(FRAMES)))
    radius = round(feather * HEIGHT)
    close = region_of(folder, blank.having(marks=marks, shape="tight", feather=feather, smooth=1))
    for drawn, shaped in zip(close.drawn.frames, close.shaped.frames, strict=True):
        assert feather_frame(shaped, radius)[drawn].min() == 1
        assert not shaped[:, 90:][20:].any(), "and no further than the edge is soft"
    exact = region_of(folder, blank.having(marks=marks, shape="as-is", feather=feather))
    assert torch.equal(exact.shaped.frames, exact.drawn.frames)


@pytest.mark.parametrize("shape", ["box", "tight", "noisy", "as-is"])
@pytest.mark.parametrize("bridged", [False, True])
def test_what_is_painted_by_hand_stays(project: tuple[Folder, Project], shape: str, bridged: bool) -> None:
    """On one frame alone, however many neighbours it is made steady over."""
    folder, blank = project
    marked = blank.having(marks=(box_at(0), stroke(2)), shape=shape, smooth=5, bridged=bridged)
    region = region_of(folder, marked).shaped.frames
    assert region[2, 8:12, 100:111].all()
    erased = marked.having(marks=(*marked.marks, stroke(2, "erase")))
    assert shape == "box" or not region_of(folder, erased).shaped.frames[2, 8:12, 100:111].any()
