"""What the server gives away: nothing outside of what was made for a page, and nothing of other people's."""

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
def theirs(projects: Path) -> Project:
    """Somebody else's project."""
    folder = ProjectStore(projects).create_project()
    folder.update_state(prompt="a secret")
    (projects / "page.log").write_text(f"failed in {folder.id}")
    return folder


def status(address: str | urllib.request.Request) -> int:
    """What the server answers with."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def paths(theirs: Project) -> list[str]:
    runs = theirs.path.parent
    return [
        "/etc/passwd",
        "../../../../../../../../etc/passwd",
        f"{runs}/../../../../../../etc/passwd",
        str(runs),
        f"{runs}/page.log",
        f"{runs}/./x/../page.log",
        f"{theirs.path}/states.json",
        f"{theirs.path.parent}/{'0' * 32}/states.json",
        "http://127.0.0.1:1/",
        "pyproject.toml",
        "file:///etc/passwd",
    ]


@pytest.mark.parametrize("quote", [lambda path: path, lambda path: urllib.parse.quote(path, safe="")])
def test_no_file_is_served_that_was_not_made_for_a_page(server: str, theirs: Project, quote: Any) -> None:
    answers = {path: status(f"{server}gradio_api/file={quote(path)}") for path in paths(theirs)}
    assert set(answers.values()) <= {403, 404}, answers


@pytest.mark.parametrize("path", ["static/../../../../etc/passwd", "assets/..%2f..%2f..%2f..%2fetc%2fpasswd", "file=/etc/passwd", "runs/"])
def test_other_routes_lead_nowhere(server: str, path: str) -> None:
    assert status(server + path) in (403, 404)


def send(server: str, elem_id: str, event: str, *given: Any) -> str:
    """Ask the server as a page's script would, for an event of an element; what it answers, as text."""
    with urllib.request.urlopen(f"{server}config", timeout=60) as answer:
        config = json.load(answer)
    element = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == elem_id)
    call = next(each["id"] for each in config["dependencies"] if [element, event] in [list(target) for target in each["targets"]])
    body = {"fn_index": call, "session_hash": "abcdefghij", "data": list(given)}
    asked = urllib.request.Request(f"{server}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60):
        pass
    with urllib.request.urlopen(f"{server}gradio_api/queue/data?session_hash=abcdefghij", timeout=60) as news:
        for line in news:
            if b"process_completed" in line:
                return str(line.decode())
    raise AssertionError("no answer")


def test_a_page_cannot_name_files_of_the_server_as_its_own(server: str, projects: Path, theirs: Project) -> None:
    before = set(projects.iterdir())
    for path in ("/etc/passwd", str(theirs.path / "states.json")):
        answer = send(server, "clip-file", "upload", "", {"path": path, "meta": {"_type": "gradio.FileData"}})
        assert '"success":false' in answer, answer
    assert set(projects.iterdir()) == before


@pytest.mark.parametrize("name", ["../" + "0" * 32, "..", "", "0" * 32])
def test_a_project_is_opened_by_its_whole_name_only(server: str, theirs: Project, name: str) -> None:
    answer = send(server, "undo", "click", name, 0)
    assert "this project is not here" in answer
    assert "a secret" not in answer
    assert "a secret" in send(server, "redo", "click", theirs.id, 0)


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, 200),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_sites_get_no_answer(server: str, headers: dict[str, str], answer: int) -> None:
    request = urllib.request.Request(f"{server}config", headers=headers)
    assert status(request) == answer


def test_another_sites_upload_is_not_stored(server: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\nabc\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x", "Origin": "https://evil.example"}
    assert status(urllib.request.Request(f"{server}gradio_api/upload", body, kind)) == 403


def test_browsers_are_told_to_guess_nothing_and_to_pass_nothing_on(server: str) -> None:
    with urllib.request.urlopen(server, timeout=60) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_a_page_for_others_answers_to_any_name() -> None:
    assert not OriginMiddleware(None, local=False).is_foreign("edit.example", "https://edit.example")
    assert not OriginMiddleware(None, local=True).is_foreign("[::1]:7860", "http://[::1]:7860")
