"""Checks of the requests of events, before Gradio reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from lora_edit.ui.event_requests import MAX_DEPTH, is_valid_event


def build_event(**changes: Any) -> bytes:
    return json.dumps({"fn_index": 3, "session_hash": "k2j9x0a", "data": ["", 1.5, None, {"path": "/uploads/a.mp4"}], **changes}).encode()


def test_events_of_the_page_are_valid() -> None:
    stroke = [[0.5 * number, 3] for number in range(4000)]
    assert is_valid_event(build_event(), {3})
    assert is_valid_event(build_event(event_data={"kind": "paint", "stroke": stroke}, trigger_id=7), {3})
    assert is_valid_event(build_event(data=[{"path": "C:\\Users\\a\\clip.mp4", "url": "http://127.0.0.1:7860/gradio_api/file=a"}]), {3})
    assert is_valid_event(b'{"event_id": "a"}', {3})


@pytest.mark.parametrize(
    "body",
    [
        build_event(fn_index=4),
        build_event(fn_index=-1),
        build_event(fn_index="3"),
        build_event(fn_index=3.0),
        build_event(fn_index=True),
        build_event(session_hash="a" * 65),
        build_event(session_hash="../a"),
        build_event(session_hash=["a"]),
        build_event(data=[{"path": "http://127.0.0.1:1/a.mp4"}]),
        build_event(data=[[{"file": {"path": " HTTPS://example.org/a.mp4"}}]]),
        build_event(data=[{"path": "file:///etc/passwd"}]),
        build_event(data=[{"path": "//example.org/a"}]),
        build_event(data=[{"path": "\\\\example.org\\a"}]),
        build_event(data=[float("nan")]),
        b'{"session_hash": "a", "data": [1e999]}',
        b'{"session_hash": "a", "data": [' + b"9" * 5000 + b"]}",
        b'{"session_hash": "a", "data": ' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
        b"[" * 500_000,
        b"[]",
        b"null",
        b"",
        b"\xff\xfe",
    ],
)
def test_other_events_are_rejected(body: bytes) -> None:
    assert not is_valid_event(body, {1, 3})
