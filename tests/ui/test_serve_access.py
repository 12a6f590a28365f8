"""Access control of the server: files, projects and origins."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lora_edit.ui.access import OriginMiddleware, build_headers
from lora_edit.ui.projects import Project, ProjectStore


@pytest.fixture
def foreign_project(projects: Path) -> Project:
    """A project of another person."""
    project = ProjectStore(projects).create_project()
    project.update_state(prompt="a secret")
    (projects / "page.log").write_text(f"failed in {project.id}")
    return project


def get_status(address: str | urllib.request.Request) -> int:
    """Return the status of the response."""
    try:
        with urllib.request.urlopen(address, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def list_paths(foreign_project: Project) -> list[str]:
    runs = foreign_project.path.parent
    return [
        "/etc/passwd",
        "../../../../../../../../etc/passwd",
        f"{runs}/../../../../../../etc/passwd",
        str(runs),
        f"{runs}/page.log",
        f"{runs}/./x/../page.log",
        f"{foreign_project.path}/states.json",
        f"{foreign_project.path.parent}/{'0' * 32}/states.json",
        "http://127.0.0.1:1/",
        "pyproject.toml",
        "file:///etc/passwd",
    ]


@pytest.mark.parametrize("quote", [lambda path: path, lambda path: urllib.parse.quote(path, safe="")])
def test_only_files_copied_for_a_page_are_served(server: str, foreign_project: Project, quote: Any) -> None:
    statuses = {path: get_status(f"{server}gradio_api/file={quote(path)}") for path in list_paths(foreign_project)}
    assert set(statuses.values()) <= {403, 404}, statuses


@pytest.mark.parametrize("path", ["static/../../../../etc/passwd", "assets/..%2f..%2f..%2f..%2fetc%2fpasswd", "file=/etc/passwd", "runs/"])
def test_other_routes_are_closed(server: str, path: str) -> None:
    assert get_status(server + path) in (403, 404)


def send(server: str, elem_id: str, event: str, *data: Any) -> str:
    """Send an event of an element as a page's script does; returns the response as text."""
    with urllib.request.urlopen(f"{server}config", timeout=60) as response:
        config = json.load(response)
    element = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == elem_id)
    call = next(each["id"] for each in config["dependencies"] if [element, event] in [list(target) for target in each["targets"]])
    body = {"fn_index": call, "session_hash": "abcdefghij", "data": list(data)}
    request = urllib.request.Request(f"{server}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60):
        pass
    with urllib.request.urlopen(f"{server}gradio_api/queue/data?session_hash=abcdefghij", timeout=60) as stream:
        for line in stream:
            if b"process_completed" in line:
                return str(line.decode())
    raise AssertionError("no response")


def test_a_page_cannot_import_files_of_the_server(server: str, projects: Path, foreign_project: Project) -> None:
    before = set(projects.iterdir())
    for path in ("/etc/passwd", str(foreign_project.path / "states.json")):
        response = send(server, "clip-file", "upload", "", {"path": path, "meta": {"_type": "gradio.FileData"}})
        assert '"success":false' in response, response
    assert set(projects.iterdir()) == before


@pytest.mark.parametrize("name", ["../" + "0" * 32, "..", "", "0" * 32])
def test_a_project_opens_by_its_full_name_only(server: str, foreign_project: Project, name: str) -> None:
    response = send(server, "undo", "click", name, 0)
    assert "this project does not exist" in response
    assert "a secret" not in response
    assert "a secret" in send(server, "redo", "click", foreign_project.id, 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_requests_of_other_sites_are_rejected(server: str, headers: dict[str, str], status: int) -> None:
    request = urllib.request.Request(f"{server}config", headers=headers)
    assert get_status(request) == status


def test_uploads_of_other_sites_are_rejected(server: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\nabc\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x", "Origin": "https://evil.example"}
    assert get_status(urllib.request.Request(f"{server}gradio_api/upload", body, kind)) == 403


def test_responses_have_security_headers(server: str) -> None:
    with urllib.request.urlopen(server, timeout=60) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["X-Frame-Options"] == "SAMEORIGIN"


class EchoApp:
    """An app that answers every request, and records the paths."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})


def request(app: Any, path: str = "/", method: str = "GET", body: bytes = b"", client: str = "192.0.2.1", **headers: str) -> dict[str, Any]:
    """Return status, headers and body of a response."""
    messages: list[dict[str, Any]] = []
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": pairs, "client": (client, 1)}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    asyncio.run(app(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return {"status": messages[0]["status"], "headers": answered, "body": b"".join(each.get("body", b"") for each in messages)}


@pytest.mark.parametrize(
    ("is_local", "headers", "status"),
    [
        (False, {"host": "192.168.1.5:7860", "origin": "http://192.168.1.5:7860"}, 200),
        (False, {"host": "[fd00::1]:7860", "origin": "http://[fd00::1]:7860"}, 200),
        (False, {"host": f"{socket.gethostname()}:7860"}, 200),
        (False, {"host": "edit.example", "origin": "https://edit.example"}, 200),
        (False, {"host": "127.0.0.1:7860", "origin": "https://edit.example", "sec_fetch_site": "same-origin"}, 200),  # behind a proxy
        (False, {"host": "evil.example", "origin": "http://evil.example"}, 403),  # DNS rebinding
        (False, {"host": "192.168.1.5:7860", "origin": "https://evil.example"}, 403),
        (False, {"host": "192.168.1.5:7860", "origin": "http://192.168.1.5:8080"}, 403),
        (False, {"host": "192.168.1.5:7860", "origin": "null"}, 403),
        (False, {"host": "192.168.1.5:7860", "sec_fetch_site": "cross-site"}, 403),
        (False, {"host": "edit.example.evil.example"}, 403),
        (True, {"host": "[::1]:7860", "origin": "http://[::1]:7860"}, 200),
        (True, {"host": "localhost:7860", "origin": "http://localhost:3000"}, 403),
        (True, {"host": "192.168.1.5:7860"}, 403),
        (True, {"host": ""}, 403),
        (True, {}, 403),
    ],
)
def test_a_server_answers_under_its_own_and_allowed_names_only(is_local: bool, headers: dict[str, str], status: int) -> None:
    app = OriginMiddleware(EchoApp(), {"edit.example"}, is_local, build_headers(()))
    assert request(app, **headers)["status"] == status


@pytest.mark.parametrize(
    ("sites", "ancestors", "frame_options"),
    [((), "frame-ancestors 'self'", "SAMEORIGIN"), (("https://huggingface.co",), "frame-ancestors 'self' https://huggingface.co", None)],
)
def test_only_named_sites_may_embed_the_page(sites: tuple[str, ...], ancestors: str, frame_options: str | None) -> None:
    headers = request(OriginMiddleware(EchoApp(), set(), True, build_headers(sites)), host="localhost")["headers"]
    assert ancestors in headers["content-security-policy"].split("; ")
    assert headers.get("x-frame-options") == frame_options


def test_a_notebook_of_any_address_may_embed_the_page() -> None:
    headers = dict(build_headers(None))
    assert b"frame-ancestors" not in headers[b"content-security-policy"] and b"x-frame-options" not in headers
