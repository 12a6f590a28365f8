"""What differs between two states of a project: undo and outdated results name it; a trimmed clip keeps what was made for its frames."""

from __future__ import annotations

from typing import Any

import pytest

from lora_edit.ui.changes import CLIP, FIELDS, FRAMES, REGION, SETTINGS, change_between, outdated, trim_remarks, trimmed
from lora_edit.ui.projects import Later, Mark, Project

POINT = Mark(kind="point", frame=4, x=1, y=2)
ANOTHER: dict[str, Any] = {
    "clip": "given/1.mp4", "clip_name": "beach.mp4", "start": 2, "frames": 9, "marks": (POINT,), "imported": "given/2.png",
    "imported_use": "add", "left_out": ("1",), "grown": (1, 1, 1, 1), "inverted": True, "smooth": 3, "bridged": True, "shape": "tight",
    "expand": 0.2, "feather": 0.03, "first_frame": "given/3.png", "later": (Later(frame=3, file="given/4.png"),), "model": "ltx-video",
    "preset": "fast", "prompt": "a hat", "seed": 3, "assignments": ("lora.rank=4",),
}  # fmt: skip
"""Another value for every field of a project."""


def test_every_field_has_a_name_and_a_step() -> None:
    assert set(FIELDS) == set(Project.model_fields) == set(ANOTHER)


@pytest.mark.parametrize("field", ANOTHER)
def test_whatever_changes_is_named_by_undo_and_makes_a_result_outdated(field: str) -> None:
    before = Project()
    after = before.having(**{field: ANOTHER[field]})
    for change in (change_between(before, after), change_between(after, before)):
        assert change is not None and (change.words, change.step) == FIELDS[field]
    said = outdated(before, after)
    part = {CLIP: "the clip", REGION: "the region", FRAMES: "the edited frames", SETTINGS: "the settings"}[FIELDS[field][1]]
    assert (f"before {part} changed" in said) == (field != "clip_name")
    assert outdated(None, after) == outdated(after, after) == ""


def test_several_changes_are_told_in_one_sentence() -> None:
    assert "before the clip, the region and the settings changed" in outdated(Project(), Project(start=1, shape="tight", seed=2))


def test_marks_and_edited_frames_stay_on_their_frames_however_the_clip_is_trimmed() -> None:
    project = Project(clip="a", marks=(POINT,), first_frame="zero.png", later=(Later(frame=6, file="six.png", kind="anchor"),))
    later = trimmed(project, 4, None)
    assert [mark.frame for mark in later.marks] == [0]
    assert (later.first_frame, later.later_of(10)) == ("", (Later(frame=2, file="six.png", kind="anchor"),))
    assert "edit this first frame" in trim_remarks(project, later, 10)[0]
    latest = trimmed(later, 6, 3)
    assert (latest.first_frame, latest.later_of(3)) == ("six.png", ())
    assert "1 mark is outside" in trim_remarks(later, latest, 3)[0]
    back = trimmed(latest, 0, None)
    assert back.having(later=()) == project.having(later=())
    assert [(each.frame, each.file) for each in back.later_of(10)] == [(6, "six.png")]


def test_a_shorter_range_with_the_same_first_frame_asks_for_nothing() -> None:
    project = Project(clip="a", marks=(Mark(kind="point", frame=0, x=1, y=2),), first_frame="zero.png")
    shorter = trimmed(project, 0, 3)
    assert shorter == project.having(frames=3)
    assert trim_remarks(project, shorter, 3) == []
