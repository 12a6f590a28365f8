"""Components shared by the page's steps: the application state, messages beside a field, the frame viewer, and input parsing."""

from __future__ import annotations

import functools
import html
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.errors import InputError
from lora_edit.ui.changes import Change
from lora_edit.ui.jobs import JobQueue, write_traceback
from lora_edit.ui.labels import replace_setting_names
from lora_edit.ui.projects import Project, ProjectStore

ASSETS_FOLDER = Path(__file__).parent
COMMAND_LINE_PATTERN = re.compile(r"(^|\s)--\w|lora-edit")
"""Matches the parts of a message that mention the command line."""

STORED_FILE_PATTERN = re.compile(r"(?:/[^\s/:]+)*/given/[0-9a-f]{12}(\.\w+)?:? ?")
"""Matches the internal path of an imported file, which people never see."""

Updates = dict[Any, Any]
"""The output of an event handler: page elements to their new values."""


@dataclass(frozen=True)
class AppState:
    """State shared by all pages of a server: the projects and three job queues.

    `device_queue` runs long jobs on the device, `background` short jobs without a model, and `foreground` the work that a page waits
    for, in the thread of its event handler. Visitors of a page that `is_public` may not name files of the server.
    """

    store: ProjectStore
    device_queue: JobQueue = field(default_factory=JobQueue)
    background: JobQueue = field(default_factory=JobQueue)
    foreground: JobQueue = field(default_factory=JobQueue)
    is_public: bool = False

    def open_project(self, project_id: str) -> Project:
        """Open the project of a page. Raises `RunError` if it does not exist."""
        return self.store.open_project(project_id)


def simplify_message(text: str) -> str:
    """Rewrite a command-line message for the page: remove flags, and folders and internal file names of the server."""
    text = STORED_FILE_PATTERN.sub("", text).removeprefix("--set ")
    text = re.sub(r"(?:/[^\s/:]+)+/([^\s/:]+)", r"\1", text)
    clauses = [
        part
        for clause in text.split("; ")
        if (part := ", or ".join(each for each in clause.split(", or ") if not COMMAND_LINE_PATTERN.search(each)))
    ]
    return replace_setting_names("; ".join(clauses) or text)


def render_messages(text: str | Iterable[str], kind: str = "note") -> str:
    """Render messages as an HTML list; an empty string without messages. Screen readers read a `fault` out at once."""
    texts = [text] if isinstance(text, str) else list(text)
    lines = "".join(f"<li>{html.escape(simplify_message(each))}</li>" for each in texts if each)
    role = ' role="alert"' if kind == "fault" else ""
    return f'<div{role}><ul class="said {kind}">{lines}</ul></div>' if lines else ""


def render_figure(image_source: str, caption: str) -> str:
    """Render an image with its caption as HTML."""
    escaped = html.escape(caption)
    return f'<figure class="picture-card"><figcaption>{escaped}</figcaption><img src="{image_source}" alt="{escaped}"></figure>'


def create_message() -> Any:
    """Create the element for messages beside a field."""
    return gr.HTML("", elem_classes="message")


def catch_errors(
    app_state: AppState, handler: Callable[..., Updates], error_field: Any, view: Any = None, updates_on_error: Updates | None = None
) -> Callable[..., Updates]:
    """Wrap an event handler so that its failures become a message in `error_field`.

    After a failure the rest of the page stays as it is, except for `updates_on_error`, and `view` stops waiting. An update of `view`
    carries the number of the request that the viewer sent, by which the viewer matches responses to requests.
    """

    @functools.wraps(handler)
    def run(*args: Any) -> Updates:
        try:
            return {error_field: "", **_add_request_number(handler(*args), args, view)}
        except InputError as error:
            text = str(error)
        except Exception as error:
            app_state.store.path.mkdir(parents=True, exist_ok=True)
            write_traceback(app_state.store.path / "page.log", error)
            text = f"an internal error occurred ({type(error).__name__}); earlier work is kept"
        # The unique comment makes the browser show and read out the same message again.
        message = f"{render_messages(text, 'fault')}<!-- {time.monotonic_ns()} -->"
        return {error_field: message, **(updates_on_error or {}), **({} if view is None else {view: gr.HTML(failed=time.monotonic_ns())})}

    return run


def _add_request_number(updates: Updates, args: tuple[Any, ...], view: Any) -> Updates:
    request_number = next((each._data.get("ask") for each in args if isinstance(each, gr.EventData)), None)
    still = updates.get(view)
    return {**updates, view: {**still, "ask": request_number}} if request_number and still else updates


def create_viewer(name: str, label: str) -> Any:
    """Create a frame viewer; viewer.js describes its values and events."""
    return gr.HTML(
        None,
        label=label,
        elem_id=name,
        html_template=(ASSETS_FOLDER / "viewer.html").read_text("utf-8"),
        js_on_load=(ASSETS_FOLDER / "viewer.js").read_text("utf-8"),
        apply_default_css=False,
        failed=0,
    )


def build_file_field(project: Project, stored_file: str, empty_label: str) -> Any:
    """Build an empty file field. Its label names the stored file; without one it is `empty_label`."""
    name = project.read_original_name(stored_file) or "a file"
    return gr.File(None, label=f"{name} is kept; drop another here to replace it" if stored_file else empty_label)


def build_history_button(label: str, change: Change | None) -> Any:
    """Build the undo or redo button, labelled with the change."""
    return gr.Button(f"{label}: {change.label}" if change else label, interactive=change is not None)


def delete_upload(file: str | None) -> None:
    """Delete a processed upload; the project holds its own copy."""
    if file and Path(file).resolve().is_relative_to(Path(os.environ.get("GRADIO_TEMP_DIR", "/nowhere")).resolve()):
        Path(file).unlink(missing_ok=True)


def create_heading(title: str, text: str) -> Any:
    """Create a step's title and description."""
    return gr.HTML(f"<h2>{html.escape(title)}</h2><p class='lead'>{html.escape(text)}</p>", elem_classes="heading")


def read_frame_number(event: gr.EventData) -> int:
    """Return the frame number of a viewer event. Raises `InputError` if it is not a non-negative integer."""
    number = event._data.get("frame") if isinstance(event._data, dict) else None
    if type(number) is not int or number < 0:
        raise InputError("this is not a frame of the clip; frames are counted from 0")
    return number


def parse_decimal(value: Any, low: float, high: float, label: str) -> float:
    """Parse a typed number. Raises `InputError` if it is missing or out of range."""
    if value is None or not low <= value <= high:
        raise InputError(f"{label} is a number from {low:g} to {high:g}, not {'nothing' if value is None else format(value, 'g')}")
    return float(value)


def parse_integer(value: Any, low: int, high: int, label: str) -> int:
    """Parse a typed integer. Raises `InputError` if it is missing, fractional or out of range."""
    requirement = f"{label} is a whole number from {low} to {high}"
    if value is None:
        raise InputError(f"{requirement}; the field is empty")
    if not float(value).is_integer() or not low <= value <= high:
        raise InputError(f"{requirement}, not {value:g}")
    return int(value)
