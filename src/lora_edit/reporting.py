"""How long work tells a person where it is; the command line and the page each bring their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


class Reporter(Protocol):
    """Receives remarks and progress."""

    def note(self, text: str) -> None:
        """A remark for the person."""
        ...

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Progress of a named stage; `left` are the seconds left, where the caller knows more than the pace so far tells."""
        ...


class SilentReporter:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Drop the remark."""

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Drop the progress."""


@runtime_checkable
class PreviewReporter(Reporter, Protocol):
    """A reporter that also wants to see what training has come to."""

    def show_preview(self, draw: Callable[[], torch.Tensor]) -> None:
        """Called after every step; `draw` samples a few frames `[n, H, W, 3]` uint8 with the LoRA as it is by now, which costs time."""
        ...


def format_seconds(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_bytes(number: float) -> str:
    """`850 MB`, `12.4 GB`."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
