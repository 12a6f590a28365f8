"""The region and frames steps in a browser: marks, masks, undo, and edits outside the region."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from playwright.sync_api import expect

from lora_edit.types import Video
from lora_edit.ui.step_region import RegionStep
from lora_edit.video.read import read_video
from lora_edit.video.write import write_video
from ui.person import Person
from ui.rendered import write

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


def test_marks_by_click_brush_and_typing(visit: Visit, folder: Path) -> None:
    source, _ = write(folder, seed=9)
    person = Person(visit())
    person.brings_a_clip(source)
    page = person.page
    marks = page.locator("#region-view .marks")
    person.clicks_at(0.3, 0.5)
    expect(marks.locator(".point")).to_have_count(1)
    person.goes_to_frame(3)
    person.clicks_at(0.41, 0.5)
    page.get_by_role("button", name="Click off it").click()
    person.clicks_at(0.9, 0.1)
    expect(marks.locator(".not-point")).to_have_count(1)
    page.get_by_role("button", name="Paint", exact=True).click()
    person.drags_a_box(0.6, 0.7, 0.8, 0.8)
    before = page.locator("#region-view .picture").get_attribute("src")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("(before) => document.querySelector('#region-view .picture').src !== before", arg=before)
    person.waits_for_new_picture("region-view", lambda: page.get_by_role("button", name="Stop", exact=True).click())
    person.unfolds("Type a position instead of clicking")
    for label, value in (("X", "20"), ("Y", "30"), ("Width", "400"), ("Height", "20"), ("On frame", "9")):
        page.get_by_label(label, exact=True).fill(value)
    page.click("#region-add")
    person.sees_error("the frame is a whole number from 0 to 4")
    page.get_by_label("On frame", exact=True).fill("2")
    person.presses("region-add")
    expect(marks.locator(".box")).to_have_count(1)
    person.waits_for_new_picture("region-view", lambda: page.get_by_label("Close to the outline").click())


def test_clicks_during_pending_requests_are_queued(visit: Visit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No click is lost, and a late response to another request is not taken for that of the click."""
    source, _ = write(folder, seed=9)
    refresh, add_mark = RegionStep.refresh, RegionStep._add_marks

    def slow_refresh(step: RegionStep, *args: Any) -> Any:
        updates = refresh(step, *args)
        time.sleep(0.5)
        return updates

    def slow_add_mark(step: RegionStep, *args: Any) -> Any:
        time.sleep(1.0)
        return add_mark(step, *args)

    monkeypatch.setattr(RegionStep, "refresh", slow_refresh)
    monkeypatch.setattr(RegionStep, "_add_marks", slow_add_mark)
    person = Person(visit())
    person.brings_a_clip(source)
    person.sees("region-view")
    marks = person.page.locator("#region-view .marks .point")
    person.points_at(0.3, 0.5)
    shown_when_idle = "() => !document.querySelector('#region-view .busy') && document.querySelector('#region-view .marks')?.innerHTML"
    assert person.page.wait_for_function(shown_when_idle).json_value().count('class="point"') == 1
    for x in (0.32, 0.34, 0.36):
        person.points_at(x, 0.5)
    expect(marks).to_have_count(4)
    person.settles()
    expect(marks).to_have_count(4)


def test_every_step_can_be_undone(visit: Visit, folder: Path) -> None:
    source, _ = write(folder, seed=6)
    person = Person(visit())
    person.brings_a_clip(source)
    person.goes_to_frame(2)
    person.drags_a_box(0.1, 0.2, 0.4, 0.8)
    person.chooses_object("2")
    person.drags_a_box(0.5, 0.2, 0.8, 0.8)
    marks = person.page.locator("#region-view .marks .box")
    expect(marks).to_have_count(2)
    person.presses("undo")
    expect(marks).to_have_count(1)
    person.presses("redo")
    expect(marks).to_have_count(2)
    expect(person.page.locator("#region-view .count")).to_have_text("2 / 4")


def test_an_edit_outside_the_region_shows_a_warning_and_a_button_to_grow_it(visit: Visit, folder: Path) -> None:
    source, edited = write(folder, seed=7)
    person = Person(visit())
    person.brings_a_clip(source)
    person.drags_a_box(0.25, 0.4, 0.35, 0.6)
    person.goes_on("region-next", "frames-file")
    person.drops("frames-file", edited)
    person.sees_text("outside of the region")
    person.page.click("#frames-cover")
    person.page.get_by_text("outside of the region").wait_for(state="hidden")
    person.page.get_by_role("tab", name="Region").click()
    person.page.get_by_role("button", name="Undo: growth").click()
    person.page.get_by_role("button", name="Undo: edited first frame").wait_for()
    person.goes_on("region-next", "frames-file")
    person.sees_text("outside of the region")


def save_mask_video(path: Path, frames: torch.Tensor) -> Path:
    """Write a mask `[T, H, W]` bool as a lossless video."""
    pictures = (frames[..., None].expand(-1, -1, -1, 3) * 255).to(torch.uint8)
    write_video(path, Video(pictures.contiguous(), Fraction(10), tuple(number / 10 for number in range(len(frames)))), "ffv1")
    return path


def read_displayed_region(person: Person) -> torch.Tensor:
    """Read the region from the picture, `[H, W]` bool: its pixels are not darkened."""
    address = person.page.locator("#region-view .picture").get_attribute("src")
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    return torch.from_numpy(picture.max(-1) > 200)


def test_masks_are_combined_bridged_and_inverted_and_objects_excluded(visit: Visit, folder: Path) -> None:
    """On a white clip, where the region stays bright."""
    white = torch.full((5, 96, 128, 3), 255, dtype=torch.uint8)
    write_video(folder / "white.mkv", Video(white, Fraction(10), tuple(number / 10 for number in range(5))), "ffv1")
    right = torch.zeros(5, 96, 128, dtype=torch.bool)
    right[:, :, 64:] = True
    right[2] = False
    person = Person(visit())
    person.brings_a_clip(folder / "white.mkv")
    person.waits_for_new_picture("region-view", lambda: person.page.get_by_label("Exactly as drawn").click())
    person.drags_a_box(0.25, 0.0, 0.75, 1.0)
    assert region_share(person) == pytest.approx(0.5, abs=0.05)
    person.unfolds("Use a mask of your own")
    person.waits_for_new_picture("region-view", lambda: person.drops("region-mask", save_mask_video(folder / "right.mkv", right)))
    assert region_share(person) == pytest.approx(0.5, abs=0.05)
    person.picks("Added to the marks")
    assert region_share(person) == pytest.approx(0.75, abs=0.05)
    person.picks("Subtracted from the marks")
    assert region_share(person) == pytest.approx(0.25, abs=0.05)
    person.picks("Instead of the marks")
    person.goes_to_frame(2)
    assert region_share(person) < 0.05
    person.unfolds("Grow, soften")
    person.picks("Bridge frames in which the object was lost")
    assert region_share(person) == pytest.approx(0.5, abs=0.05)
    person.picks("Invert: edit everything else")
    assert not read_displayed_region(person)[:, 90:].any()
    person.picks("Invert: edit everything else")
    excluded = person.page.locator("#region-out").get_by_label("1")
    person.waits_for_new_picture("region-view", excluded.click)
    assert region_share(person) == pytest.approx(0.25, abs=0.05), "the marked box is excluded from the mask"
    person.presses("undo")
    assert region_share(person) == pytest.approx(0.5, abs=0.05)
    expect(excluded).not_to_be_checked()


def region_share(person: Person) -> float:
    """Return the fraction of the picture inside the region."""
    return float(read_displayed_region(person).float().mean())


def test_the_region_is_saved_as_a_video(visit: Visit, folder: Path) -> None:
    source, _ = write(folder, seed=10)
    person = Person(visit())
    person.brings_a_clip(source)
    person.drags_a_box(0.1, 0.2, 0.5, 0.8)
    person.unfolds("Save the region as a video")
    person.page.click("#region-film")
    person.page.wait_for_selector("#region-saved", state="visible")
    with person.page.expect_download() as download:
        person.page.click("#region-saved")
    clip, overlay = read_video(source), read_video(download.value.path())
    assert overlay.frames.shape == clip.frames.shape
    assert overlay.frames[:, :10].float().mean() < 0.8 * clip.frames[:, :10].float().mean(), "pixels outside the region are darker"
    person.drags_a_box(0.2, 0.2, 0.6, 0.8)
    person.page.wait_for_selector("#region-saved", state="hidden")
