"""The edit region from marks, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("cachetools", reason="cachetools is not installed: pip install 'lora-edit[ui]'")

from lora_edit.errors import MaskError
from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.shapes import feather_frame
from lora_edit.types import Box
from lora_edit.ui import region as ui_region
from lora_edit.ui.projects import Mark, Project, ProjectState
from lora_edit.ui.region import compute_region, find_described_marks, read_clip, segment_object
from masks.synthetic_clips import overlap
from ui.rendered import locate_disc, write

FRAMES, HEIGHT, WIDTH = 5, 96, 128


@pytest.fixture
def project_and_state(tmp_path: Path) -> tuple[Project, ProjectState]:
    source, _ = write(tmp_path, FRAMES, HEIGHT, WIDTH)
    return Project(tmp_path), ProjectState(clip=source.name, shape="as-is")


def build_disc_mask(number: int) -> torch.Tensor:
    x, y, radius = locate_disc(number, FRAMES, HEIGHT, WIDTH)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.hypot(columns - x, rows - y) < radius


def build_box(number: int) -> Mark:
    x, y, radius = locate_disc(number, FRAMES, HEIGHT, WIDTH)
    return Mark(kind="box", frame=number, x=x - radius - 2, y=y - radius - 2, width=2 * radius + 4, height=2 * radius + 4)


def test_a_click_or_a_box_segments_the_object_on_every_frame(project_and_state: tuple[Project, ProjectState]) -> None:
    project, state = project_and_state
    x, y, _ = locate_disc(0, FRAMES, HEIGHT, WIDTH)
    for mark in (Mark(kind="point", frame=0, x=x, y=y), build_box(0)):
        region = compute_region(project, state.replace_fields(marks=(mark,)))
        assert [overlap(region.base_mask.frames[number], build_disc_mask(number)) > 0.85 for number in range(FRAMES)] == [True] * FRAMES


def test_the_box_shape_covers_the_outline(project_and_state: tuple[Project, ProjectState]) -> None:
    project, state = project_and_state
    marked = state.replace_fields(marks=(build_box(0),), shape="box", expand=0.0)
    region = compute_region(project, marked)
    assert not (region.base_mask.frames & ~region.edit_mask.frames).any()
    rows, columns = torch.nonzero(region.edit_mask.frames[2], as_tuple=True)
    assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_boxes_on_several_frames_are_interpolated(project_and_state: tuple[Project, ProjectState]) -> None:
    project, state = project_and_state
    region = compute_region(project, state.replace_fields(marks=(build_box(0), build_box(4))))
    for number in range(FRAMES):
        assert not (build_disc_mask(number) & ~region.base_mask.frames[number]).any()
        assert overlap(region.base_mask.frames[number], build_disc_mask(number)) < 0.8


def test_the_immediate_mask_equals_the_propagated_one(project_and_state: tuple[Project, ProjectState]) -> None:
    project, state = project_and_state
    x, y, _ = locate_disc(0, FRAMES, HEIGHT, WIDTH)
    marked = state.replace_fields(marks=(Mark(kind="point", frame=0, x=x, y=y), Mark(kind="not-point", frame=3, x=120, y=8)))
    mask = segment_object(project, marked, read_clip(project, marked), 3, "1")
    assert torch.equal(mask, compute_region(project, marked).base_mask.frames[3])


def test_a_description_marks_the_found_objects(project_and_state: tuple[Project, ProjectState], monkeypatch: pytest.MonkeyPatch) -> None:
    project, state = project_and_state
    found = build_box(0)
    boxes = [Box(found.x, found.y, found.width, found.height), Box(1, 2, 30, 20), Box(3, 4, 5, 6)]
    monkeypatch.setattr(ui_region, "detect_prompts", lambda name, frame, text: [KeyframeBox(box, 0, text) for box in boxes])
    marks = find_described_marks(project, state, "the disc", ("3", "4"))
    assert [(mark.object, mark.x, mark.width, mark.frame) for mark in marks] == [("3", found.x, found.width, 0), ("4", 1, 30, 0)]
    mask = compute_region(project, state.replace_fields(marks=(marks[0],))).base_mask
    assert overlap(mask.frames[0], build_disc_mask(0)) > 0.85


def test_a_negative_click_alone_raises(project_and_state: tuple[Project, ProjectState]) -> None:
    project, state = project_and_state
    with pytest.raises(MaskError, match="no click is on it yet"):
        compute_region(project, state.replace_fields(marks=(Mark(kind="not-point", frame=0, x=5, y=5),)))


def stroke(frame: int, kind: str = "paint", y: float = 10) -> Mark:
    """A short stroke in a corner, away from the disc."""
    return Mark(kind=kind, frame=frame, width=4, stroke=((100, y), (110, y)))


@pytest.mark.parametrize("feather", [0.0, 0.02, 0.05])
def test_a_tight_region_edits_all_marked_pixels_fully(project_and_state: tuple[Project, ProjectState], feather: float) -> None:
    """Including thin parts: the soft edge lies around the outline. With the `as-is` shape it lies inside."""
    project, state = project_and_state
    marks = (build_box(0), *(stroke(number) for number in range(FRAMES)))
    radius = round(feather * HEIGHT)
    close = compute_region(project, state.replace_fields(marks=marks, shape="tight", feather=feather, smooth=1))
    for drawn, shaped in zip(close.base_mask.frames, close.edit_mask.frames, strict=True):
        assert feather_frame(shaped, radius)[drawn].min() == 1
        assert not shaped[:, 90:][20:].any(), "the region grows by the soft edge only"
    exact = compute_region(project, state.replace_fields(marks=marks, shape="as-is", feather=feather))
    assert torch.equal(exact.edit_mask.frames, exact.base_mask.frames)


@pytest.mark.parametrize("shape", ["box", "tight", "noisy", "as-is"])
@pytest.mark.parametrize("bridged", [False, True])
def test_painted_strokes_stay_in_the_region(project_and_state: tuple[Project, ProjectState], shape: str, bridged: bool) -> None:
    """On a single frame, regardless of smoothing over its neighbours."""
    project, state = project_and_state
    marked = state.replace_fields(marks=(build_box(0), stroke(2)), shape=shape, smooth=5, bridged=bridged)
    region = compute_region(project, marked).edit_mask.frames
    assert region[2, 8:12, 100:111].all()
    erased = marked.replace_fields(marks=(*marked.marks, stroke(2, "erase")))
    assert shape == "box" or not compute_region(project, erased).edit_mask.frames[2, 8:12, 100:111].any()
