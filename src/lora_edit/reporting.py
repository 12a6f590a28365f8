"""How long work tells a person where it is; the command line and the page each bring their own."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives remarks and progress."""

    def note(self, text: str) -> None:
        """A remark for the person."""
        ...

    def step(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Progress of a named stage."""
        ...


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Drop the remark."""

    def step(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Drop the progress."""
