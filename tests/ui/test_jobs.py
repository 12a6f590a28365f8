"""The job queue: order, stopping, failures, progress and previews."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from lora_edit.errors import InputError, MaskError, RunError
from lora_edit.reporting import PreviewReporter, Reporter
from lora_edit.threads import ThreadAllocation
from lora_edit.ui import jobs
from lora_edit.ui.jobs import JobQueue, JobReporter
from lora_edit.ui.step_run import describe_job


def gated(gate: threading.Event, started: threading.Event, order: list[str], name: str) -> object:
    """Work that sets `started` and waits for `gate`."""

    def work(reporter: Reporter) -> str:
        order.append(name)
        started.set()
        assert gate.wait(60)
        for done in range(3):
            reporter.step("motion", done, 3)
        return name

    return work


def test_jobs_run_one_after_the_other_in_order_of_submission(tmp_path: Path) -> None:
    queue, gate, started, order = JobQueue(), threading.Event(), threading.Event(), []
    submitted = [queue.submit(name, "edit", gated(gate, started, order, name), tmp_path / "log") for name in "abc"]
    assert started.wait(60)
    assert [queue.count_jobs_ahead(job) for job in submitted] == [0, 1, 2]
    assert [job.state for job in submitted] == ["running", "waiting", "waiting"]
    gate.set()
    assert all(queue.wait(job, 60) for job in submitted)
    assert order == ["a", "b", "c"]
    assert [job.result for job in submitted] == ["a", "b", "c"]
    assert {job.state for job in submitted} == {"done"}


def test_a_project_has_one_job_at_a_time(tmp_path: Path) -> None:
    queue, gate, started = JobQueue(), threading.Event(), threading.Event()
    job = queue.submit("a", "edit", gated(gate, started, [], "a"), tmp_path / "log")
    with pytest.raises(RunError, match="still under way"):
        queue.submit("a", "edit", gated(gate, started, [], "a"), tmp_path / "log")
    assert queue.get_latest_job("b") is None
    gate.set()
    assert queue.wait(job, 60)
    again = queue.submit("a", "again", lambda reporter: 7, tmp_path / "log")
    assert queue.wait(again, 60)
    assert queue.get_latest_job("a") is again


def test_a_running_job_stops_at_its_next_step_and_a_waiting_one_at_once(tmp_path: Path) -> None:
    queue, gate, started, order = JobQueue(), threading.Event(), threading.Event(), []
    running = queue.submit("a", "edit", gated(gate, started, order, "a"), tmp_path / "log")
    waiting = queue.submit("b", "edit", gated(gate, started, order, "b"), tmp_path / "log")
    assert started.wait(60)
    queue.stop("b")
    queue.stop("a")
    assert waiting.state == "stopped"
    assert running.state == "stopping"
    gate.set()
    assert queue.wait(running, 60)
    assert running.state == "stopped"
    assert running.done == 0
    assert order == ["a"]
    queue.stop("a")
    assert running.state == "stopped"


def test_the_queue_continues_after_failures(tmp_path: Path) -> None:
    queue, log = JobQueue(), tmp_path / "log.txt"

    def faulty(reporter: Reporter) -> None:
        raise MaskError("the mask has no white pixel")

    def broken(reporter: Reporter) -> None:
        raise ZeroDivisionError("a secret")

    first, second, third = (queue.submit(name, "edit", work, log) for name, work in (("a", faulty), ("b", broken), ("c", lambda r: 1)))
    assert queue.wait(third, 60)
    assert (first.state, first.error) == ("failed", "the mask has no white pixel")
    assert second.state == "failed"
    assert "ZeroDivisionError" in second.error
    assert "a secret" not in second.error
    assert "a secret" in log.read_text("utf-8")
    assert third.state == "done"


def test_remaining_time_uses_the_speed_of_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.Job("a", "edit", lambda reporter: None, tmp_path / "log")
    reporter, clock = JobReporter(job), [100.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    reporter.step("motion", 40, 100)
    assert job.seconds_left is None
    clock[0] = 110.0
    reporter.step("motion", 60, 100)
    assert job.seconds_left == pytest.approx(20.0)
    reporter.step("generate", 1, 30)
    assert job.seconds_left is None


def test_time_after_training_uses_the_measured_training_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training takes three times as long as estimated: 100 seconds for all steps."""
    job, clock = jobs.Job("a", "edit", lambda reporter: None, tmp_path / "log", planned_seconds=(100.0, 20.0)), [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    reporter = JobReporter(job)
    job.state = "running"
    reporter.step("motion", 0, 50)
    clock[0] = 60.0
    reporter.step("motion", 10, 50)
    assert (job.seconds_left, job.seconds_after_training) == (pytest.approx(240.0), pytest.approx(60.0))
    assert describe_job(job, 0) == "Edit: learning the motion, 10 of 50, about 5 min left, 1 min of it to generate the result"
    reporter.step("generate", 1, 3)
    assert job.seconds_after_training is None
    job.state, job.start_time, job.end_time = "stopped", 1.0, 61.0
    assert describe_job(job, 0) == "Edit: stopped, at step 1 of 3, after 1 min"


def test_previews_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, clock = jobs.Job("a", "edit", lambda reporter: None, tmp_path / "log"), [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    reporter = JobReporter(job)
    assert isinstance(reporter, PreviewReporter)
    spent = 0.0

    def draw() -> torch.Tensor:
        nonlocal spent
        clock[0] += 5.0
        spent += 5.0
        return torch.zeros(1, 4, 4, 3, dtype=torch.uint8)

    while clock[0] < 1000:
        clock[0] += 0.5
        reporter.show_preview(draw)
    assert 0 < spent <= 0.12 * clock[0]
    assert job.preview_count == spent / 5


def test_a_registered_job_replaces_the_previous_job(tmp_path: Path) -> None:
    queue, started, go = JobQueue(), threading.Event(), threading.Event()

    def endless(reporter: Reporter) -> None:
        while True:
            started.set()
            go.wait(60)
            reporter.step("follow", 1, 2)

    first = queue.register_job("a", "follow", endless, tmp_path / "log")
    runner = threading.Thread(target=queue.run_job, args=(first,))
    runner.start()
    assert started.wait(60)
    second = queue.register_job("a", "follow", lambda reporter: "done", tmp_path / "log")
    go.set()
    runner.join(60)
    assert (first.state, second.state) == ("stopped", "waiting")
    queue.run_job(second)
    queue.run_job(second)
    assert (second.state, second.result, queue.get_latest_job("a")) == ("done", "done", second)


def test_a_stopped_registered_job_does_not_run_and_failures_raise(tmp_path: Path) -> None:
    queue = JobQueue()
    job = queue.register_job("a", "follow", lambda reporter: 1 / 0, tmp_path / "log")
    queue.stop("a")
    queue.run_job(job)
    assert job.state == "stopped"

    def fails(reporter: Reporter) -> None:
        raise InputError("nothing is there")

    with pytest.raises(InputError, match="nothing is there"):
        queue.run_job(queue.register_job("a", "follow", fails, tmp_path / "log"))


@pytest.mark.parametrize(("allocation", "has_note"), [(ThreadAllocation(1, 2, is_reduced=True), True), (ThreadAllocation(2, 2), False)])
def test_a_note_reports_a_reduced_number_of_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocation: ThreadAllocation, has_note: bool
) -> None:
    monkeypatch.setattr(jobs, "configure_threads", lambda threads: allocation)
    queue = JobQueue()
    job = queue.submit("a", "edit", lambda reporter: None, tmp_path / "log.txt")
    assert queue.wait(job, 60)
    assert any("1 thread on 2 cores" in note for note in job.notes) == has_note


def test_a_log_of_tracebacks_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_LOG_BYTES", 1000)
    for number in range(100):
        jobs.write_traceback(tmp_path / "log.txt", ValueError(f"failure {number}"))
    assert "failure 99" in (tmp_path / "log.txt").read_text("utf-8")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3000
