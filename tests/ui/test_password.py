"""The optional password of the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from lora_edit.errors import SettingsError
from lora_edit.ui import password
from lora_edit.ui.password import MAX_ATTEMPTS, MAX_ATTEMPTS_OF_ALL, PASSWORD_VARIABLE, PasswordMiddleware, read_password
from ui.test_serve_access import EchoApp, request

WORDS = "correct horse"


def sign_in(app: Any, given: str, **options: Any) -> dict[str, Any]:
    """Send the form."""
    return request(app, "/login", "POST", f"password={given.replace(' ', '+')}".encode(), **options)


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/upload", "/gradio_api/queue/data", "/gradio_api/file=/a", "/assets/a.js"])
def test_nothing_is_open_without_the_password(path: str) -> None:
    inside = EchoApp()
    for method in ("GET", "POST", "HEAD"):
        assert request(PasswordMiddleware(inside, WORDS), path, method)["status"] == 401
    assert inside.paths == []


def test_without_a_password_everything_is_open() -> None:
    assert request(PasswordMiddleware(EchoApp(), None), "/config")["body"] == b"inside"


def test_the_password_gives_a_cookie_that_scripts_and_other_sites_cannot_use() -> None:
    app = PasswordMiddleware(EchoApp(), WORDS)
    response = sign_in(app, WORDS)
    cookie, _, flags = response["headers"]["set-cookie"].partition("; ")
    assert response["status"] == 303 and response["headers"]["location"] == "./"
    assert flags == "Path=/; HttpOnly; SameSite=Lax"
    assert request(app, "/config", cookie=f"theme=dark; {cookie}")["body"] == b"inside"
    assert sign_in(app, WORDS, x_forwarded_proto="https")["headers"]["set-cookie"].endswith("; Secure")
    for forged in ("lora-edit=", "lora-edit=" + "0" * 64, cookie[:-1], cookie + "0", f"other-{cookie}"):
        assert request(app, "/config", cookie=forged)["status"] == 401
    assert request(PasswordMiddleware(EchoApp(), WORDS), "/config", cookie=cookie)["status"] == 401, "a cookie ends with its server"


def test_the_form_keeps_the_project_of_the_address() -> None:
    app = PasswordMiddleware(EchoApp(), WORDS)
    assert b'action="login?project=a&quot;&gt;&lt;b&gt;"' in request(app, '/?project=a"><b>')["body"]
    assert request(app, "/login?project=abc", "POST", b"password=correct+horse")["headers"]["location"] == "./?project=abc"


def test_guesses_are_limited_by_address_and_in_total(monkeypatch: pytest.MonkeyPatch) -> None:
    app = PasswordMiddleware(EchoApp(), WORDS)
    cookie = sign_in(app, WORDS)["headers"]["set-cookie"].partition(";")[0]
    statuses = [sign_in(app, f"guess {number}")["status"] for number in range(MAX_ATTEMPTS + 2)]
    assert statuses == [401] * MAX_ATTEMPTS + [429, 429]
    assert sign_in(app, WORDS)["status"] == 429, "else a guess could be told from a wait"
    assert sign_in(app, WORDS, client="192.0.2.2")["status"] == 303
    assert request(app, "/config", cookie=cookie)["status"] == 200
    others = [sign_in(app, "guess", client=f"198.51.100.{number}")["status"] for number in range(MAX_ATTEMPTS_OF_ALL)]
    assert others.count(401) == MAX_ATTEMPTS_OF_ALL - MAX_ATTEMPTS and others[-1] == 429


def test_guesses_count_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password, "ATTEMPT_PERIOD", 0.0)
    app = PasswordMiddleware(EchoApp(), WORDS)
    assert {sign_in(app, "guess")["status"] for _ in range(3 * MAX_ATTEMPTS)} == {401}


@pytest.mark.parametrize(
    "form", [b"", b"password", b"password=", b"\xff\xfe", b"password=" + b"a" * 10**6, b"user=a&word=b", b"password[]=a"]
)
def test_malformed_forms_are_wrong_passwords(form: bytes) -> None:
    assert request(PasswordMiddleware(EchoApp(), WORDS), "/login", "POST", form)["status"] == 401


def test_the_password_is_removed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, WORDS)
    assert read_password() == WORDS
    assert PASSWORD_VARIABLE not in os.environ and read_password() is None


@pytest.mark.parametrize("short", ["", "1234567"])
def test_a_short_password_is_rejected(monkeypatch: pytest.MonkeyPatch, short: str) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, short)
    with pytest.raises(SettingsError, match="use at least 8"):
        read_password()


def test_the_command_has_no_flag_for_the_password() -> None:
    """Other users of the computer can read the arguments of a command."""
    from lora_edit.cli import ui_command

    assert "--password" not in Path(ui_command.__file__).read_text("utf-8")
