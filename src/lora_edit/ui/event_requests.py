"""Limits on the requests of events: their size, and the form of their data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container
from typing import Any

from lora_edit.ui.access import send_text

MAX_REQUEST_BYTES = 1024**2
"""Maximum size of a request in bytes; marks and typed text are far shorter."""

MAX_DEPTH = 32
"""Maximum depth of nested lists and objects."""

SESSION_PATTERN = r"\w{1,64}"
"""Pattern of the random name that a browser gives to its session."""

URL_PATTERN = re.compile(r"\s*[a-z][a-z0-9+.-]+:|\s*[/\\]{2}", re.IGNORECASE)
"""Matches addresses of other hosts."""

INVALID_MESSAGE = "this request is not valid"


class EventMiddleware:
    """Rejects requests that are too large or malformed, before Gradio reads them.

    Gradio would fetch a file whose path is an address of another host, and fail with an internal error on deeply nested data and on
    unknown handlers, whose numbers are not in `handlers`.
    """

    def __init__(self, app: Any, handlers: Container[Any]) -> None:
        self.app, self.handlers = app, handlers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with 413 to a request that is too large, and with 400 to a malformed one. Uploads have their own limits."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].endswith("/upload"):
            await self.app(scope, receive, send)
            return
        declared = dict(scope.get("headers", ())).get(b"content-length", b"0")
        body, more = b"", True
        while more and len(body) <= MAX_REQUEST_BYTES and not (declared.isdigit() and int(declared) > MAX_REQUEST_BYTES):
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if more or len(body) > MAX_REQUEST_BYTES:
            await send_text(send, 413, "this request is too large")
        elif not is_valid_event(body, self.handlers):
            await send_text(send, 400, INVALID_MESSAGE)
        else:
            pending: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Any:
                return pending.pop() if pending else await receive()

            await self.app(scope, replay, send)


def is_valid_event(body: bytes, handlers: Container[Any]) -> bool:
    """Return whether a body is a JSON object of limited depth, with finite numbers, and with a short session name.

    The number of its handler, if it has one, is in `handlers`, and no path in it is an address.
    """
    try:
        event = json.loads(body, parse_constant=_parse_finite, parse_float=_parse_finite)
    except (ValueError, RecursionError):
        return False
    if not isinstance(event, dict) or not re.fullmatch(SESSION_PATTERN, str(event.get("session_hash", "none"))):
        return False
    handler = event.get("fn_index")
    if handler is not None and (type(handler) is not int or handler not in handlers):
        return False
    return _has_valid_data(event)


def _has_valid_data(event: dict[str, Any]) -> bool:
    level: list[Any] = [event]
    for _ in range(MAX_DEPTH):
        children: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                if isinstance(path := each.get("path"), str) and URL_PATTERN.match(path):
                    return False
                children += each.values()
            elif isinstance(each, list):
                children += each
        level = children
        if not level:
            return True
    return False


def _parse_finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number
