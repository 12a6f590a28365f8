"""Small parts of the page: messages, numbers, and answers that are worked out once."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from lora_edit.errors import InputError

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

import gradio as gr

from lora_edit.ui.components import AppState, catch_errors, parse_integer, render_messages, simplify_message
from lora_edit.ui.projects import ProjectStore
from lora_edit.ui.single_flight import single_flight_cache


def test_messages_name_no_file_of_the_server_and_no_flag() -> None:
    kept = "/srv/runs/0123/given/0123456789ab.mp4"
    assert simplify_message(f"{kept}: the mask has 3 frames but the clip has 5") == "the mask has 3 frames but the clip has 5"
    assert simplify_message("/srv/runs/frame_00000.png: no picture") == "frame_00000.png: no picture"
    assert simplify_message("the box is empty; give another with --box") == "the box is empty"
    assert (
        simplify_message("--set rubbish: write section.setting=value, or name=value")
        == "rubbish: write section.setting=value, or name=value"
    )


def test_messages_are_text_not_markup() -> None:
    assert "<img" not in render_messages("<img src=x onerror=alert(1)>.mp4: no video", "fault")


@pytest.mark.parametrize(("value", "words"), [(None, "empty"), (2.5, "not 2.5"), (-1, "not -1"), (1e9, "not 1e"), (math.nan, "not nan")])
def test_a_number_out_of_its_range_is_told_with_the_range(value: float | None, words: str) -> None:
    with pytest.raises(InputError, match=f"^the frame is a whole number from 0 to 9.*{words}"):
        parse_integer(value, 0, 9, "the frame")


def test_who_asks_while_an_answer_is_worked_out_waits_for_it() -> None:
    asked, gate, answers = [], threading.Event(), []

    @single_flight_cache(2)
    def answer(key: str) -> str:
        asked.append(key)
        assert gate.wait(10)
        return key.upper()

    people = [threading.Thread(target=lambda: answers.append(answer("a"))) for _ in range(3)]
    for person in people:
        person.start()
    gate.set()
    for person in people:
        person.join(10)
    assert (asked, answers) == (["a"], ["A"] * 3)
    assert [answer("b"), answer("c"), answer("a")] == ["B", "C", "A"], "the oldest is forgotten"
    assert asked == ["a", "b", "c", "a"]


def test_a_failure_is_not_kept() -> None:
    tried = []

    @single_flight_cache(1)
    def answer(key: str) -> str:
        tried.append(key)
        if len(tried) == 1:
            raise InputError("not yet")
        return key

    with pytest.raises(InputError):
        answer("a")
    assert answer("a") == "a"


def test_a_viewer_is_told_which_question_it_is_answered(tmp_path: Path) -> None:
    """Other answers carry no number, and an answer that leaves the viewer alone nothing for it."""
    view = "view"
    office = AppState(ProjectStore(tmp_path))
    question = gr.EventData(None, {"frame": 3, "ask": 7})
    show = catch_errors(office, lambda *args: {view: {"frame": 3}}, "fault", view)
    assert show("name", question)[view] == {"frame": 3, "ask": 7} and show("name")[view] == {"frame": 3}
    assert view not in catch_errors(office, lambda *args: {"other": 1}, "fault", view)("name", question)
    assert catch_errors(office, lambda *args: {view: None}, "fault", view)("name", question)[view] is None
