"""Limits on requests and uploads: early rejection, and deletion of interrupted uploads."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from lora_edit.ui import uploads
from lora_edit.ui.event_requests import MAX_REQUEST_BYTES
from lora_edit.ui.uploads import MAX_UNKNOWN_FILE_BYTES, SIGNATURE_BYTES, UploadMiddleware, create_upload_folder, is_media
from lora_edit.video.formats import FORMATS
from lora_edit.video.write import write_video
from ui.waiting import wait_until
from video.clips import make_clip

FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="long.mp4"\r\n\r\n'
FORM_HEADERS = {"Content-Type": "multipart/form-data; boundary=x"}


def open_request(server: str, path: str, headers: dict[str, str], length: int) -> http.client.HTTPConnection:
    """Open a request that declares `length` bytes and send its headers only."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server).netloc, timeout=240)
    connection.putrequest("POST", "/gradio_api/" + path)
    for name, value in {**headers, "Content-Length": str(length)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def list_partial_files(server: str) -> list[Path]:
    """List the partial files in the server's upload folder."""
    assert server
    return list(Path(os.environ["GRADIO_TEMP_DIR"]).glob("tmp*"))


@pytest.mark.parametrize("path", ["queue/join", "cancel"])
def test_a_large_request_is_rejected_before_its_body_is_read(server: str, path: str) -> None:
    response = open_request(server, path, {"Content-Type": "application/json"}, 300_000_000).getresponse()
    assert response.status == 413
    assert response.read() == b"this request is too large"


def test_a_request_without_a_length_is_read_up_to_the_limit(server: str) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server).netloc, timeout=240)
    pieces = (b"x" * 65536 for _ in range(MAX_REQUEST_BYTES // 65536 + 2))
    connection.request("POST", "/gradio_api/queue/join", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 413


def test_a_large_file_without_a_media_signature_is_rejected(server: str) -> None:
    connection = open_request(server, "upload", FORM_HEADERS, 2_000_000_000)
    connection.send(FORM_HEAD + b"no video at all " * (SIGNATURE_BYTES // 16))
    response = connection.getresponse()
    assert response.status == 415
    assert response.read().decode() == "long.mp4 is neither a video nor a picture, according to its first bytes; export it as MP4 or PNG"
    assert open_request(server, "upload", FORM_HEADERS, 5_000_000_000).getresponse().status == 413


def test_an_interrupted_upload_leaves_no_files(server: str) -> None:
    before = list_partial_files(server)
    connection = open_request(server, "upload", FORM_HEADERS, 2 * MAX_UNKNOWN_FILE_BYTES)
    connection.send(FORM_HEAD + b"\0\0\0\x18ftypmp42" + bytes(3_000_000))
    wait_until(lambda: len(list_partial_files(server)) > len(before))
    connection.close()
    wait_until(lambda: list_partial_files(server) == [])


def test_folders_of_stopped_servers_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    first, lock = create_upload_folder()
    (first / "tmp1234").write_bytes(b"left")
    second, _ = create_upload_folder()
    assert first.is_dir(), "its server is still running"
    lock.release()
    third, _ = create_upload_folder()
    assert not first.exists() and second.is_dir() and third.is_dir()


@pytest.mark.parametrize("ending", [*FORMATS, ".gif"])
def test_every_video_format_has_a_media_signature(tmp_path: Path, ending: str) -> None:
    write_video(tmp_path / f"clip{ending}", make_clip())
    assert is_media((tmp_path / f"clip{ending}").read_bytes()[:SIGNATURE_BYTES])
    assert not is_media(b"%PDF-1.7") and not is_media(b"PK\3\4")


class FormApp:
    """An app that reads a form to its end and leaves a partial file, as Gradio does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.num_bytes = folder, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        (self.folder / "tmpabc").write_bytes(b"partial")
        while True:
            message = await receive()
            self.num_bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def upload(app: UploadMiddleware, *pieces: bytes, length: int | None = None, pause: float = 0.0, client: str = "192.0.2.1") -> int:
    """Upload a form in pieces; returns the status."""
    statuses: list[int] = []
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    headers += [] if length is None else [(b"content-length", str(length).encode())]
    remaining = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    remaining.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        return remaining.pop(0)

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers, "client": (client, 1)}
    asyncio.run(app(scope, receive, send))
    return statuses[0]


VIDEO_FORM = FORM_HEAD + b"\0\0\0\x18ftypmp42" + bytes(1000)


@pytest.fixture
def app(tmp_path: Path) -> UploadMiddleware:
    """The limits before an app that reads everything."""
    return UploadMiddleware(FormApp(tmp_path), tmp_path)


def test_a_form_with_one_file_passes(app: UploadMiddleware, tmp_path: Path) -> None:
    assert upload(app, VIDEO_FORM, bytes(100_000), b"\r\n--x--\r\n") == 200
    assert app.app.num_bytes == len(VIDEO_FORM) + 100_000 + 9
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.parametrize("split", [1, 7, 1000])
def test_a_second_part_is_found_wherever_the_pieces_end(app: UploadMiddleware, split: int) -> None:
    form = VIDEO_FORM + b"\r\n" + VIDEO_FORM + b"\r\n--x--\r\n"
    assert upload(app, *(form[start : start + split] for start in range(0, len(form), split))) == 400


def test_a_field_that_is_no_file_is_rejected(app: UploadMiddleware) -> None:
    assert upload(app, b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n', bytes(100_000)) == 400
    assert app.app.num_bytes == 0


@pytest.mark.parametrize(("head", "status"), [(VIDEO_FORM, 413), (FORM_HEAD + b"no video" * 100, 415)])
def test_an_upload_without_a_length_is_limited(app: UploadMiddleware, monkeypatch: pytest.MonkeyPatch, head: bytes, status: int) -> None:
    monkeypatch.setattr(uploads, "MAX_UNKNOWN_FILE_BYTES", 50_000)
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 100_000)
    assert upload(app, head, *[bytes(10_000)] * 20) == status
    assert app.app.num_bytes <= 110_000


def test_a_slow_upload_is_ended(app: UploadMiddleware, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(uploads, "MAX_IDLE_SECONDS", 0.05)
    assert upload(app, VIDEO_FORM, pause=0.3) == 408
    monkeypatch.setattr(uploads, "MIN_BYTES_PER_SECOND", 10**6)
    assert upload(app, VIDEO_FORM, *[b"a"] * 100, pause=0.01) == 408
    assert not list(tmp_path.glob("tmp*")) and not app.active_uploads


def test_a_full_disk_is_told_before_the_upload(app: UploadMiddleware, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(app.folder).free
    monkeypatch.setattr(uploads, "MIN_FREE_BYTES", free - 10**6)
    assert upload(app, VIDEO_FORM, length=free // 2) in (413, 507)
    monkeypatch.setattr(uploads, "MIN_FREE_BYTES", 2 * free)
    assert upload(app, VIDEO_FORM) == 507
    assert app.app.num_bytes == 0


def test_uploads_at_once_are_limited_by_address(app: UploadMiddleware) -> None:
    app.active_uploads.update({"192.0.2.1": uploads.MAX_UPLOADS_OF_ADDRESS})
    assert upload(app, VIDEO_FORM) == 503
    assert upload(app, VIDEO_FORM, client="192.0.2.2") == 200
    app.active_uploads.update({f"198.51.100.{number}": 1 for number in range(uploads.MAX_UPLOADS)})
    assert upload(app, VIDEO_FORM, client="192.0.2.2") == 503


def test_partial_files_of_dead_uploads_are_deleted_while_others_are_active(app: UploadMiddleware, tmp_path: Path) -> None:
    app.active_uploads.update({"192.0.2.9": 1})
    for name, age in (("tmpold", 3600), ("tmpnew", 0)):
        (tmp_path / name).write_bytes(b"partial")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert upload(app, VIDEO_FORM) == 200
    assert not (tmp_path / "tmpold").exists() and (tmp_path / "tmpnew").exists()
