"""Invalid input in a browser: the error appears beside its field, and earlier work is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from playwright.sync_api import expect

from ui.person import Person
from ui.rendered import write

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


def test_invalid_input_shows_an_error_beside_its_field(visit: Visit, folder: Path) -> None:
    source, edited = write(folder, seed=4)
    (folder / "notes.mp4").write_text("this is not a video")
    person = Person(visit())
    page = person.page
    person.drops("clip-file", folder / "notes.mp4")
    page.locator("[role=alert]").first.wait_for()
    assert "Traceback" not in page.content()
    person.drops("clip-file", source)
    person.sees("clip-view")
    expect(page.locator("[role=alert]")).to_have_count(0)
    for frames, message in (("1", "at least two"), ("400", "frames")):
        person.sets("clip-frames", frames)
        page.click("#clip-trim")
        person.sees_error(message)
    person.sets("clip-start", "")
    page.click("#clip-next")
    person.sees_error("the first frame is a whole number")
    person.sets("clip-start", "0")
    person.sets("clip-frames", "")
    person.goes_on("clip-next", "region-view")
    person.drags_a_box(0.1, 0.2, 0.5, 0.8)
    person.unfolds("Use a mask of your own")
    person.drops("region-mask", write(folder, frames=3, seed=11)[0])
    person.sees_error("the mask has 3 frames but the clip has 5")
    person.drops("region-mask", write(folder, height=64, width=64, seed=12)[0])
    person.sees_error("the mask is 64x64 but the source is 128x96")
    expect(page.locator("#region-view .marks .box")).to_have_count(1)
    person.goes_on("region-next", "frames-file")
    page.click("#frames-next")
    person.sees_error("the edited first frame is missing")
    write(folder, height=96, width=96, seed=5)  # of another shape
    person.drops("frames-file", folder / "edited-5.png")
    person.sees_error("export it uncropped")
    person.waits_for_new_picture("frames-view", lambda: person.drops("frames-file", edited))
    person.goes_on("frames-next", "settings-preset")
    page.click("#settings-more button")
    for text, message in (("training.nonsense=3", "nonsense"), ("training.motion_steps=many", "Training steps cannot be")):
        person.sets("settings-others", text)
        person.sees_error(message)
    person.sets("settings-others", "")
    page.locator("#settings-seed input").press_sequentially("12e")
    page.locator("#settings-seed input").blur()
    person.sees_error("the seed is a whole number")
    page.locator("#settings-seed input").fill("3")
    person.goes_on("settings-next", "run-start")
    page.get_by_role("tab", name="Region").click()
    person.sees("region-view")
    expect(page.locator("#region-view .marks .box")).to_have_count(1)


def test_file_names_are_escaped(visit: Visit, folder: Path) -> None:
    """Including markup; a script that runs would fail the test."""
    file = folder / "Übung #1 & 100% <img src=x onerror=foreign()> 'a' ..mp4"
    write(folder, seed=13)[0].rename(file)
    person = Person(visit())
    person.drops("clip-file", file)
    person.sees("clip-view")
    person.sees_text("5 frames, 128x96")
    expect(person.page.locator(".facts").first).to_contain_text("100%")
    person.settles()
    expect(person.page.locator("img[src=x]")).to_have_count(0)
