"""Long work outside the page: one queue for the device, one job per project at a time, told apart from the browsers that watch.

A page that is closed or reloaded leaves its job alone; whoever opens the project's address sees it again. A job is stopped at its next
step; training then lies in its checkpoint, and the same job, handed in again, goes on from there.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from lora_edit.errors import InputError, RunError
from lora_edit.reporting import Reporter
from lora_edit.threads import use_threads

State = Literal["waiting", "running", "stopping", "done", "stopped", "failed"]
ENDED = frozenset({"done", "stopped", "failed"})

TRAINING = frozenset({"motion", "appearance"})
"""Stages that learn; drawing the result comes after them."""

LOOK_SHARE = 0.1
"""Share of the time that looks at unfinished training may take."""

LOOK_PAUSE = 2.0
"""Seconds between two looks, at least."""


class Stopped(Exception):
    """A person stopped the job."""


@dataclass
class Job:
    """One piece of long work and what is known of it by now; written by the desk's thread, read by pages.

    `about` is what the page wants to remember of what the job was made for. `stage`, `done`, `total`, `detail` are the last progress,
    `left` the seconds that remain of the stage where that is known. `planned` are the seconds that training and drawing were estimated to
    take; `after` the seconds that come after training, renewed by its measured speed. `look` is `[n, H, W, 3]` uint8, the newest look at
    unfinished training, number `looks`.
    """

    project: str
    kind: str
    work: Callable[[Reporter], Any]
    log: Path
    about: Any = None
    state: State = "waiting"
    stage: str = ""
    done: int = 0
    total: int = 0
    detail: str = ""
    left: float | None = None
    planned: tuple[float, float] | None = None
    after: float | None = None
    notes: list[str] = field(default_factory=list)
    look: torch.Tensor | None = None
    looks: int = 0
    result: Any = None
    fault: str = ""
    started: float = 0.0
    ended: float = 0.0

    @property
    def over(self) -> bool:
        """Nothing more will happen to it."""
        return self.state in ENDED

    def seconds(self) -> float:
        """How long it has run, or ran."""
        return 0.0 if not self.started else (self.ended or time.monotonic()) - self.started


class Watch:
    """The reporter of a job: keeps progress where pages can read it, and stops the work when it was told to."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._stage_started, self._first = 0.0, 0
        self._next_look = time.monotonic() + LOOK_PAUSE

    def note(self, text: str) -> None:
        """Keep a remark once."""
        if text not in self.job.notes:
            self.job.notes.append(text)

    def step(self, stage: str, done: int, total: int, detail: str = "", left: float | None = None) -> None:
        """Keep the progress. Raises `Stopped` when the job is to stop."""
        job, now = self.job, time.monotonic()
        if stage != job.stage or done < job.done:
            self._stage_started, self._first = now, done
        elif left is None and done > self._first:
            left = (now - self._stage_started) / (done - self._first) * (total - done)
        job.stage, job.done, job.total, job.detail, job.left = stage, done, total, detail, left
        job.after = None
        if job.planned and stage in TRAINING and done > self._first:
            each = (now - self._stage_started) / (done - self._first)
            job.after = job.planned[1] * each * total / max(job.planned[0], 1e-3)
        if job.state == "stopping":
            raise Stopped

    def look(self, draw: Callable[[], torch.Tensor]) -> None:
        """Draw a look when the last one was long enough ago for what it cost."""
        started = time.monotonic()
        if started < self._next_look:
            return
        self.job.look = draw()
        self.job.looks += 1
        ended = time.monotonic()
        self._next_look = ended + max(LOOK_PAUSE, (ended - started) / LOOK_SHARE)


class Desk:
    """Takes jobs in, does them one after the other in a thread of its own, and knows each project's newest; they compute with `threads`
    threads, or as many as there are free cores."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._waiting: deque[Job] = deque()
        self._newest: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def hand_in(
        self,
        project: str,
        kind: str,
        work: Callable[[Reporter], Any],
        log: Path,
        about: Any = None,
        planned: tuple[float, float] | None = None,
    ) -> Job:
        """Queue `work`, which was `planned` to take so many seconds, where that was estimated. Failures that are not the input's fault
        leave their traceback in `log`.

        Raises `RunError` when the project has a job that is not over.
        """
        with self._changed:
            current = self._newest.get(project)
            if current is not None and not current.over:
                raise RunError("a job of this project is still under way; stop it first, or wait for it")
            job = Job(project, kind, work, log, about, planned=planned)
            self._newest[project] = job
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="device", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def newest(self, project: str) -> Job | None:
        """The project's last job, over or not."""
        return self._newest.get(project)

    def ahead(self, job: Job) -> int:
        """How many jobs come before one that waits."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + sum(not each.over and each not in self._waiting for each in self._newest.values())

    def stop(self, project: str) -> None:
        """Take a waiting job out of the queue, or let a running one end at its next step. Nothing happens to one that is over."""
        with self._changed:
            job = self._newest.get(project)
            if job is None or job.over:
                return
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "stopped"
            else:
                job.state = "stopping"
            self._changed.notify_all()

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait until the job is over; False when it is not within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: job.over, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                job = self._waiting.popleft()
                job.state, job.started = "running", time.monotonic()
            used = use_threads(self._threads)
            if used.spared:
                job.notes.append(f"computes with {used}, as other programs use the rest")
            ending, fault = _do(job)
            with self._changed:
                job.fault, job.ended, job.state = fault, time.monotonic(), ending
                self._changed.notify_all()


class Foreground:
    """Work that a page waits for, done by its handler and not in any queue; a project's newest takes the place of the one before."""

    def __init__(self) -> None:
        self._newest: dict[str, Job] = {}
        self._lock = threading.Lock()

    def announce(self, project: str, kind: str, work: Callable[[Reporter], Any], log: Path, about: Any = None) -> Job:
        """Show that `work` is coming, which `do` begins; what the project had under way ends at its next step."""
        self.stop(project)
        job = Job(project, kind, work, log, about)
        self._newest[project] = job
        return job

    def do(self, job: Job) -> None:
        """Do the work, unless it was stopped or begun before. Raises `InputError` when it fails."""
        with self._lock:
            if job.state != "waiting":
                return
            job.state, job.started = "running", time.monotonic()
        ending, fault = _do(job)
        with self._lock:
            job.fault, job.ended, job.state = fault, time.monotonic(), ending
        if fault:
            raise InputError(fault)

    def newest(self, project: str) -> Job | None:
        """The project's last job, over or not."""
        return self._newest.get(project)

    def stop(self, project: str) -> None:
        """Let the work end at its next step. Nothing happens to work that is over."""
        with self._lock:
            job = self._newest.get(project)
            if job is not None and not job.over:
                job.state = "stopped" if job.state == "waiting" else "stopping"


def _do(job: Job) -> tuple[State, str]:
    """Do the work; how it ended, and what was wrong in one line."""
    try:
        job.result = job.work(Watch(job))
    except Stopped:
        return "stopped", ""
    except InputError as error:
        return "failed", str(error)
    except Exception as error:
        write_traceback(job.log, error)
        return (
            "failed",
            f"this failed on our side ({type(error).__name__}); what was done so far is kept, and {job.log.name} has the details",
        )
    return "done", ""


def write_traceback(log: Path, error: Exception) -> None:
    """Append a failure to a log file."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} failed\n{''.join(traceback.format_exception(error))}")
