"""Queues of long jobs, independent of the browsers that show them; a project has at most one unfinished job per queue.

Closing or reloading a page does not affect its job; opening the project's address shows it again. A job stops at its next step. Training
then continues from its checkpoint if the same job is submitted again.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from lora_edit.errors import InputError, RunError, explain_system_error
from lora_edit.reporting import Reporter
from lora_edit.threads import configure_threads

JobState = Literal["waiting", "running", "stopping", "done", "stopped", "failed"]
FINAL_STATES = frozenset({"done", "stopped", "failed"})

TRAINING_STAGES = frozenset({"motion", "appearance"})
"""Stages of training; generation follows them."""

PREVIEW_TIME_SHARE = 0.1
"""Maximum share of the time that previews during training may take."""

MIN_PREVIEW_INTERVAL = 2.0
"""Minimum seconds between two previews."""


MAX_LOG_BYTES = 1024**2
"""Length of a log of tracebacks in bytes, so that repeated failures do not fill the disk."""


class JobStopped(Exception):
    """Raised inside a job that a person stopped."""


@dataclass
class Job:
    """A job and its progress; written by the thread that runs it, read by pages.

    `project_state` is the project state that the job was created for. `stage`, `done`, `total` and `detail` are the latest progress;
    `seconds_left` is the remaining time of the stage, if known. `planned_seconds` are the estimated seconds of training and generation;
    `seconds_after_training` is the remaining time after training, updated by the measured training speed. `preview` is the newest
    preview of unfinished training, `[n, H, W, 3]` uint8, number `preview_count`.
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
        """Whether the job is done, stopped or failed."""
        return self.state in FINAL_STATES

    def get_elapsed_seconds(self) -> float:
        """Return the seconds since the start, up to the end for a finished job; 0 before the start."""
        return 0.0 if not self.start_time else (self.end_time or time.monotonic()) - self.start_time


class JobReporter:
    """The reporter of a job: stores its progress for pages, and stops the work on request."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._stage_start_time, self._stage_first_step = 0.0, 0
        self._next_preview_time = time.monotonic() + MIN_PREVIEW_INTERVAL

    def note(self, text: str) -> None:
        """Store a note, without duplicates."""
        if text not in self.job.notes:
            self.job.notes.append(text)

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Store the progress. Raises `JobStopped` if the job should stop."""
        job, now = self.job, time.monotonic()
        if stage != job.stage or done < job.done:
            self._stage_start_time, self._stage_first_step = now, done
        elif seconds_left is None and done > self._stage_first_step:
            seconds_left = (now - self._stage_start_time) / (done - self._stage_first_step) * (total - done)
        job.stage, job.done, job.total, job.detail, job.seconds_left = stage, done, total, detail, seconds_left
        job.seconds_after_training = None
        if job.planned_seconds and stage in TRAINING_STAGES and done > self._stage_first_step:
            seconds_per_step = (now - self._stage_start_time) / (done - self._stage_first_step)
            job.seconds_after_training = job.planned_seconds[1] * seconds_per_step * total / max(job.planned_seconds[0], 1e-3)
        if job.state == "stopping":
            raise JobStopped

    def show_preview(self, draw: Callable[[], torch.Tensor]) -> None:
        """Draw a preview, unless that would exceed `PREVIEW_TIME_SHARE` of the time since the last one."""
        start_time = time.monotonic()
        if start_time < self._next_preview_time:
            return
        self.job.preview = draw()
        self.job.preview_count += 1
        end_time = time.monotonic()
        self._next_preview_time = end_time + max(MIN_PREVIEW_INTERVAL, (end_time - start_time) / PREVIEW_TIME_SHARE)


class JobQueue:
    """A queue of jobs with the newest job of each project; a project has at most one unfinished job.

    `submit` runs jobs one after the other in a worker thread, with `threads` compute threads, by default as many as there are free cores.
    `register_job` and `run_job` run a job in the thread of the caller, which waits for it.

    `concurrent.futures.ThreadPoolExecutor` does not replace the worker thread: the interpreter waits for its threads at exit, so
    interrupting the server would block until training ends, and it does not expose the position of a waiting job.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._waiting_jobs: deque[Job] = deque()
        self._latest_jobs: dict[str, Job] = {}
        self._condition = threading.Condition()
        self._worker: threading.Thread | None = None

    def submit(
        self,
        project_id: str,
        kind: str,
        work: Callable[[Reporter], Any],
        log: Path,
        project_state: Any = None,
        planned_seconds: tuple[float, float] | None = None,
    ) -> Job:
        """Queue `work` for the worker thread; `planned_seconds` are the estimated seconds of training and generation.

        Failures other than input errors append their traceback to `log`. Raises `RunError` if the project has an unfinished job.
        """
        with self._condition:
            current = self._latest_jobs.get(project_id)
            if current is not None and not current.is_finished:
                raise RunError("a job of this project is still under way; stop it first, or wait for it")
            job = Job(project_id, kind, work, log, project_state, planned_seconds=planned_seconds)
            self._latest_jobs[project_id] = job
            self._waiting_jobs.append(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._run_waiting_jobs, name="jobs", daemon=True)
                self._worker.start()
            self._condition.notify_all()
        return job

    def register_job(self, project_id: str, kind: str, work: Callable[[Reporter], Any], log: Path, project_state: Any = None) -> Job:
        """Register `work` as a waiting job for `run_job` and stop the project's previous job at its next step."""
        with self._condition:
            self.stop(project_id)
            job = Job(project_id, kind, work, log, project_state)
            self._latest_jobs[project_id] = job
        return job

    def run_job(self, job: Job) -> None:
        """Run a registered job in the calling thread, unless it was stopped or started before. Raises `InputError` if it fails."""
        if self._start(job):
            self._finish(job, *_execute_job(job))
            if job.error:
                raise InputError(job.error)

    def get_latest_job(self, project_id: str) -> Job | None:
        """Return the project's newest job, finished or not."""
        return self._latest_jobs.get(project_id)

    def count_jobs_ahead(self, job: Job) -> int:
        """Count the unfinished jobs ahead of a waiting job."""
        with self._condition:
            if job not in self._waiting_jobs:
                return 0
            return self._waiting_jobs.index(job) + sum(
                not each.is_finished and each not in self._waiting_jobs for each in self._latest_jobs.values()
            )

    def stop(self, project_id: str) -> None:
        """Cancel the project's waiting job, or stop its running job at the next step. Finished jobs stay as they are."""
        with self._condition:
            job = self._latest_jobs.get(project_id)
            if job is None or job.is_finished:
                return
            job.state = "stopped" if job.state == "waiting" else "stopping"
            if job in self._waiting_jobs:
                self._waiting_jobs.remove(job)
            self._condition.notify_all()

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait for the job; returns whether it finished within that time."""
        with self._condition:
            return self._condition.wait_for(lambda: job.is_finished, seconds)

    def _run_waiting_jobs(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: bool(self._waiting_jobs))
                job = self._waiting_jobs.popleft()
                self._start(job)
            allocation = configure_threads(self._threads)
            if allocation.is_reduced:
                job.notes.append(f"computes with {allocation}, as other programs use the rest")
            self._finish(job, *_execute_job(job))

    def _start(self, job: Job) -> bool:
        """Mark a waiting job as running; returns False for any other job."""
        with self._condition:
            if job.state != "waiting":
                return False
            job.state, job.start_time = "running", time.monotonic()
            return True

    def _finish(self, job: Job, state: JobState, error: str) -> None:
        with self._condition:
            job.error, job.end_time, job.state = error, time.monotonic(), state
            self._condition.notify_all()


def _execute_job(job: Job) -> tuple[JobState, str]:
    """Run the work; returns the final state and a one-line error message, empty unless it failed."""
    try:
        job.result = job.work(JobReporter(job))
    except JobStopped:
        return "stopped", ""
    except InputError as error:
        return "failed", str(error)
    except Exception as error:
        with suppress(OSError):  # a full disk may be the cause
            write_traceback(job.log, error)
        if explanation := explain_system_error(error):
            return "failed", explanation
        return (
            "failed",
            f"an internal error occurred ({type(error).__name__}); earlier work is kept, and details are in {job.log.name}",
        )
    return "done", ""


def write_traceback(log: Path, error: Exception) -> None:
    """Append the traceback of an error to a log file, which starts again when it is longer than `MAX_LOG_BYTES`."""
    if log.is_file() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".old.txt"))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} failed\n{''.join(traceback.format_exception(error))}")
