"""Propagation of a mask through a long clip: progress, stop, resume, and restart by the next click."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from playwright.sync_api import expect

from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
from ui.person import Person
from ui.rendered import write

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


@pytest.fixture
def slow_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the propagation take at least ten seconds, however fast the machine and however slow the browser."""
    segment = EmbeddedSegmenter.segment

    def slow_segment(segmenter: EmbeddedSegmenter, frames: Any, prompts: Any, on_frame: Any = lambda *_: None) -> Any:
        def report(done: int, total: int) -> None:
            time.sleep(10 / total)
            on_frame(done, total)

        return segment(segmenter, frames, prompts, report)

    monkeypatch.setattr(EmbeddedSegmenter, "segment", slow_segment)


@pytest.mark.usefixtures("slow_propagation")
def test_propagation_shows_progress_stops_and_resumes(visit: Visit, folder: Path) -> None:
    source, _ = write(folder, frames=30, seed=3)
    person = Person(visit())
    person.brings_a_clip(source)
    page, status = person.page, person.page.locator("#status")
    person.settles()
    top = page.locator("#steps").bounding_box()["y"]
    click_once(person, 0.3, 0.5)
    status.get_by_text("following it through the clip").wait_for()
    assert page.locator("#steps").bounding_box()["y"] == top
    page.click("#halt")
    person.sees_text("the mask was not propagated to the end")
    page.click("#region-next")
    person.sees_error("press Follow on first")
    page.click("#region-on")
    page.locator("#region-on").wait_for(state="hidden")
    page.wait_for_selector("#region-view .view:not(.busy)")
    person.goes_on("region-next", "frames-file")


@pytest.mark.usefixtures("slow_propagation")
def test_the_next_click_does_not_wait_for_the_propagation(visit: Visit, folder: Path) -> None:
    source, _ = write(folder, frames=30, seed=4)
    person = Person(visit())
    person.brings_a_clip(source)
    click_once(person, 0.3, 0.5)
    person.page.locator("#status").get_by_text("following it through the clip").wait_for()
    click_once(person, 0.35, 0.55)
    person.page.wait_for_function("() => document.querySelectorAll('#region-view .marks .point').length === 2")
    expect(person.page.locator("#region-view .view.busy")).to_have_count(1)
    person.page.wait_for_selector("#region-view .view:not(.busy)")
    expect(person.page.locator("#region-view .marks .point")).to_have_count(2)
    person.settles()
    expect(person.page.locator("#region-on")).to_be_hidden()


def click_once(person: Person, x: float, y: float) -> None:
    """Click and wait for the mark, not for the propagation."""
    marks = "document.querySelectorAll('#region-view .marks .point').length"
    before = person.page.evaluate(marks)
    person.points_at(x, y)
    person.page.wait_for_function(f"(before) => {marks} > before", arg=before)
