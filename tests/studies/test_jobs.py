"""Jobs in processes, and the time that is left of them."""

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
    ("spent", "waiting", "workers", "left"),
    [
        ([], 3, 1, 30.0),  # one after the other
        ([4.0], 2, 1, 26.0),
        ([10.0, 10.0, 10.0], 4, 4, 10.0),  # the first of four in step is done, and three are about to be
        ([5.0, 0.0, 0.0], 0, 4, 10.0),  # nothing waits: the last to begin decides
        ([2.0], 1, 2, 10.0),
        ([99.0], 0, 2, 0.0),  # longer than the others took
    ],
)
def test_the_time_left_counts_the_workers(spent: list[float], waiting: int, workers: int, left: float) -> None:
    assert estimate_seconds_left(10.0, spent, waiting, workers) == left


@dataclass(frozen=True)
class Sum:
    """Work for a test: adds one, and fails at 13."""

    number: int
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / f"{self.number}.json"


def add_one(job: Sum) -> JobRecord:
    if job.number == 13:
        raise VideoError("thirteen: no such number")
    if job.file.is_file():
        return dict(json.loads(job.file.read_text()))
    record = {"kind": f"sum {job.number}", "sum": job.number + 1, "seconds": 100.0}
    job.file.write_text(json.dumps(record))
    return record


class Steps:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str, float | None]] = []

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        self.seen.append((done, total, detail, seconds_left))


class _Here:
    """A pool of one process, this one."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> _Here:
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


def test_records_come_in_order_and_what_is_kept_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_edit.studies.jobs.ProcessPoolExecutor", _Here)
    jobs, steps = [Sum(number, tmp_path) for number in range(6)], Steps()
    add_one(jobs[0])
    assert [record["sum"] for record in run_jobs("sums", add_one, jobs, 1, steps)] == [1, 2, 3, 4, 5, 6]
    assert steps.seen[0] == (0, 6, "", None)
    assert [left for *_, left in steps.seen[1:]] == [500.0, 400.0, 300.0, 200.0, 100.0, 0.0]
    with pytest.raises(VideoError, match="thirteen"):
        run_jobs("sums", add_one, [Sum(13, tmp_path), *jobs], 2, Steps())


ENDLESS = """
import os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
from lora_edit.reporting import Silent
from lora_edit.studies.jobs import run_jobs

@dataclass(frozen=True)
class Endless:
    number: int
    file: Path = Path("nothing.json")

def last(job):
    Path(f"worker-{job.number}").write_text(str(os.getpid()))
    time.sleep(3600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background may leave interrupts alone
    run_jobs("endless", last, [Endless(number) for number in range(5)], 2, Silent())
"""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interruption_ends_the_workers_too(tmp_path: Path, sent: signal.Signals) -> None:
    """Sent to the command alone, as `kill` does; what waited is not begun."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    study = subprocess.Popen([sys.executable, "endless.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    files = [tmp_path / "worker-0", tmp_path / "worker-1"]
    deadline = time.monotonic() + 300
    while not all(file.is_file() and file.read_text() for file in files) and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = [int(file.read_text()) for file in files]
    assert all(alive(worker) for worker in workers)
    study.send_signal(sent)
    assert study.wait(60) != 0
    deadline = time.monotonic() + 30
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(alive(worker) for worker in workers)
    assert len(list(tmp_path.glob("worker-*"))) == 2
