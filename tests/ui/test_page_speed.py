"""Response time of the page, measured in the browser; `benchmarks/page_speed.py` prints all figures."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from ui.person import Person
from ui.rendered import write

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]

REFERENCE_SECONDS = 0.1
"""Seconds of `measure_reference` on two free cores. A click takes a third of a second there (docs/benchmarks/page.md)."""

COUNT = """() => { const start = performance.now(); let sum = 0;
  for (let number = 0; number < 1e7; number++) sum = (sum + number * 7) % 1000003;
  return (performance.now() - start) / 1000 + 0 * sum; }"""
"""Script: seconds of a fixed calculation in the browser."""


def test_a_click_shows_its_mask_within_a_second(visit: Visit, folder: Path) -> None:
    """On a 1280x720 clip: from the mouse button to the picture with the overlay, measured in the browser.

    The second is that of a free machine. On a busy one the limit grows with the time of a fixed calculation, measured around the clicks.
    """
    source, _ = write(folder, frames=9, height=720, width=1280)
    person = Person(visit())
    person.brings_a_clip(source)
    rounds: list[tuple[float, float]] = []
    while not rounds or (not is_fast(*rounds[-1]) and len(rounds) < 5):
        before = measure_reference(person)
        seconds = statistics.median(measure_click(person, 0.28 + 0.01 * number) for number in range(3))
        rounds.append((seconds, max(before, measure_reference(person))))
    assert is_fast(*rounds[-1]), rounds


def is_fast(seconds: float, reference: float) -> bool:
    """Return whether a click took less than a second, or less than a busy machine's equivalent."""
    return seconds < max(1.0, reference / REFERENCE_SECONDS)


def measure_reference(person: Person) -> float:
    """Measure the seconds of a fixed calculation, half in the server's process and half in the browser."""
    start = time.perf_counter()
    hashlib.blake2b(bytes(25_000_000))
    return time.perf_counter() - start + float(person.page.evaluate(COUNT))


def measure_click(person: Person, x: float) -> float:
    """Click and remove the mark again; returns the seconds until the overlay is drawn."""
    person.clicks_at(x, 0.5)
    seconds = float(person.page.evaluate("document.querySelector('#region-view .viewer').dataset.seconds"))
    person.presses("region-last")
    return seconds
