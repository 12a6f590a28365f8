"""Jobs in worker processes, and the estimate of the remaining time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_edit.errors import VideoError
from lora_edit.studies.jobs import JobRecord, estimate_seconds_left, run_jobs


@pytest.mark.parametrize(
    ("elapsed", "num_queued", "workers", "seconds_left"),
    [
        ([], 3, 1, 30.0),  # one job after the other
        ([4.0], 2, 1, 26.0),
        ([10.0, 10.0, 10.0], 4, 4, 10.0),  # one of four simultaneous jobs is done, and three are about to finish
        ([5.0, 0.0, 0.0], 0, 4, 10.0),  # no job is queued: the last one to start decides
        ([2.0], 1, 2, 10.0),
        ([99.0], 0, 2, 0.0),  # longer than the other jobs
    ],
)
def test_estimate_accounts_for_workers(elapsed: list[float], num_queued: int, workers: int, seconds_left: float) -> None:
    assert estimate_seconds_left(10.0, elapsed, num_queued, workers) == seconds_left


@dataclass(frozen=True)
class Sum:
    """A job for tests, see `add_one`."""

    number: int
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / f"{self.number}.json"


def add_one(job: Sum) -> JobRecord:
    """Add one to the number of the job, or read the record; fails at 13."""
    if job.number == 13:
        raise VideoError("thirteen: no such number")
    if job.file.is_file():
        return dict(json.loads(job.file.read_text()))
    record = {"kind": f"sum {job.number}", "sum": job.number + 1, "seconds": 100.0}
    job.file.write_text(json.dumps(record))
    return record


class StepReporter:
    """A reporter that records the steps."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, str, float | None]] = []

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        self.steps.append((done, total, detail, seconds_left))


class InProcessPool:
    """A process pool that runs jobs in this process."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> InProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def shutdown(self, **_: object) -> None:
        pass

    def submit(self, work: object, job: Sum) -> object:
        from concurrent.futures import Future

        future: Future[JobRecord] = Future()
        try:
            future.set_result(work(job))  # type: ignore[operator]
        except VideoError as error:
            future.set_exception(error)
        return future


def test_records_are_ordered_and_stored_ones_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_edit.studies.jobs.ProcessPoolExecutor", InProcessPool)
    jobs, reporter = [Sum(number, tmp_path) for number in range(6)], StepReporter()
    add_one(jobs[0])
    assert [record["sum"] for record in run_jobs("sums", add_one, jobs, 1, reporter)] == [1, 2, 3, 4, 5, 6]
    assert reporter.steps[0] == (0, 6, "", None)
    assert [seconds_left for *_, seconds_left in reporter.steps[1:]] == [500.0, 400.0, 300.0, 200.0, 100.0, 0.0]
    with pytest.raises(VideoError, match="thirteen"):
        run_jobs("sums", add_one, [Sum(13, tmp_path), *jobs], 2, StepReporter())


ENDLESS = """
import os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
from lora_edit.reporting import SilentReporter
from lora_edit.studies.jobs import run_jobs

@dataclass(frozen=True)
class Endless:
    number: int
    file: Path = Path("nothing.json")

def sleep(job):
    Path(f"worker-{job.number}").write_text(str(os.getpid()))
    time.sleep(3600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes may inherit an ignored SIGINT
    run_jobs("endless", sleep, [Endless(number) for number in range(5)], 2, SilentReporter())
"""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_interruption_kills_workers(tmp_path: Path, signal_number: signal.Signals) -> None:
    """The signal goes to the command alone, as from `kill`; queued jobs do not start."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    study = subprocess.Popen([sys.executable, "endless.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    files = [tmp_path / "worker-0", tmp_path / "worker-1"]
    deadline = time.monotonic() + 300
    while not all(file.is_file() and file.read_text() for file in files) and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = [int(file.read_text()) for file in files]
    assert all(is_alive(worker) for worker in workers)
    study.send_signal(signal_number)
    assert study.wait(60) != 0
    deadline = time.monotonic() + 30
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(is_alive(worker) for worker in workers)
    assert len(list(tmp_path.glob("worker-*"))) == 2
