"""Differences between two states of a project: labels for undo, outdated results, and trimmed clips."""

from __future__ import annotations

from typing import Any

import pytest

from lora_edit.ui.changes import CLIP, FIELD_LABELS, FRAMES, REGION, SETTINGS, describe_outdated, describe_trim, find_change, trim_state
from lora_edit.ui.projects import EditedFrame, Mark, ProjectState

POINT = Mark(kind="point", frame=4, x=1, y=2)
ANOTHER: dict[str, Any] = {
    "clip": "given/1.mp4", "clip_name": "beach.mp4", "start": 2, "frames": 9, "marks": (POINT,), "imported": "given/2.png",
    "imported_use": "add", "left_out": ("1",), "grown": (1, 1, 1, 1), "inverted": True, "smooth": 3, "bridged": True, "shape": "tight",
    "expand": 0.2, "feather": 0.03, "first_frame": "given/3.png", "later": (EditedFrame(frame=3, file="given/4.png"),),
    "model": "ltx-video", "preset": "fast", "prompt": "a hat", "seed": 3, "assignments": ("lora.rank=4",),
}  # fmt: skip
"""Another value for every field of a project."""


def test_every_field_has_a_label_and_a_step() -> None:
    assert set(FIELD_LABELS) == set(ProjectState.model_fields) == set(ANOTHER)


@pytest.mark.parametrize("field", ANOTHER)
def test_every_changed_field_labels_undo_and_outdates_results(field: str) -> None:
    before = ProjectState()
    after = before.replace_fields(**{field: ANOTHER[field]})
    for change in (find_change(before, after), find_change(after, before)):
        assert change is not None and (change.label, change.step) == FIELD_LABELS[field]
    warning = describe_outdated(before, after)
    part = {CLIP: "the clip", REGION: "the region", FRAMES: "the edited frames", SETTINGS: "the settings"}[FIELD_LABELS[field][1]]
    assert (f"before {part} changed" in warning) == (field != "clip_name")
    assert describe_outdated(None, after) == describe_outdated(after, after) == ""


def test_several_changes_are_described_in_one_sentence() -> None:
    assert "before the clip, the region and the settings changed" in describe_outdated(
        ProjectState(), ProjectState(start=1, shape="tight", seed=2)
    )


def test_marks_and_edited_frames_stay_on_their_frames_after_trimming() -> None:
    project = ProjectState(clip="a", marks=(POINT,), first_frame="zero.png", later=(EditedFrame(frame=6, file="six.png", kind="anchor"),))
    later = trim_state(project, 4, None)
    assert [mark.frame for mark in later.marks] == [0]
    assert (later.first_frame, later.select_later_frames(10)) == ("", (EditedFrame(frame=2, file="six.png", kind="anchor"),))
    assert "edit this first frame" in describe_trim(project, later, 10)[0]
    latest = trim_state(later, 6, 3)
    assert (latest.first_frame, latest.select_later_frames(3)) == ("six.png", ())
    assert "1 mark is outside" in describe_trim(later, latest, 3)[0]
    back = trim_state(latest, 0, None)
    assert back.replace_fields(later=()) == project.replace_fields(later=())
    assert [(each.frame, each.file) for each in back.select_later_frames(10)] == [(6, "six.png")]


def test_a_shorter_range_with_the_same_first_frame_has_no_notes() -> None:
    project = ProjectState(clip="a", marks=(Mark(kind="point", frame=0, x=1, y=2),), first_frame="zero.png")
    shorter = trim_state(project, 0, 3)
    assert shorter == project.replace_fields(frames=3)
    assert describe_trim(project, shorter, 3) == []
