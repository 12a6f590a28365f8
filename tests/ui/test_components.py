"""Components shared by the page's steps: messages, numbers and viewer responses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lora_edit.errors import InputError

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

import gradio as gr

from lora_edit.ui.components import AppState, catch_errors, parse_integer, render_messages, simplify_message
from lora_edit.ui.projects import ProjectStore


def test_messages_contain_no_server_paths_and_no_flags() -> None:
    stored_file = "/srv/runs/0123/given/0123456789ab.mp4"
    assert simplify_message(f"{stored_file}: the mask has 3 frames but the clip has 5") == "the mask has 3 frames but the clip has 5"
    assert simplify_message("/srv/runs/frame_00000.png: no picture") == "frame_00000.png: no picture"
    assert simplify_message("the box is empty; give another with --box") == "the box is empty"
    assert (
        simplify_message("--set rubbish: write section.setting=value, or name=value")
        == "rubbish: write section.setting=value, or name=value"
    )


def test_messages_are_escaped() -> None:
    assert "<img" not in render_messages("<img src=x onerror=alert(1)>.mp4: no video", "fault")


@pytest.mark.parametrize(("value", "message"), [(None, "empty"), (2.5, "not 2.5"), (-1, "not -1"), (1e9, "not 1e"), (math.nan, "not nan")])
def test_an_invalid_number_raises_with_its_range(value: float | None, message: str) -> None:
    with pytest.raises(InputError, match=f"^the frame is a whole number from 0 to 9.*{message}"):
        parse_integer(value, 0, 9, "the frame")


def test_viewer_updates_carry_the_request_number(tmp_path: Path) -> None:
    """Updates without a request number carry none, and other updates leave the viewer unchanged."""
    view = "view"
    app_state = AppState(ProjectStore(tmp_path))
    request = gr.EventData(None, {"frame": 3, "ask": 7})
    show = catch_errors(app_state, lambda *args: {view: {"frame": 3}}, "fault", view)
    assert show("name", request)[view] == {"frame": 3, "ask": 7} and show("name")[view] == {"frame": 3}
    assert view not in catch_errors(app_state, lambda *args: {"other": 1}, "fault", view)("name", request)
    assert catch_errors(app_state, lambda *args: {view: None}, "fault", view)("name", request)[view] is None
