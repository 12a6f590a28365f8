"""The subcommand that serves the page: ui."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from lora_edit.cli.options import Threads
from lora_edit.errors import SettingsError
from lora_edit.masks.segmenter_registry import EMBEDDED, check_segmenter_name

UI_MODULE = "lora_edit.ui.serve"
"""A name, as the packages `cli` and `ui` do not import each other."""


def ui(
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Address to listen on. 0.0.0.0 allows other machines; set LORA_EDIT_UI_PASSWORD."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="Port of the page.", min=1, max=65535)] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Further name of the page, for example that of a proxy. Repeat for several."),
    ] = None,
    segmenter: Annotated[
        str, typer.Option("--segmenter", metavar="embedded|sam2:FOLDER", help="Segmenter of the marks; SAM 3 also takes a description.")
    ] = EMBEDDED,
    threads: Threads = None,
) -> None:
    """Serve a page to edit clips in the browser, until interrupted. Projects are stored in ./runs. Prints the address of the page.

    If the environment variable LORA_EDIT_UI_PASSWORD is set, the page asks for this password.
    """
    if find_spec("gradio") is None:
        raise SettingsError("the page needs Gradio, which is not installed; run: pip install 'lora-edit[ui]'")
    check_segmenter_name(segmenter)
    serve = import_module(UI_MODULE).serve
    serve(host, port, on_start=typer.echo, threads=threads, allowed_hosts=allow_host or (), segmenter=segmenter)
