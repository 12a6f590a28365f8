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
from lora_edit.ui.jobs import Desk, Foreground, write_traceback
from lora_edit.ui.labels import with_labels
from lora_edit.ui.projects import Folder, Shelf

HERE = Path(__file__).parent
FLAG = re.compile(r"(^|\s)--\w|lora-edit")
"""A part of a message that speaks of the command line."""

KEPT = re.compile(r"(?:/[^\s/:]+)*/given/[0-9a-f]{12}(\.\w+)?:? ?")
"""The name of a file that the page keeps; nobody gave it that."""

Updates = dict[Any, Any]
"""What a handler answers with: page elements and what becomes of them."""


@dataclass(frozen=True)
class Office:
    """What all pages of a server share: the projects, the device's queue, one for short work without a model, and what pages wait for."""

    shelf: Shelf
    device: Desk = field(default_factory=Desk)
    quick: Desk = field(default_factory=Desk)
    hands: Foreground = field(default_factory=Foreground)

    def open(self, name: str) -> Folder:
        """The project a page works on. Raises `RunError` when it has none yet."""
        return self.shelf.open(name)


def plain(text: str) -> str:
    """A message for people at the command line as one for people at the page: no flags, no folders or file names of the server."""
    text = KEPT.sub("", text).removeprefix("--set ")
    text = re.sub(r"(?:/[^\s/:]+)+/([^\s/:]+)", r"\1", text)
    clauses = [
        part for clause in text.split("; ") if (part := ", or ".join(each for each in clause.split(", or ") if not FLAG.search(each)))
    ]
    return with_labels("; ".join(clauses) or text)


def said(text: str | Iterable[str], kind: str = "note") -> str:
    """Messages as a list on the page; nothing for none. A fault is read out at once by screen readers."""
    texts = [text] if isinstance(text, str) else list(text)
    lines = "".join(f"<li>{html.escape(plain(each))}</li>" for each in texts if each)
    role = ' role="alert"' if kind == "fault" else ""
    return f'<div{role}><ul class="said {kind}">{lines}</ul></div>' if lines else ""


def figure(picture: str, caption: str) -> str:
    """A picture with what it shows."""
    words = html.escape(caption)
    return f'<figure class="picture-card"><figcaption>{words}</figcaption><img src="{picture}" alt="{words}"></figure>'


def message() -> Any:
    """A place for messages, beside the field that they are about."""
    return gr.HTML("", elem_classes="message")


def guarded(
    office: Office, handler: Callable[..., Updates], place: Any, view: Any = None, refused: Updates | None = None
) -> Callable[..., Updates]:
    """The handler, whose failures become a message at `place`; everything else on the page stays as it is but for what is `refused`, and a
    `view` no longer waits.

    What the handler shows in the `view` is marked with the number of the question that the view asked, by which it knows its answer.
    """

    @functools.wraps(handler)
    def run(*args: Any) -> Updates:
        try:
            return {place: "", **_answering(handler(*args), args, view)}
        except InputError as error:
            fault = str(error)
        except Exception as error:
            office.shelf.path.mkdir(parents=True, exist_ok=True)
            write_traceback(office.shelf.path / "page.log", error)
            fault = f"this failed on our side ({type(error).__name__}); what was done so far is kept"
        # Told anew, so that the same words are shown and read out again.
        words = f"{said(fault, 'fault')}<!-- {time.monotonic_ns()} -->"
        return {place: words, **(refused or {}), **({} if view is None else {view: gr.HTML(failed=time.monotonic_ns())})}

    return run


def _answering(answer: Updates, args: tuple[Any, ...], view: Any) -> Updates:
    asked = next((each._data.get("ask") for each in args if isinstance(each, gr.EventData)), None)
    shown = answer.get(view)
    return {**answer, view: {**shown, "ask": asked}} if asked and shown else answer


def viewer(name: str, label: str) -> Any:
    """A viewer of frames; see viewer.js for what it tells and takes."""
    return gr.HTML(
        None,
        label=label,
        elem_id=name,
        html_template=(HERE / "viewer.html").read_text("utf-8"),
        js_on_load=(HERE / "viewer.js").read_text("utf-8"),
        apply_default_css=False,
        failed=0,
    )


def file_field(folder: Folder, kept: str, empty: str) -> Any:
    """A field for files, empty again; its label names the file that is kept, or says what to drop where there is none."""
    name = folder.name_of(kept) or "a file"
    return gr.File(None, label=f"{name} is kept; drop another here to replace it" if kept else empty)


def discard(file: str | None) -> None:
    """Remove an upload that was looked at: what is wanted of it is kept in the project."""
    if file and Path(file).resolve().is_relative_to(Path(os.environ.get("GRADIO_TEMP_DIR", "/nowhere")).resolve()):
        Path(file).unlink(missing_ok=True)


def heading(title: str, text: str) -> Any:
    """A step's title and what it is for."""
    return gr.HTML(f"<h2>{html.escape(title)}</h2><p class='lead'>{html.escape(text)}</p>", elem_classes="heading")


def frame_asked_for(event: gr.EventData) -> int:
    """The number of the frame that a viewer asks for. Raises `InputError` for what is no number of one."""
    number = event._data.get("frame") if isinstance(event._data, dict) else None
    if not isinstance(number, int) or number < 0:
        raise InputError("this is no frame of the clip; frames are counted from 0")
    return number


def decimal_in(value: Any, low: float, high: float, what: str) -> float:
    """A number that a person typed. Raises `InputError` outside of the range."""
    if value is None or not low <= value <= high:
        raise InputError(f"{what} is a number from {low:g} to {high:g}, not {'nothing' if value is None else format(value, 'g')}")
    return float(value)


def number_in(value: Any, low: int, high: int, what: str) -> int:
    """A whole number that a person typed. Raises `InputError` outside of the range."""
    rule = f"{what} is a whole number from {low} to {high}"
    if value is None:
        raise InputError(f"{rule}; the field is empty")
    if not float(value).is_integer() or not low <= value <= high:
        raise InputError(f"{rule}, not {value:g}")
    return int(value)
