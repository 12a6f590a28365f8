"""The frame viewer in a browser: playback with sound, from the frame where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from lora_edit.types import Video
from ui.person import Person
from ui.rendered import COLOUR, draw, write
from video.clips import write_with_sound

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


def read_frame_number(page: Any, view: str) -> int:
    """Read the number of the displayed frame."""
    return int(page.locator(f"#{view} .count").inner_text().partition(" ")[0])


def test_play_continues_where_it_stopped_with_sound(visit: Visit, folder: Path) -> None:
    frames = draw(40, 48, 64, COLOUR)
    write_with_sound(folder / "loud.mp4", Video(frames, Fraction(10), tuple(number / 10 for number in range(40))))
    person = Person(visit())
    page = person.page
    person.drops("clip-file", folder / "loud.mp4")
    person.sees("clip-view")
    person.goes_to_frame(12, "clip-view")
    play = page.locator("#clip-view .play")
    play.click()
    page.wait_for_function("() => parseInt(document.querySelector('#clip-view .count').innerText) > 14")
    voice = "document.querySelector('#clip-view .voice')"
    page.wait_for_function(f"() => !{voice}.paused && !{voice}.muted && {voice}.currentTime > 1.2")
    page.get_by_role("button", name="Mute").click()
    page.wait_for_function(f"() => {voice}.muted")
    person.waits_for_new_picture("clip-view", play.click)
    assert page.evaluate(f"{voice}.paused")
    stopped_frame = read_frame_number(page, "clip-view")
    play.click()
    page.wait_for_selector("#clip-view .play[aria-pressed=true]")
    assert read_frame_number(page, "clip-view") >= stopped_frame > 12
    page.get_by_role("button", name="Unmute").wait_for()


def test_a_clip_without_sound_has_no_sound_button(visit: Visit, folder: Path) -> None:
    person = Person(visit())
    person.drops("clip-file", write(folder)[0])
    person.sees("clip-view")
    person.page.locator("#clip-view .play").click()
    person.page.wait_for_selector("#clip-view .play[aria-pressed=true]")
    assert not person.page.locator("#clip-view .sound").is_visible()
