"""Actions of a person on the page, for browser tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

    def drops(self, where: str, file: Path) -> None:
        """Drop a file on a field; removes an earlier file first."""
        field = self.page.locator(f"#{where}")
        if field.get_by_label("Clear").or_(field.get_by_label("Remove")).first.is_visible():
            field.get_by_label("Clear").or_(field.get_by_label("Remove")).first.click()
        field.locator("input[type=file]").set_input_files(str(file))

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
        """Perform an action and wait until the viewer has drawn a new picture and is idle."""
        before = self.page.evaluate(RECEIVED, view)
        act()
        condition = f"({RECEIVED})(view) > before && ({DRAWN})(view) === ({RECEIVED})(view) && !({BUSY})(view)"
        self.page.wait_for_function(f"([view, before]) => {condition}", arg=[view, before])

    def presses(self, button: str, view: str = "region-view") -> None:
        """Press a button that changes a viewer's picture."""
        self.waits_for_new_picture(view, lambda: self.page.click(f"#{button}"))

    def chooses_object(self, name: str) -> None:
        """Select the object of the next marks."""
        self.page.locator("#region-object input").click()
        self.page.get_by_role("option", name=name).click()

    def unfolds(self, label: str) -> None:
        """Open a folded section."""
        self.page.get_by_role("button", name=label).click()

    def picks(self, label: str, view: str = "region-view") -> None:
        """Click a choice that changes a viewer's picture."""
        self.waits_for_new_picture(view, lambda: self.page.get_by_label(label).click())

    def sees_error(self, text: str) -> None:
        """Wait for an error message with this text."""
        self.page.locator("[role=alert]").filter(has_text=text, visible=True).first.wait_for()

    def drags_a_box(self, left: float, top: float, right: float, bottom: float, view: str = "region-view") -> None:
        """Draw a box; positions are fractions of the picture."""

        def drag() -> None:
            box = self.page.locator(f"#{view} .picture").bounding_box()
            self.page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
            self.page.mouse.down()
            self.page.mouse.move(box["x"] + right * box["width"], box["y"] + bottom * box["height"], steps=3)
            self.page.mouse.up()

        self.waits_for_new_picture(view, drag)

    def clicks_at(self, x: float, y: float, view: str = "region-view") -> None:
        """Click on the picture; positions are fractions of it."""
        box = self.page.locator(f"#{view} .picture").bounding_box()
        self.waits_for_new_picture(view, lambda: self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"]))

    def goes_to_frame(self, number: int, view: str = "region-view") -> None:
        """Drag the frame slider."""
        self.waits_for_new_picture(view, lambda: self.page.locator(f"#{view} .range").fill(str(number)))

    def sets(self, field: str, value: str) -> None:
        """Type into a field and leave it."""
        control = self.page.locator(f"#{field} input, #{field} textarea").first
        control.fill(value)
        self.page.wait_for_timeout(300)  # people type more slowly; a new field may still receive its initial value
        control.fill(value)
        control.blur()

    def sees_text(self, text: str) -> None:
        """Wait for this text on the page."""
        self.page.get_by_text(text).filter(visible=True).first.wait_for()

    def checks_control_names(self) -> None:
        """Unfold all sections of the step and check that every control has a unique accessible name."""
        self.page.evaluate("() => document.querySelectorAll('button.label-wrap:not(.open)').forEach((fold) => fold.click())")
        tree = self.page.context.new_cdp_session(self.page).send("Accessibility.getFullAXTree")["nodes"]
        controls = [node for node in tree if not node["ignored"] and node["role"]["value"] in ROLES]
        names = [(node["role"]["value"], str(node.get("name", {}).get("value", "")).strip()) for node in controls]
        assert len(names) > 8
        assert all(name for _, name in names), names
        assert len(set(names)) == len(names), sorted(each for each in names if names.count(each) > 1)
