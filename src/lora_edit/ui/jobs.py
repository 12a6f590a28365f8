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
from lora_edit.threads import configure_threads

JobState = Literal["waiting", "running", "stopping", "done", "stopped", "failed"]
FINAL_STATES = frozenset({"done", "stopped", "failed"})

TRAINING_STAGES = frozenset({"motion", "appearance"})
"""Stages that learn; drawing the result comes after them."""

PREVIEW_TIME_SHARE = 0.1
"""Share of the time that looks at unfinished training may take."""

MIN_PREVIEW_INTERVAL = 2.0
"""Seconds between two looks, at least."""


class JobStopped(Exception):
    """A person stopped the job."""


@dataclass
class Job:
    """One piece of long work and what is known of it by now; written by the desk's thread, read by pages.

    `about` is what the page wants to remember of what the job was made for. `stage`, `done`, `total`, `detail` are the last progress,
    `left` the seconds that remain of the stage where that is known. `planned` are the seconds that training and drawing were estimated to
    take; `after` the seconds that come after training, renewed by its measured speed. `look` is `[n, H, W, 3]` uint8, the newest look at
    unfinished training, number `looks`.
    """

    project_id: str
    kind: str
    work: Callable[[Reporter], Any]
    log: Path
    project_state: Any = None
    state: JobState = "waiting"
    stage: str = ""
    done: int = 0
    total: int = 0
    detail: str = ""
    seconds_left: float | None = None
    planned_seconds: tuple[float, float] | None = None
    seconds_after_training: float | None = None
    notes: list[str] = field(default_factory=list)
    preview: torch.Tensor | None = None
    preview_count: int = 0
    result: Any = None
    error: str = ""
    start_time: float = 0.0
    end_time: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Nothing more will happen to it."""
        return self.state in FINAL_STATES

    def get_elapsed_seconds(self) -> float:
        """How long it has run, or ran."""
        return 0.0 if not self.start_time else (self.end_time or time.monotonic()) - self.start_time


class JobReporter:
    """The reporter of a job: keeps progress where pages can read it, and stops the work when it was told to."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._stage_start_time, self._stage_first_step = 0.0, 0
        self._next_preview_time = time.monotonic() + MIN_PREVIEW_INTERVAL

    def note(self, text: str) -> None:
        """Keep a remark once."""
        if text not in self.job.notes:
            self.job.notes.append(text)

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Keep the progress. Raises `Stopped` when the job is to stop."""
        job, now = self.job, time.monotonic()
        if stage != job.stage or done < job.done:
            self._stage_start_time, self._stage_first_step = now, done
        elif seconds_left is None and done > self._stage_first_step:
            seconds_left = (now - self._stage_start_time) / (done - self._stage_first_step) * (total - done)
        job.stage, job.done, job.total, job.detail, job.seconds_left = stage, done, total, detail, seconds_left
        job.seconds_after_training = None
        if job.planned_seconds and stage in TRAINING_STAGES and done > self._stage_first_step:
            each = (now - self._stage_start_time) / (done - self._stage_first_step)
            job.seconds_after_training = job.planned_seconds[1] * each * total / max(job.planned_seconds[0], 1e-3)
        if job.state == "stopping":
            raise JobStopped

    def show_preview(self, draw: Callable[[], torch.Tensor]) -> None:
        """Draw a look when the last one was long enough ago for what it cost."""
        started = time.monotonic()
        if started < self._next_preview_time:
            return
        self.job.preview = draw()
        self.job.preview_count += 1
        ended = time.monotonic()
        self._next_preview_time = ended + max(MIN_PREVIEW_INTERVAL, (ended - started) / PREVIEW_TIME_SHARE)


class JobQueue:
    """Takes jobs in, does them one after the other in a thread of its own, and knows each project's newest; they compute with `threads`
    threads, or as many as there are free cores."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._waiting_jobs: deque[Job] = deque()
        self._latest_jobs: dict[str, Job] = {}
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(
        self,
        project_id: str,
        kind: str,
        work: Callable[[Reporter], Any],
        log: Path,
        project_state: Any = None,
        planned_seconds: tuple[float, float] | None = None,
    ) -> Job:
        """Queue `work`, which was `planned` to take so many seconds, where that was estimated. Failures that are not the input's fault
        leave their traceback in `log`.

        Raises `RunError` when the project has a job that is not over.
        """
        with self._condition:
            current = self._latest_jobs.get(project_id)
            if current is not None and not current.is_finished:
                raise RunError("a job of this project is still under way; stop it first, or wait for it")
            job = Job(project_id, kind, work, log, project_state, planned_seconds=planned_seconds)
            self._latest_jobs[project_id] = job
            self._waiting_jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_jobs, name="device", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        return job

    def get_latest_job(self, project_id: str) -> Job | None:
        """The project's last job, over or not."""
        return self._latest_jobs.get(project_id)

    def count_jobs_ahead(self, job: Job) -> int:
        """How many jobs come before one that waits."""
        with self._condition:
            if job not in self._waiting_jobs:
                return 0
            return self._waiting_jobs.index(job) + sum(
                not each.is_finished and each not in self._waiting_jobs for each in self._latest_jobs.values()
            )

    def stop(self, project_id: str) -> None:
        """Take a waiting job out of the queue, or let a running one end at its next step. Nothing happens to one that is over."""
        with self._condition:
            job = self._latest_jobs.get(project_id)
            if job is None or job.is_finished:
                return
            if job in self._waiting_jobs:
                self._waiting_jobs.remove(job)
                job.state = "stopped"
            else:
                job.state = "stopping"
            self._condition.notify_all()

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait until the job is over; False when it is not within that time."""
        with self._condition:
            return self._condition.wait_for(lambda: job.is_finished, seconds)

    def _run_jobs(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: bool(self._waiting_jobs))
                job = self._waiting_jobs.popleft()
                job.state, job.start_time = "running", time.monotonic()
            used = configure_threads(self._threads)
            if used.is_reduced:
                job.notes.append(f"computes with {used}, as other programs use the rest")
            ending, fault = _execute_job(job)
            with self._condition:
                job.error, job.end_time, job.state = fault, time.monotonic(), ending
                self._condition.notify_all()


class ForegroundRunner:
    """Work that a page waits for, done by its handler and not in any queue; a project's newest takes the place of the one before."""

    def __init__(self) -> None:
        self._latest_jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def register_job(self, project_id: str, kind: str, work: Callable[[Reporter], Any], log: Path, project_state: Any = None) -> Job:
        """Show that `work` is coming, which `do` begins; what the project had under way ends at its next step."""
        self.stop(project_id)
        job = Job(project_id, kind, work, log, project_state)
        self._latest_jobs[project_id] = job
        return job

    def run_job(self, job: Job) -> None:
        """Do the work, unless it was stopped or begun before. Raises `InputError` when it fails."""
        with self._lock:
            if job.state != "waiting":
                return
            job.state, job.start_time = "running", time.monotonic()
        ending, fault = _execute_job(job)
        with self._lock:
            job.error, job.end_time, job.state = fault, time.monotonic(), ending
        if fault:
            raise InputError(fault)

    def get_latest_job(self, project_id: str) -> Job | None:
        """The project's last job, over or not."""
        return self._latest_jobs.get(project_id)

    def stop(self, project_id: str) -> None:
        """Let the work end at its next step. Nothing happens to work that is over."""
        with self._lock:
            job = self._latest_jobs.get(project_id)
            if job is not None and not job.is_finished:
                job.state = "stopped" if job.state == "waiting" else "stopping"


def _execute_job(job: Job) -> tuple[JobState, str]:
    """Do the work; how it ended, and what was wrong in one line."""
    try:
        job.result = job.work(JobReporter(job))
    except JobStopped:
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
