"""The page by keyboard and with a screen reader."""

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


def test_a_region_is_marked_by_keyboard(visit: Visit, folder: Path) -> None:
    """After the import, with keys only: the tab key reaches every control in order."""
    source, _ = write(folder, seed=8)
    person = Person(visit())
    page = person.page
    person.drops("clip-file", source)
    person.sees("clip-view")
    tab_to(page, "Continue")
    page.keyboard.press("Enter")
    page.wait_for_selector("#region-view", state="visible")
    person.sees("region-view")
    page.wait_for_function("() => document.activeElement.innerText === 'What changes?'")
    tab_to(page, "Click on it")
    tab_to(page, "Frame. Page up")
    marks = page.locator("#region-view .marks")
    page.keyboard.press("ArrowLeft")
    expect(marks.locator(".cross")).to_have_count(1)
    page.keyboard.press("b")
    for key in (*["Shift+ArrowRight"] * 3, *["Shift+ArrowDown"] * 3):
        page.keyboard.press(key)
    person.waits_for_new_picture("region-view", lambda: page.keyboard.press("b"))
    expect(marks.locator(".box")).to_have_count(1)
    person.waits_for_new_picture("region-view", lambda: page.keyboard.press("PageDown"))
    expect(page.locator("#region-view .count")).to_have_text("1 / 4")
    expect(marks.locator(".box")).to_have_count(0)
    page.keyboard.press("ArrowUp")
    person.waits_for_new_picture("region-view", lambda: page.keyboard.press("Enter"))
    expect(marks.locator(".point")).to_have_count(1)
    tab_to(page, "Remove last mark")
    person.waits_for_new_picture("region-view", lambda: page.keyboard.press("Enter"))
    expect(marks.locator(".point")).to_have_count(0)
    tab_to(page, "Close to the outline")
    person.waits_for_new_picture("region-view", lambda: page.keyboard.press("Space"))
    expect(page.get_by_label("Close to the outline")).to_be_checked()
    tab_to(page, "Loose box", back=True)
    person.waits_for_new_picture("region-view", lambda: page.keyboard.press("Space"))
    tab_to(page, "range slider for Room")
    person.waits_for_new_picture("region-view", lambda: page.keyboard.press("ArrowRight"))
    tab_to(page, "Continue")
    page.keyboard.press("Enter")
    page.wait_for_selector("#frames-file", state="visible")


FOCUSED = """() => { const at = document.activeElement;
  return at.getAttribute('aria-label') || (at.labels && at.labels[0] ? at.labels[0].innerText : '') || at.innerText || ''; }"""


def tab_to(page: Any, name: str, back: bool = False) -> None:
    """Press the tab key until the control of that name has the focus."""
    for _ in range(60):
        if page.evaluate(FOCUSED).strip().startswith(name):
            return
        page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"the tab key never reaches {name!r}")


def test_every_control_of_every_step_has_a_name(visit: Visit, folder: Path) -> None:
    """The accessible names of steps 1 to 5; `test_page.py` checks the last step."""
    source, edited = write(folder, seed=14)
    person = Person(visit())
    person.drops("clip-file", source)
    person.sees("clip-view")
    person.checks_control_names()
    person.goes_on("clip-next", "region-view")
    person.drags_a_box(0.1, 0.2, 0.5, 0.8)
    person.checks_control_names()
    person.goes_on("region-next", "frames-file")
    person.waits_for_new_picture("frames-view", lambda: person.drops("frames-file", edited))
    person.checks_control_names()
    person.goes_on("frames-next", "settings-preset")
    person.checks_control_names()
    person.goes_on("settings-next", "run-start")
    person.checks_control_names()
