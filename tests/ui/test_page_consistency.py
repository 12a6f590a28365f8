"""What the page says is so: after another clip, a trim, an undo, in a second tab, and when marks are cleared."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from lora_edit import pipeline
from lora_edit.errors import ModelError
from lora_edit.ui.projects import Mark, Project, ProjectStore, UnfinishedEdit
from lora_edit.ui.step_region import RegionStep
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from ui.person import Person
from ui.rendered import write

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


def edited_project(projects: Path, folder: Path, seed: int, **more: Any) -> Project:
    """A project that is ready to be trained."""
    source, edited = write(folder, seed=seed)
    project = ProjectStore(projects).create_project()
    box = Mark(kind="box", frame=2, x=12, y=19, width=52, height=58)
    files = {"clip": project.import_file(source), "first_frame": project.import_file(edited)}
    project.update_state(**files, clip_name="clip.mp4", marks=(box,), **more)
    return project


def test_another_clip_or_first_frame_asks_for_another_edit(visit: Visit, projects: Path, folder: Path) -> None:
    project = edited_project(projects, folder, seed=30)
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
    assert page.locator("#region-view .marks .box").count() == 1, "it moved along to frame 0"
    person.goes_on("region-next", "frames-file")
    person.sees_text("The clip's first frame is not edited")
    assert page.get_by_text("outside of the region").count() == 0
    page.click("#frames-next")
    person.sees_error("the edited first frame is missing")
    page.get_by_role("tab", name="Clip").click()
    person.drops("clip-file", write(folder, seed=31)[0])
    person.sees_text("the marks and edited frames of the one before are gone")
    assert (project.read_state().marks, project.read_state().first_frame) == ((), "")
    page.get_by_role("button", name="Undo: clip").click()
    page.get_by_text("the marks and edited frames of the one before are gone").wait_for(state="hidden")
    assert [mark.frame for mark in project.read_state().marks] == [0]


def test_undo_says_what_it_undoes_and_goes_there(visit: Visit, projects: Path, folder: Path) -> None:
    project = edited_project(projects, folder, seed=32)
    kept = project.read_state().first_frame
    project.update_state(first_frame="")
    project.update_state(first_frame=kept)
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    page.get_by_role("button", name="Undo: edited first frame").click()
    page.wait_for_selector("#frames-file", state="visible")
    assert project.read_state().first_frame == ""
    page.get_by_role("button", name="Redo: edited first frame").click()
    page.get_by_role("button", name="Undo: edited first frame").wait_for()
    assert project.read_state().first_frame == kept


def test_a_second_tab_sees_what_the_first_one_starts(visit: Visit, projects: Path, folder: Path) -> None:
    project = edited_project(projects, folder, seed=33, assignments=("training.motion_steps=200", "generation.steps=1"))
    first, second = (Person(visit(f"?project={project.id}")) for _ in range(2))
    second.page.locator("#status").get_by_text("Nothing is running").wait_for()
    first.goes_on("settings-next", "run-start")
    first.page.click("#run-start")
    second.page.locator("#status").get_by_text("Edit:").wait_for()
    second.page.click("#halt")
    first.page.get_by_role("button", name="Resume").wait_for(timeout=90_000)


def test_clear_cancels_the_marks_that_wait(visit: Visit, projects: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many were made while the first one is still looked at."""
    kept, at_work = RegionStep._segment_mark, []

    def slow(*args: Any) -> Any:
        at_work.append(args)
        time.sleep(1.5)
        return kept(*args)

    monkeypatch.setattr(RegionStep, "_segment_mark", slow)
    project = edited_project(projects, folder, seed=34)
    project.update_state(marks=(), first_frame="")
    person = Person(visit(f"?project={project.id}"))
    person.sees("region-view")
    box = person.page.locator("#region-view .picture").bounding_box()
    for number in range(20):
        person.page.mouse.click(box["x"] + (0.3 + 0.01 * number) * box["width"], box["y"] + 0.5 * box["height"])
    person.page.click("#region-clear")
    person.page.wait_for_function("() => !document.querySelector('#region-view .view.busy')")
    person.page.wait_for_timeout(2500)
    assert len(at_work) <= 2
    assert project.read_state().marks == ()
    assert person.page.locator("#region-view .marks .point").count() == 0


def test_an_edit_that_was_cut_off_says_so_and_is_resumed(visit: Visit, projects: Path, folder: Path) -> None:
    """As when the server was killed: no job is known, and the project says how far it was."""
    project = edited_project(projects, folder, seed=35)
    project.record_unfinished_edit(UnfinishedEdit(state=project.read_state(), stage="motion", done=21, total=160))
    person = Person(visit(f"?project={project.id}"))
    person.sees_text("interrupted at step 21 of 160 (learning the motion)")
    person.page.get_by_role("button", name="Resume").wait_for()
    project.update_state(seed=4)
    person.page.reload()
    person.page.wait_for_selector("#settings-preset", state="visible")


def test_reached_steps_stay_open_and_stand_in_the_history(visit: Visit, projects: Path, folder: Path) -> None:
    project = edited_project(projects, folder, seed=36)
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    for step, there in (("Region", "region-next"), ("Train", "run-start"), ("Clip", "clip-next")):
        page.get_by_role("tab", name=step).click()
        page.wait_for_selector(f"#{there}", state="visible")
    assert page.get_by_role("tab", name="Result").is_disabled()
    for there in ("run-start", "region-next", "settings-preset"):
        page.go_back()
        page.wait_for_selector(f"#{there}", state="visible")
    page.go_forward()
    page.wait_for_selector("#region-next", state="visible")
    assert f"project={project.id}" in page.url


def test_faults_are_told_at_once_where_the_button_is(visit: Visit, projects: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ModelError("this does not fit here: it needs 80 GB")

    monkeypatch.setattr(pipeline, "estimate", fails)
    project = edited_project(projects, folder, seed=37)
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


def test_the_frame_in_sight_is_the_frame_to_edit(visit: Visit, projects: Path, folder: Path) -> None:
    """And where nothing is marked, the region that the edited frame tells is shown on it."""
    project = edited_project(projects, folder, seed=39)
    project.update_state(marks=())
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    page.get_by_role("tab", name="Edited frames").click()
    person.sees("frames-view")
    divider = float(page.locator("#frames-view .divider").input_value())
    assert 20 < divider < 45, "on the edit, which is to the left"
    page.click("#frames-later button")
    person.goes_to_frame(3, "frames-view")
    page.wait_for_function("() => document.querySelector('#later-number input').value === '3'")
    with page.expect_download() as download:
        page.click("#later-download")
    assert "00003" in download.value.suggested_filename
    page.click("#later-suggest")
    page.wait_for_function("() => !document.querySelector('#frames-later').innerText.includes('Looking through')")
