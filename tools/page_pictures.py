"""Draw the pictures of docs/ui.md: `python tools/page_pictures.py`, with Chromium installed. The clip is the bundled one."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "examples" / "clip"
IMAGES = ROOT / "docs" / "images"
STEPS = ("clip", "region", "frames", "settings", "train", "result")


def draw(scheme: str, names: tuple[str, ...], width: int = 1280, folder: Path = IMAGES) -> None:
    """Go through an edit as a person does; keep a picture of each named step. `scheme` is light or dark."""
    from playwright.sync_api import sync_playwright

    from lora_edit.ui.serve import serve
    from ui.pending_events import COUNT_PENDING_EVENTS
    from ui.person import Person

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    address = serve(port=port, folder=Path(tempfile.mkdtemp()), wait=False)
    ending = ("" if scheme == "light" else "-dark") + ("" if width == 1280 else f"-{width}")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 940}, color_scheme=scheme)  # type: ignore[arg-type]
        page.set_default_timeout(120_000)
        page.add_init_script(COUNT_PENDING_EVENTS)

        def keep(name: str) -> None:
            page.evaluate("window.scrollTo(0, 0)")
            page.wait_for_timeout(700)  # until what slides and fades is where it stays
            if name in names:
                page.screenshot(path=folder / f"ui-{name}{ending}.jpg", type="jpeg", quality=82, full_page=width < 1280)

        page.goto(address)
        _edit(Person(page), keep)
        browser.close()


def _edit(person, keep) -> None:  # type: ignore[no-untyped-def]
    page = person.page
    page.wait_for_selector("#clip-file")
    person.drops("clip-file", CLIP / "source.mp4")
    person.sees("clip-view")
    keep("clip")
    person.goes_on("clip-next", "region-view")
    person.clicks_at(0.6, 0.35)
    keep("region")
    person.goes_on("region-next", "frames-file")
    person.waits_for_new_picture("frames-view", lambda: person.drops("frames-file", CLIP / "first_frame.png"))
    keep("frames")
    person.goes_on("frames-next", "settings-preset")
    page.click("#settings-estimate")
    page.get_by_text("to train").first.wait_for()
    keep("settings")
    person.goes_on("settings-next", "run-start")
    page.click("#run-try")
    page.wait_for_selector("#run-preview video")
    page.click("#run-start")
    page.wait_for_selector("#run-look img")
    page.wait_for_function("/motion, (4\\d|[5-9]\\d) of/.test(document.querySelector('#run-progress').innerText)")
    keep("train")
    page.wait_for_selector("#run-next", state="visible", timeout=600_000)
    person.goes_on("run-next", "result-video")
    person.sees("result-view")
    person.goes_to_frame(16, "result-view")
    keep("result")


def main() -> None:
    """The pictures of the documentation; with a folder given, every step in both schemes and at two widths, to look at."""
    if len(sys.argv) > 1:
        for scheme in ("light", "dark"):
            for width in (1280, 800):
                draw(scheme, STEPS, width, Path(sys.argv[1]))
        return
    draw("light", STEPS)
    draw("dark", ("region",))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main()
