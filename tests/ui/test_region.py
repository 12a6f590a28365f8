"""Marks to the edit region, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_edit.errors import MaskError
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
