"""The frame viewer in a browser: playback with sound, from the frame where it stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from playwright.sync_api import expect

from lora_edit.types import Video
from lora_edit.ui.step_clip import ClipStep
from ui.person import Person
from ui.rendered import COLOUR, draw, write
from video.clips import write_with_sound

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


RECORD_FRAMES = """() => {
  const count = document.querySelector("#clip-view .count");
  window.shownFrames = [];
  new MutationObserver(() => window.shownFrames.push(parseInt(count.innerText))).observe(count, { childList: true });
}"""
"""Script: records the numbers of the frames that the clip's viewer shows."""


def play_and_read_first_frame(page: Any) -> int:
    """Press Play; returns the first frame that is played."""
    page.evaluate("window.shownFrames = []")
    page.locator("#clip-view .play").click()
    page.wait_for_selector("#clip-view .play[aria-pressed=true]")
    return int(page.wait_for_function("() => window.shownFrames.length && String(window.shownFrames[0])").json_value())


def test_play_continues_where_it_stopped_with_sound(visit: Visit, folder: Path) -> None:
    frames = draw(160, 48, 64, COLOUR)
    write_with_sound(folder / "loud.mp4", Video(frames, Fraction(10), tuple(number / 10 for number in range(160))))
    person = Person(visit())
    page = person.page
    person.drops("clip-file", folder / "loud.mp4")
    person.sees("clip-view")
    person.goes_to_frame(12, "clip-view")
    page.evaluate(RECORD_FRAMES)
    assert play_and_read_first_frame(page) >= 12
    page.wait_for_function("() => parseInt(document.querySelector('#clip-view .count')?.innerText) > 14")
    voice = "document.querySelector('#clip-view .voice')"
    page.wait_for_function(f"() => !{voice}.paused && !{voice}.muted && {voice}.currentTime > 1.2")
    page.get_by_role("button", name="Mute").click()
    page.wait_for_function(f"() => {voice}.muted")
    person.waits_for_new_picture("clip-view", page.locator("#clip-view .play").click)
    page.wait_for_function(f"() => {voice}.paused")
    stopped_frame = int(page.locator("#clip-view .range").input_value())
    assert play_and_read_first_frame(page) >= stopped_frame > 12
    page.get_by_role("button", name="Unmute").wait_for()


def test_a_clip_without_sound_has_no_sound_button(visit: Visit, folder: Path) -> None:
    person = Person(visit())
    person.drops("clip-file", write(folder)[0])
    person.sees("clip-view")
    person.page.locator("#clip-view .play").click()
    person.page.wait_for_selector("#clip-view .play[aria-pressed=true]")
    expect(person.page.locator("#clip-view .sound")).to_be_hidden()


def test_a_dragged_slider_shows_its_last_frame(visit: Visit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slider sends more frames than a server answers meanwhile."""
    first_is_pending, is_dragged, render_frame = threading.Event(), threading.Event(), ClipStep._render_frame

    def slow_frame(step: ClipStep, project: Any, frame: int, **extra: Any) -> Any:
        if frame == 1:
            first_is_pending.set()
            assert is_dragged.wait(300)
        return render_frame(step, project, frame, **extra)

    monkeypatch.setattr(ClipStep, "_render_frame", slow_frame)
    person = Person(visit())
    person.drops("clip-file", write(folder, frames=9)[0])
    person.sees("clip-view")
    person.settles()
    page, slider = person.page, person.page.locator("#clip-view .range")
    for number in range(1, 8):
        slider.fill(str(number))
    assert first_is_pending.wait(300)
    is_dragged.set()
    expect(page.locator("#clip-view .view")).to_have_attribute("aria-busy", "false")
    person.settles()
    expect(page.locator("#clip-view .count")).to_have_text("7 / 8")
    expect(slider).to_have_value("7")
    shown = page.locator("#clip-view .picture").get_attribute("src")
    person.goes_to_frame(1, "clip-view")
    person.goes_to_frame(7, "clip-view")
    assert page.locator("#clip-view .picture").get_attribute("src") == shown, "the picture is that of the number"


def test_a_second_click_on_play_plays_too(visit: Visit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second click is made while the server prepares the pictures for the first one."""
    is_clicked, render_frame = threading.Event(), ClipStep._render_frame

    def slow_frame(step: ClipStep, project: Any, frame: int, **extra: Any) -> Any:
        assert "film" not in extra or is_clicked.wait(300)
        return render_frame(step, project, frame, **extra)

    monkeypatch.setattr(ClipStep, "_render_frame", slow_frame)
    person = Person(visit())
    person.drops("clip-file", write(folder, frames=9)[0])
    person.sees("clip-view")
    person.settles()
    play = person.page.locator("#clip-view .play")
    with person.page.expect_response("**/queue/join*"):
        play.click()
    play.click()
    is_clicked.set()
    expect(play).to_have_attribute("aria-pressed", "true")
    person.waits_for_new_picture("clip-view", play.click)
    expect(play).to_have_attribute("aria-pressed", "false")
