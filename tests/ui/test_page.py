"""Complete edits in a browser, with the embedded model."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from playwright.sync_api import expect

from lora_edit.ui import jobs
from lora_edit.ui.projects import Mark, ProjectStore
from lora_edit.video.read import read_video
from ui.person import Person
from ui.rendered import write
from ui.waiting import HeldTraining

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


def prepare_edit(visit: Visit, folder: Path, seed: int = 0, steps: int = 4, **clip: int) -> Person:
    """Complete steps 1 to 4, with few training and sampling steps."""
    source, edited = write(folder, seed=seed, **clip)
    person = Person(visit())
    person.brings_a_clip(source)
    person.drags_a_box(0.1, 0.2, 0.5, 0.8)
    person.goes_to_frame(4)
    person.drags_a_box(0.25, 0.2, 0.65, 0.8)
    person.goes_on("region-next", "frames-file")
    person.waits_for_new_picture("frames-view", lambda: person.drops("frames-file", edited))
    person.goes_on("frames-next", "settings-preset")
    person.page.click("#settings-more button")
    person.sets("knob-training-motion_steps", str(steps))
    person.sets("knob-generation-steps", "2")
    person.goes_on("settings-next", "run-start")
    return person


def test_a_complete_edit_from_an_empty_page_to_a_downloaded_clip(visit: Visit, folder: Path) -> None:
    person = prepare_edit(visit, folder)
    page = person.page
    page.click("#run-try")
    page.wait_for_selector("#run-preview video")
    page.click("#run-start")
    page.wait_for_selector("#run-next", state="visible")
    person.goes_on("run-next", "result-video")
    person.sees("result-view")
    check_autoplay(person)
    reduced_motion = Person(visit("?" + page.url.partition("?")[2], reduced_motion="reduce"))
    reduced_motion.sees("result-view")
    page.locator("#result-view .divider").fill("20")
    expect(page.locator("#result-view .over")).to_have_attribute("style", re.compile("20%"))
    person.goes_to_frame(2, "result-view")
    reduced_motion.settles()
    expect(reduced_motion.page.locator("#result-view .play")).to_have_attribute("aria-pressed", "false")
    reduced_motion.page.close()
    person.checks_control_names()
    with page.expect_download() as download:
        page.click("#result-video")
    download.value.save_as(folder / "mine.mp4")
    source, edit = read_video(folder / "clip-0.mp4"), read_video(folder / "mine.mp4")
    assert edit.frames.shape == source.frames.shape
    assert (edit.frames[2].int() - source.frames[2].int()).abs().amax() > 40
    # The same samples, but encoded again with other content.
    assert (edit.frames[:, :, -8:].int() - source.frames[:, :, -8:].int()).abs().amax() <= 3
    with page.expect_download() as download:
        page.click("#result-lora")
    assert download.value.suggested_filename.endswith(".safetensors")
    page.click("#result-pack")
    with page.expect_download() as download:
        page.click("#result-project")
    assert {"run/edit.toml", "run/report.html", "project.json"} <= set(zipfile.ZipFile(download.value.path()).namelist())
    person.sets("again-seed", "5")
    page.click("#again-start")
    page.locator("#status").get_by_text("New result: done").wait_for()
    person.goes_on("run-next", "result-video")
    expect(page.locator("#result-which input")).to_have_value("2: seed 5, again")
    check_outdated_result(person)


def check_autoplay(person: Person) -> None:
    """Check that the result plays in a loop and mute."""
    frame = "parseInt(document.querySelector('#result-view .count').innerText)"
    person.page.wait_for_function(
        f"() => {{ window.furthest = Math.max(window.furthest || 0, {frame}); return {frame} < window.furthest; }}"
    )
    expect(person.page.locator("#result-view .play")).to_have_attribute("aria-pressed", "true")
    assert person.page.evaluate("document.querySelector('#result-view .voice').paused"), "autoplay never starts the sound"


def check_outdated_result(person: Person) -> None:
    """Check that a change outdates the result, and that the primary button is the next action."""
    page = person.page
    go_to_step(person, "Region", "region-view")
    person.waits_for_new_picture("region-view", lambda: page.get_by_label("Close to the outline").click())
    go_to_step(person, "Train", "run-start")
    page.locator("#run-progress").get_by_text("out of date").first.wait_for()
    page.locator("#run-progress").get_by_text("from before the region changed").first.wait_for()
    page.wait_for_selector("#run-start.primary")
    page.wait_for_selector("#run-next.secondary")
    go_to_step(person, "Result", "result-video")
    person.sees_text("from before the region changed")
    page.get_by_role("button", name="Undo: shape").click()
    page.wait_for_selector("#region-view .view")
    go_to_step(person, "Train", "run-next")
    page.wait_for_selector("#run-next.primary")
    expect(page.locator("#run-progress").get_by_text("out of date")).to_have_count(0)
    page.go_back()
    page.wait_for_selector("#region-view .view", state="visible")


def go_to_step(person: Person, step: str, then: str) -> None:
    """Open a step by its tab; reached steps stay open."""
    person.page.get_by_role("tab", name=step).click()
    person.page.wait_for_selector(f"#{then}", state="visible")


def open_prepared_project(visit: Visit, projects: Path, folder: Path, seed: int, steps: int = 4) -> Person:
    """Open a project that is ready for training."""
    source, edited = write(folder, seed=seed)
    project = ProjectStore(projects).create_project()
    box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
    assignments = (f"training.motion_steps={steps}", "generation.steps=2")
    project.update_state(clip=project.import_file(source), marks=(box,), first_frame=project.import_file(edited), assignments=assignments)
    person = Person(visit(f"?project={project.id}"))
    person.goes_on("settings-next", "run-start")
    return person


def test_training_shows_progress_stops_and_resumes(
    visit: Visit, projects: Path, folder: Path, training: HeldTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MIN_PREVIEW_INTERVAL", 0.0)
    training.hold(15)
    person = open_prepared_project(visit, projects, folder, seed=1, steps=40)
    page = person.page
    page.click("#run-start")
    page.wait_for_selector("#run-look img")
    wait_for_step(page, 15)
    page.wait_for_function("() => /^\\d+% lora-edit$/.test(document.title)")
    page.click("#halt")
    page.get_by_role("button", name="Resume").wait_for()
    page.locator("#status").get_by_text("at step").wait_for()
    page.wait_for_function("() => document.title === 'lora-edit'")
    training.hold(25)
    page.reload()
    resume = page.get_by_role("button", name="Resume")
    resume.click()
    assert wait_for_step(page, 1) > 10, "training started over"
    page.reload()
    page.wait_for_selector("#halt", state="visible")
    assert wait_for_step(page, 1) > 10
    training.release()
    page.wait_for_selector("#run-next", state="visible")


def wait_for_step(page: Any, least: int) -> int:
    """Wait until the page shows training step `least` or a later one; returns the displayed step."""
    # The element is missing for a moment while the page loads.
    step = "Number((/motion, (\\d+) of/.exec(document.querySelector('#run-progress')?.innerText ?? '') || [0, 0])[1])"
    return int(page.wait_for_function(f"() => {step} >= {least} && {step}").json_value())


def test_two_people_see_their_own_runs_only(visit: Visit, projects: Path, folder: Path, training: HeldTraining) -> None:
    training.hold(10)
    first, second = (
        open_prepared_project(visit, projects, folder, seed=2, steps=200),
        open_prepared_project(visit, projects, folder, seed=3),
    )
    assert first.page.url != second.page.url
    first.page.click("#run-start")
    wait_for_step(first.page, 1)
    expect(second.page.locator("#status")).to_contain_text("Nothing is running")
    second.page.click("#run-start")
    second.sees_text("1 ahead of it")
    first.page.click("#halt")
    first.page.get_by_role("button", name="Resume").wait_for()
    second.page.wait_for_selector("#run-next", state="visible")
    first.settles()
    expect(first.page.locator("#run-next")).to_be_hidden()
    stranger = Person(visit())
    expect(stranger.page.locator("#status")).to_contain_text("Nothing is running")
    stranger.settles()
    expect(stranger.page.locator("#clip-view .view")).to_be_hidden()
