"""What the server takes in: large requests and files that are no media are refused early, and uploads that are cut off leave nothing."""

from __future__ import annotations

import http.client
import os
import time
import urllib.parse
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from lora_edit.ui.uploads import MAX_REQUEST_BYTES, MAX_UNKNOWN_FILE_BYTES, SIGNATURE_BYTES, create_upload_folder, is_media
from lora_edit.video.write import FORMATS, write_video
from video.clips import make_clip

BEGIN = b'--x\r\nContent-Disposition: form-data; name="files"; filename="long.mp4"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def begun(server: str, path: str, headers: dict[str, str], length: int) -> http.client.HTTPConnection:
    """A request of so many bytes, of which none are sent yet."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server).netloc, timeout=20)
    connection.putrequest("POST", "/gradio_api/" + path)
    for name, value in {**headers, "Content-Length": str(length)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def parts(server: str) -> list[Path]:
    """Parts of files in the server's folder of uploads."""
    assert server
    return list(Path(os.environ["GRADIO_TEMP_DIR"]).glob("tmp*"))


@pytest.mark.parametrize("path", ["queue/join", "run/predict", "component_server"])
def test_a_large_request_is_refused_before_it_is_read(server: str, path: str) -> None:
    answer = begun(server, path, {"Content-Type": "application/json"}, 300_000_000).getresponse()
    assert answer.status == 413
    assert answer.read() == b"this request is too large"


def test_a_request_that_does_not_say_how_large_it_is_is_read_up_to_the_limit(server: str) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server).netloc, timeout=20)
    pieces = (b"x" * 65536 for _ in range(MAX_REQUEST_BYTES // 65536 + 2))
    connection.request("POST", "/gradio_api/queue/join", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 413


def test_a_large_file_that_is_no_media_is_refused_by_its_first_bytes(server: str) -> None:
    connection = begun(server, "upload", FORM, 2_000_000_000)
    connection.send(BEGIN + b"no video at all " * (SIGNATURE_BYTES // 16))
    answer = connection.getresponse()
    assert answer.status == 415
    assert answer.read().decode() == "long.mp4 is neither a video nor a picture, by its first bytes; export it as MP4 or PNG"
    assert begun(server, "upload", FORM, 5_000_000_000).getresponse().status == 413


def test_an_upload_that_is_cut_off_leaves_nothing(server: str) -> None:
    before = parts(server)
    connection = begun(server, "upload", FORM, 2 * MAX_UNKNOWN_FILE_BYTES)
    connection.send(BEGIN + b"\0\0\0\x18ftypmp42" + bytes(3_000_000))
    wait_until(lambda: len(parts(server)) > len(before))
    connection.close()
    wait_until(lambda: parts(server) == [])


def wait_until(true: object) -> None:
    """Look until it is, for a while."""
    assert callable(true)
    for _ in range(100):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it never came")


def test_what_an_ended_server_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    first, lock = create_upload_folder()
    (first / "tmp1234").write_bytes(b"left")
    second, _ = create_upload_folder()
    assert first.is_dir(), "its server still runs"
    lock.close()
    third, _ = create_upload_folder()
    assert not first.exists() and second.is_dir() and third.is_dir()


@pytest.mark.parametrize("ending", [*FORMATS, ".gif"])
def test_clips_of_every_kind_look_like_media(tmp_path: Path, ending: str) -> None:
    write_video(tmp_path / f"clip{ending}", make_clip())
    assert is_media((tmp_path / f"clip{ending}").read_bytes()[:SIGNATURE_BYTES])
    assert not is_media(b"%PDF-1.7") and not is_media(b"PK\3\4")
