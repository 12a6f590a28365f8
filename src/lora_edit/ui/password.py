"""The optional password of the page: a form, a cookie, and a limit on attempts."""

from __future__ import annotations

import hmac
import html
import os
import time
from typing import Any
from urllib.parse import parse_qs

from cachetools import TTLCache

from lora_edit.errors import SettingsError
from lora_edit.ui.access import read_headers, send_text

PASSWORD_VARIABLE = "LORA_EDIT_UI_PASSWORD"  # noqa: S105
"""The environment variable with the password. Other users of a computer can read the arguments of a command, but not its environment."""

MIN_PASSWORD_LENGTH = 8
"""Minimum length of the password in characters."""

MAX_FORM_BYTES = 4096
"""Maximum length of the sent form in bytes."""

ATTEMPT_PERIOD = 60.0
"""Seconds for which a wrong password counts."""

MAX_ATTEMPTS, MAX_ATTEMPTS_OF_ALL = 5, 100
"""Wrong passwords per period after which an address, or any address, has to wait."""

START_ROUTE = "/gradio_api/startup-events"
"""The route that Gradio itself requests when it starts."""

FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>lora-edit: password</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
body {{ margin: 15vh auto; max-width: 20rem; padding: 0 1rem; }}
input, button {{ box-sizing: border-box; font: inherit; margin: .4rem 0; padding: .5rem; width: 100%; }}
</style>
<main><h1>lora-edit</h1>
<form method="post" action="{action}">
<label>Password <input name="password" type="password" autocomplete="current-password" required autofocus></label>
<button>Open the page</button>
<p role="alert">{message}</p>
</form></main></html>"""


def read_password() -> str | None:
    """Read the password from the environment and remove it there, so that no child process gets it; None without one.

    Raises `SettingsError` if it is short.
    """
    password = os.environ.pop(PASSWORD_VARIABLE, None)
    if password is not None and len(password) < MIN_PASSWORD_LENGTH:
        raise SettingsError(f"{PASSWORD_VARIABLE} has {len(password)} characters; use at least {MIN_PASSWORD_LENGTH}")
    return password


class PasswordMiddleware:
    """Asks for the password, and recognises by a cookie who gave it. The cookie is a random number that ends with the server.

    Only attempts are limited, so a stranger who guesses cannot lock out browsers with the cookie. `is_embedded` is whether other sites show
    the page in a frame: their browsers return the cookie only if it is marked for that.
    """

    def __init__(self, app: Any, password: str | None, is_embedded: bool = False) -> None:
        self.app, self.password, self.is_embedded = app, password, is_embedded
        self.token = os.urandom(32).hex()
        self.attempts: TTLCache[str, int] = TTLCache(10_000, ATTEMPT_PERIOD)
        self.attempts_of_all: TTLCache[int, None] = TTLCache(MAX_ATTEMPTS_OF_ALL, ATTEMPT_PERIOD)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward a request with the cookie; respond with the form, or with 401, to others."""
        if scope["type"] != "http" or self.password is None or scope["path"] == START_ROUTE or self._has_cookie(scope):
            await self.app(scope, receive, send)
        elif (scope["method"], scope["path"]) == ("POST", "/login"):
            await self._check_form(scope, receive, send)
        elif scope["path"] in ("/", "/login"):
            await _send_form(scope, send, 401, "")
        else:
            await send_text(send, 401, "open the page and give the password")

    def _has_cookie(self, scope: Any) -> bool:
        cookies = (each.partition("=") for each in read_headers(scope).get("cookie", "").split(";"))
        return any(name.strip() == "lora-edit" and _is_equal(value.strip(), self.token) for name, _, value in cookies)

    async def _check_form(self, scope: Any, receive: Any, send: Any) -> None:
        address = (scope.get("client") or ("",))[0]
        if self.attempts.get(address, 0) >= MAX_ATTEMPTS or len(self.attempts_of_all) >= MAX_ATTEMPTS_OF_ALL:
            await _send_form(scope, send, 429, "Too many wrong passwords; wait a minute and try again.")
            return
        form, more = b"", True
        while more and len(form) <= MAX_FORM_BYTES:
            message = await receive()
            form, more = form + message.get("body", b""), message.get("more_body", False)
        given = parse_qs(form[:MAX_FORM_BYTES].decode("utf-8", "replace")).get("password", [""])[0]
        if not _is_equal(given, self.password or ""):
            self.attempts[address] = self.attempts.get(address, 0) + 1
            self.attempts_of_all[time.monotonic_ns()] = None
            await _send_form(scope, send, 401, "This is not the password.")
            return
        location = "./" + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
        headers = [(b"location", location.encode("latin-1")), (b"set-cookie", self._build_cookie(scope).encode())]
        await send_text(send, 303, "", *headers)

    def _build_cookie(self, scope: Any) -> str:
        is_secure = scope.get("scheme") == "https" or read_headers(scope).get("x-forwarded-proto") == "https"
        site = "SameSite=None; Partitioned" if self.is_embedded and is_secure else "SameSite=Lax"
        return f"lora-edit={self.token}; Path=/; HttpOnly; {site}" + ("; Secure" if is_secure else "")


def _is_equal(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))


async def _send_form(scope: Any, send: Any, status: int, message: str) -> None:
    query = scope["query_string"].decode("latin-1")
    text = FORM.format(action=html.escape(f"login?{query}" if query else "login"), message=html.escape(message))
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode() if scope["method"] != "HEAD" else b""})
