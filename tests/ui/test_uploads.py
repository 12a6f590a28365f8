"""Limits on requests and uploads: early rejection, and deletion of interrupted uploads."""

from __future__ import annotations

import http.client
import os
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from lora_edit.ui.uploads import MAX_REQUEST_BYTES, MAX_UNKNOWN_FILE_BYTES, SIGNATURE_BYTES, create_upload_folder, is_media
from lora_edit.video.formats import FORMATS
from lora_edit.video.write import write_video
from video.clips import make_clip

FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="long.mp4"\r\n\r\n'
FORM_HEADERS = {"Content-Type": "multipart/form-data; boundary=x"}


def open_request(server: str, path: str, headers: dict[str, str], length: int) -> http.client.HTTPConnection:
    """Open a request that declares `length` bytes and send its headers only."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server).netloc, timeout=20)
    connection.putrequest("POST", "/gradio_api/" + path)
    for name, value in {**headers, "Content-Length": str(length)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def list_partial_files(server: str) -> list[Path]:
    """List the partial files in the server's upload folder."""
    assert server
    return list(Path(os.environ["GRADIO_TEMP_DIR"]).glob("tmp*"))


@pytest.mark.parametrize("path", ["queue/join", "run/predict", "component_server"])
def test_a_large_request_is_rejected_before_its_body_is_read(server: str, path: str) -> None:
    response = open_request(server, path, {"Content-Type": "application/json"}, 300_000_000).getresponse()
    assert response.status == 413
    assert response.read() == b"this request is too large"


def test_a_request_without_a_length_is_read_up_to_the_limit(server: str) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server).netloc, timeout=20)
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


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait up to ten seconds for the condition."""
    for _ in range(100):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("the condition never became true")


def test_folders_of_stopped_servers_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    first, lock = create_upload_folder()
    (first / "tmp1234").write_bytes(b"left")
    second, _ = create_upload_folder()
    assert first.is_dir(), "its server is still running"
    lock.close()
    third, _ = create_upload_folder()
    assert not first.exists() and second.is_dir() and third.is_dir()


@pytest.mark.parametrize("ending", [*FORMATS, ".gif"])
def test_every_video_format_has_a_media_signature(tmp_path: Path, ending: str) -> None:
    write_video(tmp_path / f"clip{ending}", make_clip())
    assert is_media((tmp_path / f"clip{ending}").read_bytes()[:SIGNATURE_BYTES])
    assert not is_media(b"%PDF-1.7") and not is_media(b"PK\3\4")
