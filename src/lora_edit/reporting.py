"""How long work tells a person where it is; the command line and the page each bring their own."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives remarks and progress."""

    def note(self, text: str) -> None:
        """A remark for the person."""
        ...

    def step(self, stage: str, done: int, total: int, detail: str = "", left: float | None = None) -> None:
        """Progress of a named stage; `left` are the seconds left, where the caller knows more than the pace so far tells."""
        ...


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Drop the remark."""

    def step(self, stage: str, done: int, total: int, detail: str = "", left: float | None = None) -> None:
        """Drop the progress."""
