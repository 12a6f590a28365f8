"""Starts the page: for `lora-edit ui`, for notebooks and for a Hugging Face Space."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_edit.errors import SettingsError
from lora_edit.threads import wait_passively

PROJECTS = Path("runs")
"""Where projects are kept, in the folder that the server was started from."""


class OwnFiles:
    """Keeps Gradio's file route to the copies that were made for a page.

    It would also serve what lies in the projects' folder to whoever knows or guesses a path, and fetch addresses of other hosts.
    """

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 404 instead of such a file."""
        _, asked, file = scope.get("path", "").partition("/file=")
        if asked and (file.lower().startswith(("http:", "https:")) or Path(file).resolve().is_relative_to(self.folder)):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"not found"})
        else:
            await self.app(scope, receive, send)


class KeptAssets:
    """Answers for the page's own scripts and styles from memory; Gradio reads some eighty files anew for every browser.

    Their names carry a hash of what is in them, so that what was sent once stays right.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.kept: dict[str, list[dict[str, Any]]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send what is kept, or keep what is sent."""
        path = scope.get("path", "")
        if scope["type"] != "http" or scope["method"] != "GET" or not path.startswith("/assets/"):
            await self.app(scope, receive, send)
            return
        if path in self.kept:
            for message in self.kept[path]:
                await send(message)
            return
        sent: list[dict[str, Any]] = []

        async def keep(message: dict[str, Any]) -> None:
            sent.append(message)
            await send(message)

        await self.app(scope, receive, keep)
        if sent[0]["status"] == 200 and not sent[-1].get("more_body", False):
            self.kept[path] = sent


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    folder: Path = PROJECTS,
    wait: bool = True,
    threads: int | None = None,
    started: Callable[[str], None] | None = None,
    **more: Any,
) -> str:
    """Serve the page, until interrupted unless `wait` is off; returns its address, and tells it to `started` at once.

    Jobs compute with so many `threads`, or with as many as there are free cores when they begin. `more` goes to Gradio's `launch`.
    Nothing is asked of other servers: analytics are off, and fonts and scripts are the page's own.
    Raises `SettingsError` when the port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else a table of all events so far is made after each
    wait_passively()
    from lora_edit.ui.page import look, make_page

    page = make_page(folder, threads)
    page.blocks.queue(default_concurrency_limit=4, api_open=False)
    given = {
        "quiet": True,
        "prevent_thread_lock": True,
        "allowed_paths": [str(folder.absolute())],
        "share": False,
        "max_file_size": "4gb",
        "ssr_mode": False,
        "app_kwargs": {"middleware": [(OwnFiles, (folder,), {}), (KeptAssets, (), {})]},
    }
    try:
        _, address, _ = page.blocks.launch(server_name=host, server_port=port, **given | look() | more)
    except OSError as error:
        raise SettingsError(f"port {port} of {host} cannot be used; give another --port") from error
    if started is not None:
        started(address)
    if wait:
        page.blocks.block_thread()
    return str(address)
