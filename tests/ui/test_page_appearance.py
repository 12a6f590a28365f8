"""Appearance of the page at several widths and in both color schemes: contrast, focus, layout, and announced steps."""

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

CONTRAST = """(element, kind) => {
  const canvas = new OffscreenCanvas(1, 1), pen = canvas.getContext("2d", { willReadFrequently: true });
  const levels = (color) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = color; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const behind = (at) => {
    for (; at; at = at.parentElement) { const color = levels(getComputedStyle(at).backgroundColor); if (color[3] === 255) return color; }
    return [255, 255, 255, 255];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, place) => sum + v * [0.2126, 0.7152, 0.0722][place], 0);
  const own = kind === "text" ? levels(getComputedStyle(element).color) : levels(getComputedStyle(element)[kind]);
  const ground = kind === "text" ? behind(element) : behind(element.parentElement);
  const [low, high] = [light(own), light(ground)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""
"""Script: contrast ratio (WCAG 2) of an element's text to its background, or of its border to its surroundings."""


def measure_contrast(locator: Any, kind: str = "text") -> float:
    """Measure the contrast of the first matching element once no transition changes its colours."""
    locator.page.wait_for_function("() => document.getAnimations().every((each) => each.playState !== 'running')")
    return float(locator.first.evaluate(CONTRAST, kind))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_choices_and_buttons_have_contrast_and_a_visible_focus(visit: Visit, folder: Path, scheme: str) -> None:
    person = Person(visit(color_scheme=scheme))
    page = person.page
    person.drops("clip-file", write(folder)[0])
    person.sees("clip-view")
    assert measure_contrast(page.locator("#clip-next")) >= 4.5
    page.click("#clip-next")
    page.wait_for_function("() => document.activeElement.innerText === 'What changes?'")
    page.wait_for_function("() => document.querySelector('#announced')?.textContent === 'Step 2 of 6: Region'")
    person.sees("region-view")
    selected = page.locator("#region-shape label.selected")
    selected.hover()
    assert measure_contrast(selected.locator("span")) >= 4.5
    assert measure_contrast(selected.locator("input"), "borderTopColor") >= 3
    expect(selected.locator("input")).not_to_have_css("background-image", "none")
    assert measure_contrast(page.locator("#region-view button[aria-pressed=true]")) >= 4.5
    selected.locator("input").focus()
    person.waits_for_new_picture("region-view", lambda: page.keyboard.press("ArrowDown"))
    expect(page.get_by_label("Close to the outline")).to_be_checked()
    for focused in (page.get_by_label("Close to the outline"), page.locator("#region-expand input[type=range]")):
        if focused.get_attribute("type") == "range":
            focused.focus()
            page.keyboard.press("Tab")
            page.keyboard.press("Shift+Tab")
        expect(focused).to_be_focused()
        expect(focused).to_have_css("outline-style", "solid")
        expect(focused).to_have_css("outline-width", "2px")
    person.settles()
    expect(page.locator("ul[role]")).to_have_count(0)
    assert "common." not in page.locator("body").inner_text() and "common." not in page.content().partition("<body")[2]


@pytest.mark.parametrize(("height", "width"), [(320, 180), (240, 240), (180, 320)], ids=["portrait", "square", "wide"])
def test_clips_of_every_aspect_ratio_fit_the_window(visit: Visit, folder: Path, height: int, width: int) -> None:
    person = Person(visit(viewport={"width": 1920, "height": 1000}))
    page = person.page
    person.brings_a_clip(write(folder, height=height, width=width)[0])
    person.sees("region-view")
    person.settles()
    page.evaluate("window.scrollTo(0, 0)")
    bar, view = page.locator("#region-view .bar").bounding_box(), page.locator("#region-view .view").bounding_box()
    assert bar["y"] + bar["height"] <= 1000, "the timeline is visible"
    assert view["width"] / view["height"] == pytest.approx(width / height, rel=0.02)
    assert view["height"] > 450 or view["width"] > 800, "the viewer uses the available space"


def test_a_narrow_window_shows_everything(visit: Visit, folder: Path) -> None:
    person = Person(visit(viewport={"width": 390, "height": 844}))
    page = person.page
    person.brings_a_clip(write(folder)[0])
    person.drags_a_box(0.1, 0.2, 0.5, 0.8)
    person.settles()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = [
        page.locator(selector).bounding_box() for selector in ("#status", "#undo", "#redo", "#region-view .view", "#region-view .count")
    ]
    for number, box in enumerate(boxes):
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        for other in boxes[number + 1 :]:
            side_by_side = box["x"] + box["width"] <= other["x"] + 1 or other["x"] + other["width"] <= box["x"] + 1
            assert side_by_side or box["y"] + box["height"] <= other["y"] + 1 or other["y"] + other["height"] <= box["y"] + 1
    person.checks_control_names()
