"""The page's scripts are read from disk once and then served from memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lora_edit.ui.serve import AssetCacheMiddleware


class CountingApp:
    """An app that records requested paths and serves one script in two parts."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        exists = scope["path"].endswith("page-1a2b.js")
        await send({"type": "http.response.start", "status": 200 if exists else 404, "headers": [(b"content-type", b"text/javascript")]})
        await send({"type": "http.response.body", "body": b"let ", "more_body": True})
        await send({"type": "http.response.body", "body": b"x", "more_body": False})


def request(app: AssetCacheMiddleware, path: str, method: str = "GET") -> list[dict[str, Any]]:
    """Return all messages of a response."""
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    asyncio.run(app({"type": "http", "method": method, "path": path}, None, send))
    return messages


def test_a_script_is_read_once() -> None:
    app = CountingApp()
    cache = AssetCacheMiddleware(app)
    first, second = (request(cache, "/assets/page-1a2b.js") for _ in range(2))
    assert app.paths == ["/assets/page-1a2b.js"]
    assert first == second
    assert b"".join(message.get("body", b"") for message in second) == b"let x"


@pytest.mark.parametrize(
    ("path", "method"), [("/assets/other.js", "GET"), ("/config/page-1a2b.js", "GET"), ("/assets/page-1a2b.js", "HEAD")]
)
def test_other_responses_are_not_cached(path: str, method: str) -> None:
    app = CountingApp()
    cache = AssetCacheMiddleware(app)
    request(cache, path, method)
    request(cache, path, method)
    assert app.paths == [path, path]
    assert cache.responses == {}
