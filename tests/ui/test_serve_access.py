"""Access control of the server: files, projects and origins."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lora_edit.ui.projects import Project, ProjectStore
from lora_edit.ui.serve import OriginMiddleware


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
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_a_public_server_accepts_any_host_name() -> None:
    assert not OriginMiddleware(None, local=False).is_foreign("edit.example", "https://edit.example")
    assert not OriginMiddleware(None, local=True).is_foreign("[::1]:7860", "http://[::1]:7860")
