"""The page's server, for `lora-edit ui`, notebooks and a Hugging Face Space."""

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
"""Loopback names of this computer."""

FORBIDDEN_MESSAGE = b"this page answers only on the computer that runs it; to allow other names, start it with lora-edit ui --host 0.0.0.0"

PROJECTS_FOLDER = Path("runs")
"""Folder of the projects, relative to the working directory of the server."""


class FileAccessMiddleware:
    """Restricts Gradio's file route to files that were copied for a page.

    Without it, the route also serves files in the projects' folder to anyone with the path, and fetches addresses of other hosts.
    """

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with 404 to requests for such files."""
        _, is_file_route, file = scope.get("path", "").partition("/file=")
        if is_file_route and (file.lower().startswith(("http:", "https:")) or Path(file).resolve().is_relative_to(self.folder)):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"not found"})
        else:
            await self.app(scope, receive, send)


class OriginMiddleware:
    """Rejects requests with a foreign `Host` or `Origin` header.

    A server for this computer alone has a loopback name; any other name is a sign of DNS rebinding. Responses forbid browsers to guess
    content types and to pass on the address, which contains the project's name.
    """

    HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"SAMEORIGIN"))

    def __init__(self, app: Any, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with 403 to a foreign request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope.get("headers", ())}
        if self.is_foreign(headers.get("host", ""), headers.get("origin", "")):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": FORBIDDEN_MESSAGE})
            return

        async def send_secured(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = self.HEADERS if self.local else self.HEADERS[:2]  # other sites may embed a public page in a frame
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self.app(scope, receive, send_secured)

    def is_foreign(self, host: str, origin: str) -> bool:
        """Return whether a request to a local server names another host or comes from another origin."""
        name = urlsplit(f"//{host}").hostname
        if self.local and name not in LOOPBACK:
            return True
        return self.local and bool(origin) and urlsplit(origin).netloc.lower() != host.lower()


class AssetCacheMiddleware:
    """Caches the page's scripts and styles in memory; Gradio reads about eighty files from disk for every browser.

    File names contain a hash of the content, so cached responses stay valid. The middleware sits next to Gradio's compression, which
    modifies the messages that it is given: responses are cached compressed, with their `content-encoding` header.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.responses: dict[str, list[dict[str, Any]]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the cached response, or forward the request and cache the response."""
        path = scope.get("path", "")
        if scope["type"] != "http" or scope["method"] != "GET" or not path.startswith("/assets/"):
            await self.app(scope, receive, send)
            return
        if path in self.responses:
            for message in self.responses[path]:
                await send(message)
            return
        messages: list[dict[str, Any]] = []

        async def send_and_record(message: dict[str, Any]) -> None:
            messages.append(message)
            await send(message)

        await self.app(scope, receive, send_and_record)
        if messages[0]["status"] == 200 and not messages[-1].get("more_body", False):
            self.responses[path] = messages


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    folder: Path = PROJECTS_FOLDER,
    wait: bool = True,
    threads: int | None = None,
    on_start: Callable[[str], None] | None = None,
    **launch_options: Any,
) -> str:
    """Serve the page and return its address; with `wait`, block until interrupted. `on_start` receives the address at once.

    Jobs compute with `threads` threads, by default with as many as there are free cores when they start. `launch_options` are passed to
    Gradio's `launch`. The page contacts no other servers: analytics are off, and fonts and scripts are local.
    Raises `SettingsError` if the port is in use.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else Gradio rebuilds a table of all events after each event
    uploads, lock = create_upload_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    set_passive_wait_policy()
    import gradio as gr

    from lora_edit.ui.page import make_page
    from lora_edit.ui.theme import SCREEN_READER_TEXTS, build_launch_options

    page = make_page(folder, threads)
    page.blocks.queue(default_concurrency_limit=4, api_open=False)
    # The frame of a notebook and a shared address use other names.
    local = host in LOOPBACK and not (launch_options.get("inline") or launch_options.get("share"))
    defaults = {
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
        _, address, _ = page.blocks.launch(server_name=host, server_port=port, **defaults | build_launch_options() | launch_options)
    except OSError as error:
        raise SettingsError(f"port {port} of {host} is not available; choose another with --port") from error
    if on_start is not None:
        on_start(address)
    if wait:
        page.blocks.block_thread()
    return str(address)
