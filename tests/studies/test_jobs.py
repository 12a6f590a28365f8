"""Jobs in processes, and the time that is left of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_edit.errors import VideoError
from lora_edit.studies.jobs import Record, run_jobs, seconds_left


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
    assert seconds_left(10.0, spent, waiting, workers) == left


@dataclass(frozen=True)
class Sum:
    """Work for a test: adds one, and fails at 13."""

    number: int
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / f"{self.number}.json"


def add_one(job: Sum) -> Record:
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

    def step(self, stage: str, done: int, total: int, detail: str = "", left: float | None = None) -> None:
        self.seen.append((done, total, detail, left))


class _Here:
    """A pool of one process, this one."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: object, job: Sum) -> object:
        from concurrent.futures import Future

        future: Future[Record] = Future()
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
