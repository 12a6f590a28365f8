"""The jobs of a study: a process pool that runs several at a time and estimates the remaining time."""

from __future__ import annotations

import heapq
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, TypeVar

import torch

from lora_edit.devices import pick_compute_dtype, pick_device
from lora_edit.models.families.vace.loading import load_vace
from lora_edit.models.families.vace.record import locate_vace
from lora_edit.models.family import Family, load_family
from lora_edit.reporting import Reporter

JobRecord = dict[str, Any]
"""The record that a job writes to its file: `kind` is a name for people, `seconds` the duration of its work, also in an earlier call."""


class StudyJob(Protocol):
    """A unit of work whose record is stored in a file."""

    @property
    def file(self) -> Path:
        """The path of the record."""
        ...


JobT = TypeVar("JobT", bound=StudyJob)


@cache
def get_family(model: str) -> Family:
    """Load the model, once per process: the embedded one in float32, as for its published tables, any other as an edit loads it."""
    device = pick_device()
    return load_family(model, device, torch.float32 if model == "tiny" else pick_compute_dtype(device))


@cache
def get_vace(source: str) -> Family | None:
    """Load VACE, once per process; None when `source` is empty."""
    if not source:
        return None
    device = pick_device()
    return load_vace(*locate_vace(source), device, pick_compute_dtype(device))


def run_jobs(name: str, work: Callable[[JobT], JobRecord], jobs: Sequence[JobT], workers: int, reporter: Reporter) -> list[JobRecord]:
    """Run the jobs, `workers` at a time, and return their records in the order of the jobs.

    The first job that fails ends the run and raises its error. An interruption kills the workers at once; the next call repeats the jobs
    that have not written their record.
    """
    # A job whose file exists most likely only reads it.
    pending = {job.file for job in jobs if not job.file.is_file()}
    records: dict[Path, JobRecord] = {}
    queue, running = deque(jobs), dict[Future[JobRecord], tuple[Path, float]]()
    reporter.step(name, 0, len(jobs))
    with _kill_workers_on_error(ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _exit_with_parent)) as pool:
        while queue or running:
            while queue and len(running) < workers:
                job = queue.popleft()
                running[pool.submit(work, job)] = (job.file, time.monotonic())
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                file, _ = running.pop(future)
                records[file] = future.result()
                durations = [record["seconds"] for record in records.values() if "seconds" in record]
                elapsed = [time.monotonic() - start for path, start in running.values() if path in pending]
                num_queued = sum(each.file in pending for each in queue)
                seconds_left = estimate_seconds_left(fmean(durations), elapsed, num_queued, workers) if durations else None
                reporter.step(name, len(records), len(jobs), str(records[file]["kind"]), seconds_left)
    return [records[job.file] for job in jobs]


@contextmanager
def _kill_workers_on_error(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """Yield the pool, and kill its workers when the block raises."""
    other_processes = set(multiprocessing.active_children())
    with pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - other_processes:
                process.kill()
            raise


def _exit_with_parent() -> None:
    """Initialise a worker: ignore Ctrl-C, and exit when the parent process does.

    A terminal sends Ctrl-C to the parent and to all workers; the parent then kills the workers itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after_process, args=(parent.sentinel,), daemon=True).start()


def _exit_after_process(sentinel: int) -> None:
    """Exit this process as soon as another one has ended; a killed process cannot send a message."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def estimate_seconds_left(seconds_per_job: float, elapsed: Sequence[float], num_queued: int, workers: int) -> float:
    """Estimate the seconds until the last job is done.

    A job takes about `seconds_per_job`; the running ones have run for the seconds in `elapsed`, and `num_queued` have not started.
    """
    free_at = [max(seconds_per_job - seconds, 0.0) for seconds in elapsed] + [0.0] * (workers - len(elapsed))
    heapq.heapify(free_at)
    for _ in range(num_queued):
        heapq.heapreplace(free_at, free_at[0] + seconds_per_job)
    return max(free_at)
