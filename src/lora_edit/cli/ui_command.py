"""The verb that opens the page."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from lora_edit.cli.options import Threads
from lora_edit.errors import SettingsError

UI_MODULE = "lora_edit.ui.serve"
"""Named, not imported: neither door knows the other."""


def ui(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="0.0.0.0 lets other machines in; there are no passwords.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="Where the page is served.", min=1, max=65535)] = 7860,
    threads: Threads = None,
) -> None:
    """Open a page to edit clips in the browser, until interrupted. Projects are kept in ./runs; prints the page's address."""
    if find_spec("gradio") is None:
        raise SettingsError("the page needs Gradio, which is not installed; run: pip install 'lora-edit[ui]'")
    import_module(UI_MODULE).serve(host, port, started=typer.echo, threads=threads)
