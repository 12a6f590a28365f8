"""The page's server, for `lora-edit ui`, notebooks and a Hugging Face Space."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lora_edit.errors import SettingsError
from lora_edit.masks.segmenter_registry import EMBEDDED
from lora_edit.threads import set_passive_wait_policy
from lora_edit.ui.access import LOOPBACK, OriginMiddleware, RouteMiddleware, build_headers
from lora_edit.ui.event_requests import EventMiddleware
from lora_edit.ui.password import PASSWORD_VARIABLE, PasswordMiddleware, read_password
from lora_edit.ui.uploads import MAX_FILE_BYTES, UploadMiddleware, create_upload_folder

PROJECTS_FOLDER = Path("runs")
"""Folder of the projects, relative to the working directory of the server."""

MAX_WAITING_EVENTS = 256
"""Maximum number of events that wait for a handler, of all pages; a page's timer sends one every few seconds."""

NO_PASSWORD_WARNING = (
    f"warning: the page is open to other machines, and without a password to everybody on them; set {PASSWORD_VARIABLE} to ask for one"
)


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
    segmenter: str = EMBEDDED,
    on_start: Callable[[str], None] | None = None,
    allowed_hosts: Iterable[str] = (),
    embedding_sites: Iterable[str] = (),
    **launch_options: Any,
) -> str:
    """Serve the page and return its address; with `wait`, block until interrupted. `on_start` receives the address at once.

    Jobs compute with `threads` threads, by default with as many as there are free cores when they start. `segmenter` segments the marks
    (`masks.segmenter_registry`). The page answers under its own names and `allowed_hosts`; `embedding_sites` may show it in a frame. If the
    environment has a password (`PASSWORD_VARIABLE`), the page asks for it. `launch_options` are passed to Gradio's `launch`. The page
    contacts no other servers: analytics are off, and fonts and scripts are local. Raises `SettingsError` if the port is in use or the
    password is short.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else Gradio rebuilds a table of all events after each event
    password, names = read_password(), {each.lower() for each in allowed_hosts}
    uploads, lock = create_upload_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    set_passive_wait_policy()
    import gradio as gr

    from lora_edit.ui.page import make_page
    from lora_edit.ui.theme import SCREEN_READER_TEXTS, build_launch_options

    is_public = host not in LOOPBACK or bool(names) or bool(launch_options.get("share"))
    if is_public and password is None:
        print(NO_PASSWORD_WARNING, file=sys.stderr)
    page = make_page(folder, threads, segmenter, is_public)
    page.blocks.queue(max_size=MAX_WAITING_EVENTS, default_concurrency_limit=4, api_open=False)
    headers = build_headers(None if launch_options.get("inline") else tuple(embedding_sites))
    defaults = {
        "quiet": True,
        "prevent_thread_lock": True,
        "allowed_paths": [str(folder.absolute())],
        "share": False,
        "max_file_size": MAX_FILE_BYTES,
        "ssr_mode": False,
        "enable_monitoring": False,
        "i18n": gr.I18n(en=SCREEN_READER_TEXTS),
        "app_kwargs": {
            "middleware": [
                (AssetCacheMiddleware, (), {}),
                (OriginMiddleware, (names, host in LOOPBACK, headers), {}),
                (PasswordMiddleware, (password, bool(embedding_sites)), {}),
                (RouteMiddleware, (uploads,), {}),
                (EventMiddleware, (page.blocks.fns,), {}),
                (UploadMiddleware, (uploads, lock), {}),
            ]
        },
    }
    try:
        _, address, shared_address = page.blocks.launch(
            server_name=host, server_port=port, **defaults | build_launch_options() | launch_options
        )
    except OSError as error:
        raise SettingsError(f"port {port} of {host} is not available; choose another with --port") from error
    if shared_address:  # its name is known only now
        names.add(urlsplit(shared_address).hostname or "")
    if on_start is not None:
        on_start(address)
    if wait:
        page.blocks.block_thread()
    return str(address)
