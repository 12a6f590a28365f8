"""Interface for progress and notes of long work, which the command line and the page implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


class Reporter(Protocol):
    """Receives notes and progress."""

    def note(self, text: str) -> None:
        """Receive a note for the user."""
        ...

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Receive the progress of a named stage. `seconds_left` is a better estimate than its speed so far gives, if there is one."""
        ...


class SilentReporter:
    """A reporter that ignores everything."""

    def note(self, text: str) -> None:
        """Ignore the note."""

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Ignore the progress."""


@runtime_checkable
class PreviewReporter(Reporter, Protocol):
    """A reporter that also shows previews during training."""

    def show_preview(self, draw: Callable[[], torch.Tensor]) -> None:
        """Receive the option of a preview after every step.

        `draw` samples a few frames `[n, H, W, 3]` uint8 with the current LoRA, which takes time.
        """
        ...


def format_seconds(seconds: float) -> str:
    """Format seconds as `40 s`, `12 min` or `3 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_bytes(number: float) -> str:
    """Format bytes as `850 MB` or `12.4 GB`."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
