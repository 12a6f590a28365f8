"""Starts the page: for `lora-edit ui`, for notebooks and for a Hugging Face Space."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lora_edit.errors import SettingsError
from lora_edit.threads import set_passive_wait_policy
from lora_edit.ui.uploads import MAX_FILE_BYTES, UploadMiddleware, create_upload_folder

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this computer for itself."""

FORBIDDEN_MESSAGE = b"this page is for the computer that it runs on; lora-edit ui --host 0.0.0.0 lets other names in"

PROJECTS_FOLDER = Path("runs")
"""Where projects are kept, in the folder that the server was started from."""


class FileAccessMiddleware:
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


class OriginMiddleware:
    """Refuses what another site's page asks for, and pages that another name stands for: a browser sends both along.

    A server for this computer alone is known by a loopback name, so whoever gives it another one has had the name moved here. Answers
    tell browsers to guess no types and to pass the address, in which a project is named, to nobody.
    """

    HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"SAMEORIGIN"))

    def __init__(self, app: Any, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 403 instead of a foreign request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope.get("headers", ())}
        if self.is_foreign(given.get("host", ""), given.get("origin", "")):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": FORBIDDEN_MESSAGE})
            return

        async def secured(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                shown = self.HEADERS if self.local else self.HEADERS[:2]  # others may be meant to frame a public page
                message = {**message, "headers": [*message.get("headers", ()), *shown]}
            await send(message)

        await self.app(scope, receive, secured)

    def is_foreign(self, host: str, origin: str) -> bool:
        """Is the request for another name than this computer's, or from another page than ours?"""
        name = urlsplit(f"//{host}").hostname
        if self.local and name not in LOOPBACK:
            return True
        return self.local and bool(origin) and urlsplit(origin).netloc.lower() != host.lower()


class AssetCacheMiddleware:
    """Answers for the page's own scripts and styles from memory; Gradio reads some eighty files anew for every browser.

    Their names carry a hash of what is in them, so that what was sent once stays right. Stands next to Gradio's own compression, which
    changes the messages that it is given: they are kept compressed, with the header that says so.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.responses: dict[str, list[dict[str, Any]]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send what is kept, or keep what is sent."""
        path = scope.get("path", "")
        if scope["type"] != "http" or scope["method"] != "GET" or not path.startswith("/assets/"):
            await self.app(scope, receive, send)
            return
        if path in self.responses:
            for message in self.responses[path]:
                await send(message)
            return
        sent: list[dict[str, Any]] = []

        async def keep(message: dict[str, Any]) -> None:
            sent.append(message)
            await send(message)

        await self.app(scope, receive, keep)
        if sent[0]["status"] == 200 and not sent[-1].get("more_body", False):
            self.responses[path] = sent


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    folder: Path = PROJECTS_FOLDER,
    wait: bool = True,
    threads: int | None = None,
    on_start: Callable[[str], None] | None = None,
    **launch_options: Any,
) -> str:
    """Serve the page, until interrupted unless `wait` is off; returns its address, and tells it to `started` at once.

    Jobs compute with so many `threads`, or with as many as there are free cores when they begin. `more` goes to Gradio's `launch`.
    Nothing is asked of other servers: analytics are off, and fonts and scripts are the page's own.
    Raises `SettingsError` when the port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else a table of all events so far is made after each
    uploads, lock = create_upload_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    set_passive_wait_policy()
    import gradio as gr

    from lora_edit.ui.page import make_page
    from lora_edit.ui.theme import SCREEN_READER_TEXTS, build_launch_options

    page = make_page(folder, threads)
    page.blocks.queue(default_concurrency_limit=4, api_open=False)
    # A notebook's frame and a shared address stand on other names.
    local = host in LOOPBACK and not (launch_options.get("inline") or launch_options.get("share"))
    given = {
        "quiet": True,
        "prevent_thread_lock": True,
        "allowed_paths": [str(folder.absolute())],
        "share": False,
        "max_file_size": MAX_FILE_BYTES,
        "ssr_mode": False,
        "i18n": gr.I18n(en=SCREEN_READER_TEXTS),
        "app_kwargs": {
            "middleware": [
                (AssetCacheMiddleware, (), {}),
                (OriginMiddleware, (local,), {}),
                (FileAccessMiddleware, (folder,), {}),
                (UploadMiddleware, (uploads, lock), {}),
            ]
        },
    }
    try:
        _, address, _ = page.blocks.launch(server_name=host, server_port=port, **given | build_launch_options() | launch_options)
    except OSError as error:
        raise SettingsError(f"port {port} of {host} cannot be used; give another --port") from error
    if on_start is not None:
        on_start(address)
    if wait:
        page.blocks.block_thread()
    return str(address)
