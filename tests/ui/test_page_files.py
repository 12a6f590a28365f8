"""File fields in a browser: checks before the upload, cancelling, displayed names, and errors beside the field."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from playwright.sync_api import expect

from lora_edit.ui.projects import ProjectStore
from lora_edit.video.sheet import save_image
from ui.person import Person
from ui.rendered import write
from ui.waiting import wait_until

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


def create_large_file(path: Path, begin: bytes, size: int) -> Path:
    """Create a sparse file of `size` bytes that starts with `begin`."""
    path.write_bytes(begin)
    os.truncate(path, size)
    return path


def list_uploads() -> list[Path]:
    """List the files in the server's upload folder."""
    return [file for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if file.is_file() and file.name != ".lock"]


def test_a_large_file_without_a_media_signature_is_rejected_before_its_upload(visit: Visit, folder: Path) -> None:
    earlier = set(list_uploads())
    person = Person(visit())
    page = person.page
    upload_requests = []
    page.on("request", lambda request: upload_requests.append(request.url) if "/upload" in request.url else None)
    person.drops("clip-file", create_large_file(folder / "disk.mp4", b"PK\3\4", 2_000_000_000))
    person.sees_error("disk.mp4 is neither a video nor a picture")
    person.drops("clip-file", create_large_file(folder / "film.mp4", b"\0\0\0\x18ftypmp42", 4_500_000_000))
    person.sees_error("film.mp4 is larger than 4 GB")
    (folder / "empty.mp4").touch()
    person.drops("clip-file", folder / "empty.mp4")
    person.sees_error("empty.mp4 is empty")
    assert not upload_requests
    expect(page.locator("[role=alert]").filter(visible=True), "earlier errors are cleared").to_have_count(1)
    person.drops("clip-file", write(folder)[0])
    person.sees("clip-view")
    expect(page.locator("[role=alert]").filter(visible=True)).to_have_count(0)
    person.settles()
    remaining = [file for file in list_uploads() if file not in earlier]
    assert not [file for file in remaining if file.suffix == ".mp4" or (file.stat().st_size and file.name.startswith("tmp"))], (
        "an imported upload is deleted"
    )


def test_an_upload_can_be_cancelled(visit: Visit, folder: Path) -> None:
    person = Person(visit())
    page = person.page
    page.context.new_cdp_session(page).send(
        "Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000_000}
    )
    person.drops("clip-file", create_large_file(folder / "film.mp4", b"\0\0\0\x18ftypmp42", 400_000_000))
    page.get_by_role("button", name="Cancel the upload").click()
    page.get_by_role("button", name="Cancel the upload").wait_for(state="detached")
    expect(page.locator("#clip-file input[type=file]"), "the field accepts another file").to_have_count(1)
    expect(page.locator(".toast-body")).to_have_count(0)
    wait_until(lambda: not [file for file in list_uploads() if file.name.startswith("tmp")])


def test_fields_show_the_names_of_imported_files(visit: Visit, projects: Path, folder: Path) -> None:
    """Also after a reload; the fields have no button to remove the stored file."""
    source, edited = write(folder, seed=50)
    project = ProjectStore(projects).create_project()
    mask = torch.zeros(96, 128, 3, dtype=torch.uint8)
    mask[10:90, 10:80] = 255
    save_image(folder / "mask.png", mask)
    project.update_state(
        clip=project.import_file(source),
        clip_name="clip-50.mp4",
        first_frame=project.import_file(edited),
        imported=project.import_file(folder / "mask.png"),
    )
    person = Person(visit(f"?project={project.id}"))
    page = person.page
    page.wait_for_selector("#settings-preset", state="visible")
    fields = {
        "Clip": ("clip-file", "clip-50.mp4"),
        "Edited frames": ("frames-file", "edited-50.png"),
        "Region": ("region-mask", "mask.png"),
    }
    for step, (field, name) in fields.items():
        page.get_by_role("tab", name=step).click()
        if step == "Region":
            person.unfolds("Use a mask of your own")
        page.locator(f"#{field}").get_by_text(f"{name} is kept; drop another here to replace it").wait_for()
        expect(page.locator(f"#{field}").get_by_label("Clear").or_(page.locator(f"#{field}").get_by_label("Remove"))).to_have_count(0)


def test_errors_are_scrolled_into_view_and_leave_the_field_empty(visit: Visit, folder: Path) -> None:
    person = Person(visit(viewport={"width": 1280, "height": 500}))
    page = person.page
    person.brings_a_clip(write(folder, seed=51)[0])
    person.drags_a_box(0.1, 0.2, 0.5, 0.8)
    person.unfolds("Use a mask of your own")
    for message, file in (
        ("is 64x64", write(folder, height=64, width=64, seed=52)[0]),
        ("has 3 frames", write(folder, frames=3, seed=53)[0]),
    ):
        person.drops("region-mask", file)
        person.sees_error(message)
        alert = page.locator("[role=alert]").filter(has_text=message, visible=True)
        page.wait_for_function(
            "(alert) => { const box = alert.getBoundingClientRect(); return box.top > 0 && box.bottom <= innerHeight; }",
            arg=alert.element_handle(),
        )
        expect(page.locator("#region-mask input[type=file]")).to_have_count(1)
