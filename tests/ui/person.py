"""Actions of a person on the page, for browser tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import expect

RECEIVED = "(view) => Number(document.querySelector(`#${view} .viewer`)?.dataset.come || 0)"
"""Script: number of pictures that a viewer has received."""

DRAWN = "(view) => Number(document.querySelector(`#${view} .viewer`)?.dataset.shown || 0)"
"""Script: number of pictures that a viewer has drawn."""

BUSY = "(view) => document.querySelector(`#${view} .view`)?.getAttribute('aria-busy') === 'true'"
"""Script: whether a viewer waits for a response."""

ROLES = {"button", "textbox", "spinbutton", "slider", "checkbox", "radio", "combobox", "listbox", "link", "tab", "switch", "searchbox"}
"""Accessibility roles of controls."""


class Person:
    """A person at a page; methods wait until the page has responded."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def settles(self) -> None:
        """Wait until the server has answered all events of the page, and the page has drawn the answers."""
        self.page.evaluate("window.startSettling()")
        self.page.wait_for_function("window.isSettled()")

    def drops(self, where: str, file: Path) -> None:
        """Drop a file on a field, which is empty once an earlier file is imported."""
        self.settles()
        self.page.locator(f"#{where} input[type=file]").set_input_files(str(file))

    def brings_a_clip(self, clip: Path) -> None:
        """Import a clip and continue to the region step."""
        self.drops("clip-file", clip)
        self.sees("clip-view")
        self.goes_on("clip-next", "region-view")

    def sees(self, view: str) -> None:
        """Wait until a viewer shows a picture."""
        self.page.wait_for_selector(f"#{view} .view img[src^=data]")

    def goes_on(self, button: str, then: str) -> None:
        """Press a button and wait for the element that it leads to."""
        self.page.click(f"#{button}")
        self.page.wait_for_selector(f"#{then}", state="visible")

    def waits_for_new_picture(self, view: str, act: Any) -> None:
        """Perform an action and wait until the viewer has drawn a new picture and is idle.

        Answers to earlier events may bring pictures too, so they have to arrive before the action.
        """
        self.settles()
        before = self.page.evaluate(RECEIVED, view)
        act()
        condition = f"({RECEIVED})(view) > before && ({DRAWN})(view) === ({RECEIVED})(view) && !({BUSY})(view)"
        self.page.wait_for_function(f"([view, before]) => {condition}", arg=[view, before])

    def presses(self, button: str, view: str = "region-view") -> None:
        """Press a button that changes a viewer's picture."""
        self.waits_for_new_picture(view, lambda: self.page.click(f"#{button}"))

    def chooses_object(self, name: str) -> None:
        """Select the object of the next marks."""
        field = self.page.locator("#region-object input")
        field.click()
        self.page.get_by_role("option", name=name).click()
        expect(field).to_have_value(name)

    def unfolds(self, label: str) -> None:
        """Open a folded section."""
        self.page.get_by_role("button", name=label).click()

    def picks(self, label: str, view: str = "region-view") -> None:
        """Click a choice that changes a viewer's picture."""
        self.waits_for_new_picture(view, lambda: self.page.get_by_label(label).click())

    def sees_error(self, text: str) -> None:
        """Wait for an error message with this text."""
        self.page.locator("[role=alert]").filter(has_text=text, visible=True).first.wait_for()

    def locates_picture(self, view: str = "region-view") -> tuple[float, float, float, float]:
        """Return left, top, width and height of a viewer's picture in the window, once its layout is stable."""
        self.page.locator(f"#{view} .view").hover(trial=True)
        box = self.page.locator(f"#{view} .picture").bounding_box()
        return box["x"], box["y"], box["width"], box["height"]

    def points_at(self, x: float, y: float, view: str = "region-view") -> None:
        """Click on the picture and do not wait; positions are fractions of it."""
        picture_left, picture_top, width, height = self.locates_picture(view)
        self.page.mouse.click(picture_left + x * width, picture_top + y * height)

    def drags_a_box(self, left: float, top: float, right: float, bottom: float, view: str = "region-view") -> None:
        """Draw a box; positions are fractions of the picture."""

        def drag() -> None:
            x, y, width, height = self.locates_picture(view)
            self.page.mouse.move(x + left * width, y + top * height)
            self.page.mouse.down()
            self.page.mouse.move(x + right * width, y + bottom * height, steps=3)
            self.page.mouse.up()

        self.waits_for_new_picture(view, drag)

    def clicks_at(self, x: float, y: float, view: str = "region-view") -> None:
        """Click on the picture; positions are fractions of it."""
        self.waits_for_new_picture(view, lambda: self.points_at(x, y, view))

    def goes_to_frame(self, number: int, view: str = "region-view") -> None:
        """Drag the frame slider."""
        self.waits_for_new_picture(view, lambda: self.page.locator(f"#{view} .range").fill(str(number)))

    def sets(self, field: str, value: str) -> None:
        """Type into a field that has its initial value, and leave it."""
        self.settles()
        control = self.page.locator(f"#{field} input, #{field} textarea").first
        control.fill(value)
        control.blur()
        self.settles()
        expect(control).to_have_value(value)

    def sees_text(self, text: str) -> None:
        """Wait for this text on the page."""
        self.page.get_by_text(text).filter(visible=True).first.wait_for()

    def checks_control_names(self) -> None:
        """Unfold all sections of the step and check that every control has a unique accessible name."""
        self.page.evaluate("() => document.querySelectorAll('button.label-wrap:not(.open)').forEach((fold) => fold.click())")
        expect(self.page.locator("button.label-wrap:not(.open)")).to_have_count(0)
        self.settles()
        tree = self.page.context.new_cdp_session(self.page).send("Accessibility.getFullAXTree")["nodes"]
        controls = [node for node in tree if not node["ignored"] and node["role"]["value"] in ROLES]
        names = [(node["role"]["value"], str(node.get("name", {}).get("value", "")).strip()) for node in controls]
        assert len(names) > 8
        assert all(name for _, name in names), names
        assert len(set(names)) == len(names), sorted(each for each in names if names.count(each) > 1)
