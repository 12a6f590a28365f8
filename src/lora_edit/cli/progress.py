"""Reporters that print progress and notes to stderr: progress bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from lora_edit.reporting import format_bytes as format_bytes
from lora_edit.reporting import format_seconds as format_seconds
from lora_edit.threads import configure_threads

LINES_PER_STAGE = 10
"""Progress lines of a stage, without its first one."""


class NotePrinter:
    """Prints each note once."""

    def __init__(self) -> None:
        self._printed: set[str] = set()
        self.opening_note = ""
        """Note that is printed when work begins, so that input errors appear alone."""

    def note(self, text: str) -> None:
        """Print a note, unless it was printed before."""
        if text not in self._printed:
            self._printed.add(text)
            self._print(f"note: {' '.join(text.split())}")

    def print_opening_note(self) -> None:
        """Print `opening_note`, once."""
        if self.opening_note:
            self.note(self.opening_note)

    def _print(self, line: str) -> None:
        typer.echo(line, err=True)


class PlainReporter(NotePrinter):
    """Prints a line for each tenth of a stage; for logs and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._stages: dict[str, _StageTimer] = {}

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Print a line when another tenth of the stage is done."""
        self.print_opening_note()
        timer = self._stages.setdefault(stage, _StageTimer(done, time.monotonic()))
        tenth = LINES_PER_STAGE * done // max(total, 1)
        if tenth > timer.tenth:
            timer.tenth = tenth
            time_left = (
                timer.format_time_left(done, total) if seconds_left is None or done >= total else f"{format_seconds(seconds_left)} left"
            )
            parts = [f"{stage} {done}/{total}", detail, time_left]
            self._print(", ".join(part for part in parts if part))


class _StageTimer:
    """Start time and first step of a stage. The first step keeps a resumed stage from looking fast."""

    def __init__(self, first: int, started: float) -> None:
        self.first, self.started, self.tenth = first, started, -1

    def format_time_left(self, done: int, total: int) -> str:
        """Format the estimated time left; empty before the second report and at the end."""
        if done <= self.first or done >= total:
            return ""
        return f"{format_seconds((time.monotonic() - self.started) / (done - self.first) * (total - done))} left"


class _TimeLeftColumn(TimeRemainingColumn):
    """Column of the time left: as reported by the work, else estimated from its speed."""

    def render(self, task: Task) -> Text:
        """Render the time left. A reported time counts down until the next report."""
        ends = task.fields.get("ends")
        if ends is None or task.finished:
            return super().render(task)
        return Text(format_seconds(ends - time.monotonic()), style="progress.remaining")


class BarReporter(NotePrinter):
    """Draws a progress bar with the time left for each stage; for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _TimeLeftColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        self.progress = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Update the progress bar of the stage."""
        self.print_opening_note()
        ends = None if seconds_left is None else time.monotonic() + seconds_left
        if stage not in self._tasks:
            self._tasks[stage] = self.progress.add_task(escape(stage), total=total, completed=done, detail=escape(detail))
        self.progress.update(self._tasks[stage], total=total, completed=done, detail=escape(detail), ends=ends)

    def _print(self, line: str) -> None:
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def open_reporter() -> Iterator[BarReporter | PlainReporter]:
    """Yield a reporter for short work. Meanwhile the output of libraries goes to stderr, so that stdout holds the result only."""
    console = Console(stderr=True)
    with redirect_stdout(sys.stderr):
        if console.is_terminal and not console.is_dumb_terminal:
            reporter = BarReporter(console)
            with reporter.progress:
                yield reporter
        else:
            yield PlainReporter()


@contextmanager
def open_compute_reporter(threads: int | None) -> Iterator[BarReporter | PlainReporter]:
    """Yield a reporter for heavy work and set the number of threads: `threads`, or by default the number of free cores.

    The opening note names the number of threads if other programs reduce it.
    """
    with open_reporter() as reporter:
        allocation = configure_threads(threads)
        if allocation.is_reduced:
            reporter.opening_note = f"using {allocation}, as other programs use the other cores; --threads N sets another number"
        yield reporter
