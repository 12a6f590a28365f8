"""The jobs of a study: some at a time, each in a process of its own, and the time that is left of them."""

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
"""What a job leaves behind in its file: `kind` names it to a person, `seconds` are what its work took, whenever that was."""


class StudyJob(Protocol):
    """Something to do whose record is kept in a file."""

    @property
    def file(self) -> Path:
        """Where the record is kept."""
        ...


JobT = TypeVar("JobT", bound=StudyJob)


@cache
def get_family(model: str) -> Family:
    """The model, once per process: the embedded one in float32, which its tables were made with, any other as an edit loads it."""
    device = pick_device()
    return load_family(model, device, torch.float32 if model == "tiny" else pick_compute_dtype(device))


@cache
def get_vace(source: str) -> Family | None:
    """VACE, once per process; None where none is asked for."""
    if not source:
        return None
    device = pick_device()
    return load_vace(*locate_vace(source), device, pick_compute_dtype(device))


def run_jobs(name: str, work: Callable[[JobT], JobRecord], jobs: Sequence[JobT], workers: int, reporter: Reporter) -> list[JobRecord]:
    """Do the jobs, `workers` at a time; returns their records in the jobs' order. The first that fails ends it, with its error.

    An interruption ends the workers at once: what a job has not written yet is done anew by the next call.
    """
    # A job whose file is there is most likely only read.
    long = {job.file for job in jobs if not job.file.is_file()}
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
                took = [record["seconds"] for record in records.values() if "seconds" in record]
                spent = [time.monotonic() - began for path, began in running.values() if path in long]
                waiting = sum(each.file in long for each in queue)
                left = estimate_seconds_left(fmean(took), spent, waiting, workers) if took else None
                reporter.step(name, len(records), len(jobs), str(records[file]["kind"]), left)
    return [records[job.file] for job in jobs]


@contextmanager
def _kill_workers_on_error(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """The pool; its workers are ended, whatever they are at, when the work with it is."""
    others = set(multiprocessing.active_children())
    with pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise


def _exit_with_parent() -> None:
    """A worker ends with the process that waits for it, which ends its workers itself after a terminal's Ctrl-C; that reaches them all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after_process, args=(parent.sentinel,), daemon=True).start()


def _exit_after_process(sentinel: int) -> None:
    """End this process, whatever it is at, when another one has ended: one that was killed can't say so."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def estimate_seconds_left(seconds_per_job: float, elapsed: Sequence[float], num_queued: int, workers: int) -> float:
    """Until the last of jobs of about `each` seconds is done: some run, for the seconds `spent` so far, and others are `waiting`."""
    free = [max(seconds_per_job - seconds, 0.0) for seconds in elapsed] + [0.0] * (workers - len(elapsed))
    heapq.heapify(free)
    for _ in range(num_queued):
        heapq.heapreplace(free, free[0] + seconds_per_job)
    return max(free)
