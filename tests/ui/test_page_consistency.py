"""Consistency of page and project: after another clip, a trim, an undo, in a second tab, and when marks are cleared."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from playwright.sync_api import expect

from lora_edit import pipeline
from lora_edit.errors import ModelError
from lora_edit.ui.projects import Mark, Project, ProjectStore, UnfinishedEdit
from lora_edit.ui.step_region import RegionStep
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from ui.person import Person
from ui.rendered import write
from ui.waiting import HeldTraining

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


def create_edited_project(projects: Path, folder: Path, seed: int, **more: Any) -> Project:
    """Create a project that is ready for training."""
    source, edited = write(folder, seed=seed)
    project = ProjectStore(projects).create_project()
    box = Mark(kind="box", frame=2, x=12, y=19, width=52, height=58)
    files = {"clip": project.import_file(source), "first_frame": project.import_file(edited)}
    project.update_state(**files, clip_name="clip.mp4", marks=(box,), **more)
    return project


def test_another_clip_or_first_frame_needs_another_edit(visit: Visit, projects: Path, folder: Path) -> None:
    project = create_edited_project(projects, folder, seed=30)
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    page.get_by_role("tab", name="Clip").click()
    person.sees("clip-view")
    person.sets("clip-start", "2")
    page.click("#clip-trim")
    person.sees_text("edit this first frame")
    person.goes_on("clip-next", "region-view")
    person.sees("region-view")
    expect(page.locator("#region-view .marks .box"), "the mark moved to frame 0").to_have_count(1)
    person.goes_on("region-next", "frames-file")
    person.sees_text("The clip's first frame is not edited")
    person.settles()
    expect(page.get_by_text("outside of the region")).to_have_count(0)
    page.click("#frames-next")
    person.sees_error("the edited first frame is missing")
    page.get_by_role("tab", name="Clip").click()
    person.drops("clip-file", write(folder, seed=31)[0])
    person.sees_text("the marks and edited frames of the previous clip were removed")
    assert (project.read_state().marks, project.read_state().first_frame) == ((), "")
    page.get_by_role("button", name="Undo: clip").click()
    page.get_by_text("the marks and edited frames of the previous clip were removed").wait_for(state="hidden")
    assert [mark.frame for mark in project.read_state().marks] == [0]


def test_undo_names_the_change_and_opens_its_step(visit: Visit, projects: Path, folder: Path) -> None:
    project = create_edited_project(projects, folder, seed=32)
    first_frame = project.read_state().first_frame
    project.update_state(first_frame="")
    project.update_state(first_frame=first_frame)
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    page.get_by_role("button", name="Undo: edited first frame").click()
    page.wait_for_selector("#frames-file", state="visible")
    assert project.read_state().first_frame == ""
    page.get_by_role("button", name="Redo: edited first frame").click()
    page.get_by_role("button", name="Undo: edited first frame").wait_for()
    assert project.read_state().first_frame == first_frame


def test_a_second_tab_shows_jobs_of_the_first(visit: Visit, projects: Path, folder: Path, training: HeldTraining) -> None:
    training.hold(10)
    project = create_edited_project(projects, folder, seed=33, assignments=("training.motion_steps=200", "generation.steps=1"))
    first, second = (Person(visit(f"?project={project.id}")) for _ in range(2))
    second.page.locator("#status").get_by_text("Nothing is running").wait_for()
    first.goes_on("settings-next", "run-start")
    first.page.click("#run-start")
    second.page.locator("#status").get_by_text("Edit:").wait_for()
    second.page.click("#halt")
    first.page.get_by_role("button", name="Resume").wait_for()


def test_clear_cancels_queued_marks(visit: Visit, projects: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regardless of their number, while the first one is still processed."""
    segment_mark, cancel_marks, calls, is_cleared = RegionStep._segment_mark, RegionStep.cancel_marks, [], threading.Event()

    def slow_segment_mark(*args: Any) -> Any:
        calls.append(args)
        assert is_cleared.wait(300)
        return segment_mark(*args)

    def recorded_cancel_marks(*args: Any) -> None:
        cancel_marks(*args)
        is_cleared.set()

    monkeypatch.setattr(RegionStep, "_segment_mark", slow_segment_mark)
    monkeypatch.setattr(RegionStep, "cancel_marks", recorded_cancel_marks)
    project = create_edited_project(projects, folder, seed=34)
    project.update_state(marks=(), first_frame="")
    person = Person(visit(f"?project={project.id}"))
    person.sees("region-view")
    person.settles()
    for number in range(20):
        person.points_at(0.3 + 0.01 * number, 0.5)
    person.page.click("#region-clear")
    person.page.wait_for_function("() => !document.querySelector('#region-view .view.busy')")
    person.settles()  # the viewer sends the next queued mark as soon as it receives an answer
    assert 1 <= len(calls) <= 2
    assert project.read_state().marks == ()
    expect(person.page.locator("#region-view .marks .point")).to_have_count(0)


def test_an_interrupted_edit_offers_to_resume(visit: Visit, projects: Path, folder: Path) -> None:
    """As after a killed server: there is no job, and the project has a progress record."""
    project = create_edited_project(projects, folder, seed=35)
    project.record_unfinished_edit(UnfinishedEdit(state=project.read_state(), stage="motion", done=21, total=160))
    person = Person(visit(f"?project={project.id}"))
    person.sees_text("interrupted at step 21 of 160 (learning the motion)")
    person.page.get_by_role("button", name="Resume").wait_for()
    project.update_state(seed=4)
    person.page.reload()
    person.page.wait_for_selector("#settings-preset", state="visible")


def test_reached_steps_stay_open_and_enter_the_history(visit: Visit, projects: Path, folder: Path) -> None:
    project = create_edited_project(projects, folder, seed=36)
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    for step, element in (("Region", "region-next"), ("Train", "run-start"), ("Clip", "clip-next")):
        page.get_by_role("tab", name=step).click()
        page.wait_for_selector(f"#{element}", state="visible")
    expect(page.get_by_role("tab", name="Result")).to_be_disabled()
    for element in ("run-start", "region-next", "settings-preset"):
        page.go_back()
        page.wait_for_selector(f"#{element}", state="visible")
    page.go_forward()
    page.wait_for_selector("#region-next", state="visible")
    expect(page).to_have_url(re.compile(f"project={project.id}"))


def test_errors_appear_beside_their_button(visit: Visit, projects: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ModelError("this does not fit here: it needs 80 GB")

    monkeypatch.setattr(pipeline, "estimate", fail)
    project = create_edited_project(projects, folder, seed=37)
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    page.click("#settings-estimate")
    page.locator("#settings-needs").get_by_text("it needs 80 GB").wait_for()
    page.get_by_role("tab", name="Edited frames").click()
    save_image(folder / "same.png", read_video(folder / "clip-37.mp4").frames[0])
    person.drops("frames-file", folder / "same.png")
    person.sees_error("nothing is edited in this picture")
    person.sees_text("edited-37.png is kept")
    page.get_by_role("tab", name="Clip").click()
    person.drops("clip-file", write(folder, frames=1, seed=38)[0])
    person.sees_error("one frame is no clip")


def test_the_displayed_frame_is_selected_for_editing(visit: Visit, projects: Path, folder: Path) -> None:
    """Without marks, on a frame with the region of the edited first frame."""
    project = create_edited_project(projects, folder, seed=39)
    project.update_state(marks=())
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    page.get_by_role("tab", name="Edited frames").click()
    person.sees("frames-view")
    person.settles()
    divider = float(page.locator("#frames-view .divider").input_value())
    assert 20 < divider < 45, "at the edit, left of the center"
    page.click("#frames-later button")
    person.goes_to_frame(3, "frames-view")
    page.wait_for_function("() => document.querySelector('#later-number input')?.value === '3'")
    with page.expect_download() as download:
        page.click("#later-download")
    assert "00003" in download.value.suggested_filename
    page.click("#later-suggest")
    person.settles()
    expect(page.locator("#frames-later")).not_to_contain_text("Searching the clip")
