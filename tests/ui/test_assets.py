"""The page's scripts are read from the disk once and answered for from memory after that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lora_edit.ui.serve import AssetCacheMiddleware


class Disk:
    """An app that counts what it is asked for, and has one script, in two parts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        found = scope["path"].endswith("page-1a2b.js")
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": [(b"content-type", b"text/javascript")]})
        await send({"type": "http.response.body", "body": b"let ", "more_body": True})
        await send({"type": "http.response.body", "body": b"x", "more_body": False})


def ask(app: AssetCacheMiddleware, path: str, method: str = "GET") -> list[dict[str, Any]]:
    """All messages of one answer."""
    answer: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        answer.append(message)

    asyncio.run(app({"type": "http", "method": method, "path": path}, None, send))
    return answer


def test_a_script_is_read_once_and_answered_alike() -> None:
    disk = Disk()
    app = AssetCacheMiddleware(disk)
    first, second = (ask(app, "/assets/page-1a2b.js") for _ in range(2))
    assert disk.asked == ["/assets/page-1a2b.js"]
    assert first == second
    assert b"".join(message.get("body", b"") for message in second) == b"let x"


@pytest.mark.parametrize(
    ("path", "method"), [("/assets/other.js", "GET"), ("/config/page-1a2b.js", "GET"), ("/assets/page-1a2b.js", "HEAD")]
)
def test_what_is_missing_or_no_script_is_not_kept(path: str, method: str) -> None:
    disk = Disk()
    app = AssetCacheMiddleware(disk)
    ask(app, path, method)
    ask(app, path, method)
    assert disk.asked == [path, path]
    assert app.responses == {}
