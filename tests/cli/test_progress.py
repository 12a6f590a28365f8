"""Progress reporters for logs and for terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lora_edit.cli.output import convert_to_json, replace_control_characters
from lora_edit.cli.progress import BarReporter, PlainReporter, format_bytes, format_seconds


def test_plain_reporter_prints_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    for done in range(1, 201):
        reporter.step("motion", done, 200, f"loss {done}")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 11
    assert lines[0] == "motion 1/200, loss 1"
    assert lines[-1] == "motion 200/200, loss 200"
    assert "left" in lines[5]


def test_reported_time_left_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    reporter.step("methods", 0, 4)
    reporter.step("methods", 1, 4, "swan", 90.0)
    reporter.step("methods", 4, 4, "duck", 0.0)
    assert capsys.readouterr().err.splitlines() == ["methods 0/4", "methods 1/4, swan, 2 min left", "methods 4/4, duck"]
    screen = io.StringIO()
    bars = BarReporter(Console(file=screen, force_terminal=True, width=120))
    with bars.progress:
        bars.step("methods", 1, 4, "swan", 9000.0)
    assert "2 h 30 min" in screen.getvalue()


def test_notes_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    for text in ("one", "two", "one"):
        reporter.note(text)
    assert capsys.readouterr().err == "note: one\nnote: two\n"


def test_bar_reporter_shows_stages_and_notes() -> None:
    screen = io.StringIO()
    reporter = BarReporter(Console(file=screen, force_terminal=True, width=120))
    with reporter.progress:
        reporter.step("motion", 1, 4, "loss [0.5]")
        reporter.note("mind [bold]the gap")
        reporter.step("motion", 4, 4)
    shown = screen.getvalue()
    assert "mind [bold]the gap" in shown
    assert "motion" in shown
    assert "4/4" in shown


def test_format_seconds_and_bytes() -> None:
    assert [format_seconds(s) for s in (0.4, 59, 90, 3600, 11100)] == ["0 s", "59 s", "2 min", "1 h 00 min", "3 h 05 min"]
    assert [format_bytes(n) for n in (850e6, 12.44e9)] == ["850 MB", "12.4 GB"]


def test_convert_to_json_replaces_infinity() -> None:
    assert convert_to_json({"psnr": float("inf"), "pair": (1, float("nan"))}) == {"psnr": None, "pair": [1, None]}


def test_replace_control_characters() -> None:
    assert "\x1b" not in replace_control_characters("\x1b[31mred")
