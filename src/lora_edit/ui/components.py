"""What the page's steps share: messages at the field at fault, the viewer, and what all of them work on."""

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
from lora_edit.ui.jobs import ForegroundRunner, JobQueue, write_traceback
from lora_edit.ui.labels import replace_setting_names
from lora_edit.ui.projects import Project, ProjectStore

ASSETS_FOLDER = Path(__file__).parent
COMMAND_LINE_PATTERN = re.compile(r"(^|\s)--\w|lora-edit")
"""A part of a message that speaks of the command line."""

STORED_FILE_PATTERN = re.compile(r"(?:/[^\s/:]+)*/given/[0-9a-f]{12}(\.\w+)?:? ?")
"""The name of a file that the page keeps; nobody gave it that."""

Updates = dict[Any, Any]
"""What a handler answers with: page elements and what becomes of them."""


@dataclass(frozen=True)
class AppState:
    """What all pages of a server share: the projects, the device's queue, one for short work without a model, and what pages wait for."""

    store: ProjectStore
    device_queue: JobQueue = field(default_factory=JobQueue)
    background: JobQueue = field(default_factory=JobQueue)
    foreground: ForegroundRunner = field(default_factory=ForegroundRunner)

    def open_project(self, project_id: str) -> Project:
        """The project a page works on. Raises `RunError` when it has none yet."""
        return self.store.open_project(project_id)


def simplify_message(text: str) -> str:
    """A message for people at the command line as one for people at the page: no flags, no folders or file names of the server."""
    text = STORED_FILE_PATTERN.sub("", text).removeprefix("--set ")
    text = re.sub(r"(?:/[^\s/:]+)+/([^\s/:]+)", r"\1", text)
    clauses = [
        part
        for clause in text.split("; ")
        if (part := ", or ".join(each for each in clause.split(", or ") if not COMMAND_LINE_PATTERN.search(each)))
    ]
    return replace_setting_names("; ".join(clauses) or text)


def render_messages(text: str | Iterable[str], kind: str = "note") -> str:
    """Messages as a list on the page; nothing for none. A fault is read out at once by screen readers."""
    texts = [text] if isinstance(text, str) else list(text)
    lines = "".join(f"<li>{html.escape(simplify_message(each))}</li>" for each in texts if each)
    role = ' role="alert"' if kind == "fault" else ""
    return f'<div{role}><ul class="said {kind}">{lines}</ul></div>' if lines else ""


def render_figure(image_source: str, caption: str) -> str:
    """A picture with what it shows."""
    words = html.escape(caption)
    return f'<figure class="picture-card"><figcaption>{words}</figcaption><img src="{image_source}" alt="{words}"></figure>'


def create_message() -> Any:
    """A place for messages, beside the field that they are about."""
    return gr.HTML("", elem_classes="message")


def catch_errors(
    app_state: AppState, handler: Callable[..., Updates], error_field: Any, view: Any = None, updates_on_error: Updates | None = None
) -> Callable[..., Updates]:
    """The handler, whose failures become a message at `place`; everything else on the page stays as it is but for what is `refused`, and a
    `view` no longer waits.

    What the handler shows in the `view` is marked with the number of the question that the view asked, by which it knows its answer.
    """

    @functools.wraps(handler)
    def run(*args: Any) -> Updates:
        try:
            return {error_field: "", **_add_request_number(handler(*args), args, view)}
        except InputError as error:
            fault = str(error)
        except Exception as error:
            app_state.store.path.mkdir(parents=True, exist_ok=True)
            write_traceback(app_state.store.path / "page.log", error)
            fault = f"this failed on our side ({type(error).__name__}); what was done so far is kept"
        # Told anew, so that the same words are shown and read out again.
        words = f"{render_messages(fault, 'fault')}<!-- {time.monotonic_ns()} -->"
        return {error_field: words, **(updates_on_error or {}), **({} if view is None else {view: gr.HTML(failed=time.monotonic_ns())})}

    return run


def _add_request_number(updates: Updates, args: tuple[Any, ...], view: Any) -> Updates:
    asked = next((each._data.get("ask") for each in args if isinstance(each, gr.EventData)), None)
    shown = updates.get(view)
    return {**updates, view: {**shown, "ask": asked}} if asked and shown else updates


def create_viewer(name: str, label: str) -> Any:
    """A viewer of frames; see viewer.js for what it tells and takes."""
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
    """A field for files, empty again; its label names the file that is kept, or says what to drop where there is none."""
    name = project.read_original_name(stored_file) or "a file"
    return gr.File(None, label=f"{name} is kept; drop another here to replace it" if stored_file else empty_label)


def delete_upload(file: str | None) -> None:
    """Remove an upload that was looked at: what is wanted of it is kept in the project."""
    if file and Path(file).resolve().is_relative_to(Path(os.environ.get("GRADIO_TEMP_DIR", "/nowhere")).resolve()):
        Path(file).unlink(missing_ok=True)


def create_heading(title: str, text: str) -> Any:
    """A step's title and what it is for."""
    return gr.HTML(f"<h2>{html.escape(title)}</h2><p class='lead'>{html.escape(text)}</p>", elem_classes="heading")


def read_frame_number(event: gr.EventData) -> int:
    """The number of the frame that a viewer asks for. Raises `InputError` for what is no number of one."""
    number = event._data.get("frame") if isinstance(event._data, dict) else None
    if not isinstance(number, int) or number < 0:
        raise InputError("this is no frame of the clip; frames are counted from 0")
    return number


def parse_decimal(value: Any, low: float, high: float, label: str) -> float:
    """A number that a person typed. Raises `InputError` outside of the range."""
    if value is None or not low <= value <= high:
        raise InputError(f"{label} is a number from {low:g} to {high:g}, not {'nothing' if value is None else format(value, 'g')}")
    return float(value)


def parse_integer(value: Any, low: int, high: int, label: str) -> int:
    """A whole number that a person typed. Raises `InputError` outside of the range."""
    rule = f"{label} is a whole number from {low} to {high}"
    if value is None:
        raise InputError(f"{rule}; the field is empty")
    if not float(value).is_integer() or not low <= value <= high:
        raise InputError(f"{rule}, not {value:g}")
    return int(value)
