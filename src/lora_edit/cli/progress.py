"""Progress and remarks for a person, on stderr: bars on a terminal, a plain line now and then elsewhere."""

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


class NotePrinter:
    """Prints each remark once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self.opening_note = ""
        """A remark for when work really begins: faults of the input are told alone."""

    def note(self, text: str) -> None:
        """Print a remark that was not printed yet."""
        if text not in self._seen:
            self._seen.add(text)
            self._print(f"note: {' '.join(text.split())}")

    def print_opening_note(self) -> None:
        """Print the opening remark, once."""
        if self.opening_note:
            self.note(self.opening_note)

    def _print(self, line: str) -> None:
        typer.echo(line, err=True)


class PlainReporter(NotePrinter):
    """A line for each tenth of a stage: for logs and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._stages: dict[str, _StageTimer] = {}

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Print a line when another tenth is done."""
        self.print_opening_note()
        pace = self._stages.setdefault(stage, _StageTimer(done, time.monotonic()))
        tenth = LINES_PER_STAGE * done // max(total, 1)
        if tenth > pace.tenth:
            pace.tenth = tenth
            time_left = (
                pace.format_time_left(done, total) if seconds_left is None or done >= total else f"{format_seconds(seconds_left)} left"
            )
            parts = [f"{stage} {done}/{total}", detail, time_left]
            self._print(", ".join(part for part in parts if part))


class _StageTimer:
    """Where a stage began, so that a resumed one is not taken for a fast one."""

    def __init__(self, first: int, started: float) -> None:
        self.first, self.started, self.tenth = first, started, -1

    def format_time_left(self, done: int, total: int) -> str:
        """The time left in words; nothing before there is anything to go by."""
        if done <= self.first or done >= total:
            return ""
        return f"{format_seconds((time.monotonic() - self.started) / (done - self.first) * (total - done))} left"


class _TimeLeftColumn(TimeRemainingColumn):
    """The time left: what the work says of it, else by the pace."""

    def render(self, task: Task) -> Text:
        """The column's text; a time that was said runs down until the next is."""
        ends = task.fields.get("ends")
        if ends is None or task.finished:
            return super().render(task)
        return Text(format_seconds(ends - time.monotonic()), style="progress.remaining")


class BarReporter(NotePrinter):
    """A bar with the time left for every stage: for terminals."""

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
        """Move the stage's bar."""
        self.print_opening_note()
        ends = None if seconds_left is None else time.monotonic() + seconds_left
        if stage not in self._tasks:
            self._tasks[stage] = self.progress.add_task(escape(stage), total=total, completed=done, detail=escape(detail))
        self.progress.update(self._tasks[stage], total=total, completed=done, detail=escape(detail), ends=ends)

    def _print(self, line: str) -> None:
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def open_reporter() -> Iterator[BarReporter | PlainReporter]:
    """A reporter for as long as short work takes. Whatever libraries print meanwhile goes to stderr, so that stdout has the result only."""
    console = Console(stderr=True)
    with redirect_stdout(sys.stderr):
        if console.is_terminal and not console.is_dumb_terminal:
            bars = BarReporter(console)
            with bars.progress:
                yield bars
        else:
            yield PlainReporter()


@contextmanager
def open_compute_reporter(threads: int | None) -> Iterator[BarReporter | PlainReporter]:
    """`reporting` for work that computes: with so many threads, or as many as the machine has free cores, which it says."""
    with open_reporter() as reporter:
        used = configure_threads(threads)
        if used.is_reduced:
            reporter.opening_note = f"computing with {used}, as other programs use the rest; --threads N says otherwise"
        yield reporter
