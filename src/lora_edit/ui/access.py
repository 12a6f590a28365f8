"""Access to the page's server: names and origins, open routes, served files, and what a browser may do with the page."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Loopback names of this computer."""

FORBIDDEN_MESSAGE = (
    "this page does not answer under this name or to this site; to allow a name, start it with lora-edit ui --allow-host NAME"
)

ROUTES = {
    ("GET", "HEAD"): (
        r"/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)?",
        r"/(assets|static)/.+",
        r"/gradio_api/(app_id|startup-events|theme\.css|upload_progress|queue/data)",
        r"/gradio_api/heartbeat/\w{1,64}",
        r"/gradio_api/file=.+",
    ),
    ("POST",): (r"/gradio_api/(queue/join|upload|cancel|reset)",),
}
"""Routes that the page uses, by method, as patterns of the path. Gradio has sixty more, for example a proxy, a recorder and an API."""

CLOSED_PARAMETERS = {"page", "deep_link"}
"""Parameters of an address with which Gradio opens another page or stored fields; this page has neither."""

CONTENT_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio starts with inline scripts and compiles the viewer's script
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}
"""The content security policy: scripts cannot load from or send to other hosts."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # the address contains the project's name
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Headers of every response."""


def build_headers(embedding_sites: Iterable[str] | None) -> list[tuple[bytes, bytes]]:
    """Build the headers of every response. Only the page itself and `embedding_sites` may show it in a frame; with None, any site may."""
    policy, headers = dict(CONTENT_POLICY), dict(HEADERS)
    if embedding_sites is not None:
        policy["frame-ancestors"] = " ".join(["'self'", *embedding_sites])
        if not list(embedding_sites):
            headers["x-frame-options"] = "SAMEORIGIN"
    headers["content-security-policy"] = "; ".join(f"{name} {sources}" for name, sources in policy.items())
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def send_text(send: Any, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    """Send a response of plain text that closes the connection."""
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": plain})
    await send({"type": "http.response.body", "body": text.encode()})


def read_headers(scope: Any) -> dict[str, str]:
    """Return the headers of a request by name in lower case."""
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in scope.get("headers", ())}


def list_own_names(is_local: bool) -> set[str]:
    """List the names of this computer; a server for this computer alone has loopback names only."""
    name = socket.gethostname().lower()
    return {*LOOPBACK} if is_local else {*LOOPBACK, name, f"{name}.local"}


class OriginMiddleware:
    """Rejects requests under a foreign `Host` name or from a foreign site, and adds security headers to all responses.

    A name that is neither the server's own nor allowed is a sign of DNS rebinding. Rebinding needs a name, so a public server also answers
    to plain addresses. `allowed_names` are in lower case and may grow while the server runs. Browsers send `Origin` with every request that
    changes something, and `Sec-Fetch-Site` with all requests; only links may come from other sites.
    """

    def __init__(self, app: Any, allowed_names: set[str], is_local: bool, headers: list[tuple[bytes, bytes]]) -> None:
        self.app, self.allowed_names, self.is_local, self.headers = app, allowed_names, is_local, headers
        self.own_names = list_own_names(is_local)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with 403 to a foreign request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_secured(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
            await send(message)

        headers = read_headers(scope)
        if not self.is_own_name(headers.get("host", "")) or self.is_foreign(scope["method"], headers):
            await send_text(send_secured, 403, FORBIDDEN_MESSAGE)
        else:
            await self.app(scope, receive, send_secured)

    def is_own_name(self, host: str) -> bool:
        """Return whether a `Host` header names this server."""
        name = _parse_host_name(f"//{host}")
        return name in self.own_names | self.allowed_names or (not self.is_local and _is_address(name))

    def is_foreign(self, method: str, headers: dict[str, str]) -> bool:
        """Return whether another site sends the request. Behind a proxy that changes `Host`, the origin is an allowed name."""
        origin, host = headers.get("origin", ""), headers.get("host", "")
        if origin and origin.partition("://")[2].lower() != host.lower() and _parse_host_name(origin) not in self.allowed_names:
            return True
        is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link


def _parse_host_name(address: str) -> str:
    """Return the host name of an address in lower case; an empty string without one."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # for example an unclosed bracket
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class RouteMiddleware:
    """Closes all routes but those that the page uses, and all files but those in the upload folder, where Gradio copies what a page shows.

    Gradio's file route would also serve the projects of other people to anyone with the path, and fetch addresses of other hosts.
    """

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond with 404 to other requests."""
        if scope["type"] != "http" or self.is_open(scope["method"], scope["path"], scope["query_string"]):
            await self.app(scope, receive, send)
        else:
            await send_text(send, 404, "not found")

    def is_open(self, method: str, path: str, query: bytes) -> bool:
        """Return whether the page sends such requests."""
        parameters = {name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
        return self.is_open_route(method, path) and self.is_open_file(path) and not parameters & CLOSED_PARAMETERS

    def is_open_route(self, method: str, path: str) -> bool:
        """Return whether the page uses this route."""
        return any(method in methods and re.fullmatch(each, path) for methods, patterns in ROUTES.items() for each in patterns)

    def is_open_file(self, path: str) -> bool:
        """Return whether a path of the file route leads into the upload folder, after all links; true for other routes."""
        _, is_file_route, file = path.partition("/file=")
        try:
            return not is_file_route or Path(file).resolve().is_relative_to(self.folder)
        except (OSError, ValueError):  # too long, or with a zero byte
            return False
