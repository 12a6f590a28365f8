"""What a person does on the page, in a person's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COME = "(view) => Number(document.querySelector(`#${view} .viewer`)?.dataset.come || 0)"
"""How many pictures have come to a viewer."""

SHOWN = "(view) => Number(document.querySelector(`#${view} .viewer`)?.dataset.shown || 0)"
"""How many of them it has drawn."""

BUSY = "(view) => document.querySelector(`#${view} .view`)?.getAttribute('aria-busy') === 'true'"
"""Does a viewer still wait for something?"""


ROLES = {"button", "textbox", "spinbutton", "slider", "checkbox", "radio", "combobox", "listbox", "link", "tab", "switch", "searchbox"}
"""What can be used."""


class Person:
    """Somebody at a page."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def drops(self, where: str, file: Path) -> None:
        """Drop a file on a field; an earlier one goes away first."""
        field = self.page.locator(f"#{where}")
        if field.get_by_label("Clear").or_(field.get_by_label("Remove")).first.is_visible():
            field.get_by_label("Clear").or_(field.get_by_label("Remove")).first.click()
        field.locator("input[type=file]").set_input_files(str(file))

    def brings_a_clip(self, clip: Path) -> None:
        """Step 1, to its end."""
        self.drops("clip-file", clip)
        self.sees("clip-view")
        self.goes_on("clip-next", "region-view")

    def sees(self, view: str) -> None:
        """Wait until a viewer shows a picture."""
        self.page.wait_for_selector(f"#{view} .view img[src^=data]")

    def goes_on(self, button: str, then: str) -> None:
        """Press a button and wait for what it leads to."""
        self.page.click(f"#{button}")
        self.page.wait_for_selector(f"#{then}", state="visible")

    def waits_for_new_picture(self, view: str, act: Any) -> None:
        """Do something and wait until the viewer has another picture and waits for none."""
        before = self.page.evaluate(COME, view)
        act()
        drawn = f"({COME})(view) > before && ({SHOWN})(view) === ({COME})(view) && !({BUSY})(view)"
        self.page.wait_for_function(f"([view, before]) => {drawn}", arg=[view, before])

    def presses(self, button: str, view: str = "region-view") -> None:
        """Press a button that changes a viewer's picture."""
        self.waits_for_new_picture(view, lambda: self.page.click(f"#{button}"))

    def chooses_object(self, name: str) -> None:
        """Say which of several things the next marks are about."""
        self.page.locator("#region-object input").click()
        self.page.get_by_role("option", name=name).click()

    def unfolds(self, label: str) -> None:
        """Open a part of the page that is folded away."""
        self.page.get_by_role("button", name=label).click()

    def picks(self, label: str, view: str = "region-view") -> None:
        """Click a choice that changes a viewer's picture."""
        self.waits_for_new_picture(view, lambda: self.page.get_by_label(label).click())

    def is_told(self, text: str) -> None:
        """Wait until a fault is told that has these words."""
        self.page.locator("[role=alert]").filter(has_text=text, visible=True).first.wait_for()

    def drags_a_box(self, left: float, top: float, right: float, bottom: float, view: str = "region-view") -> None:
        """Draw a box; places are shares of the picture."""

        def drag() -> None:
            box = self.page.locator(f"#{view} .picture").bounding_box()
            self.page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
            self.page.mouse.down()
            self.page.mouse.move(box["x"] + right * box["width"], box["y"] + bottom * box["height"], steps=3)
            self.page.mouse.up()

        self.waits_for_new_picture(view, drag)

    def clicks_at(self, x: float, y: float, view: str = "region-view") -> None:
        """Click on the picture, at shares of it."""
        box = self.page.locator(f"#{view} .picture").bounding_box()
        self.waits_for_new_picture(view, lambda: self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"]))

    def goes_to_frame(self, number: int, view: str = "region-view") -> None:
        """Drag the frame slider."""
        self.waits_for_new_picture(view, lambda: self.page.locator(f"#{view} .range").fill(str(number)))

    def sets(self, field: str, value: str) -> None:
        """Type into a field and leave it."""
        inside = self.page.locator(f"#{field} input, #{field} textarea").first
        inside.fill(value)
        self.page.wait_for_timeout(300)  # a person takes longer; a field that has just come may still get its own value
        inside.fill(value)
        inside.blur()

    def says(self, text: str) -> None:
        """Wait until the page says something."""
        self.page.get_by_text(text).filter(visible=True).first.wait_for()

    def finds_every_control_named(self) -> None:
        """Unfold everything of this step; each control has a name of its own, as the browser tells screen readers."""
        self.page.evaluate("() => document.querySelectorAll('button.label-wrap:not(.open)').forEach((fold) => fold.click())")
        tree = self.page.context.new_cdp_session(self.page).send("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in ROLES]
        names = [(node["role"]["value"], str(node.get("name", {}).get("value", "")).strip()) for node in shown]
        assert len(names) > 8
        assert all(name for _, name in names), names
        assert len(set(names)) == len(names), sorted(each for each in names if names.count(each) > 1)
