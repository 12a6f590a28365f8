"""The queue of long work: order, stopping, failures, and what pages can read meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from lora_edit.errors import InputError, MaskError, RunError
from lora_edit.reporting import PreviewReporter, Reporter
from lora_edit.threads import ThreadAllocation
from lora_edit.ui import jobs
from lora_edit.ui.jobs import ForegroundRunner, JobQueue, JobReporter
from lora_edit.ui.step_run import describe_job


def gated(gate: threading.Event, begun: threading.Event, order: list[str], name: str) -> object:
    """Work that says that it has begun and waits."""

    def work(reporter: Reporter) -> str:
        order.append(name)
        begun.set()
        assert gate.wait(10)
        for done in range(3):
            reporter.step("motion", done, 3)
        return name

    return work


def test_jobs_are_done_one_after_the_other_in_the_order_they_came(tmp_path: Path) -> None:
    desk, gate, begun, order = JobQueue(), threading.Event(), threading.Event(), []
    handed = [desk.submit(name, "edit", gated(gate, begun, order, name), tmp_path / "log") for name in "abc"]
    assert begun.wait(10)
    assert [desk.count_jobs_ahead(job) for job in handed] == [0, 1, 2]
    assert [job.state for job in handed] == ["running", "waiting", "waiting"]
    gate.set()
    assert all(desk.wait(job, 10) for job in handed)
    assert order == ["a", "b", "c"]
    assert [job.result for job in handed] == ["a", "b", "c"]
    assert {job.state for job in handed} == {"done"}


def test_a_project_has_one_job_at_a_time_and_others_do_not_see_it(tmp_path: Path) -> None:
    desk, gate, begun = JobQueue(), threading.Event(), threading.Event()
    job = desk.submit("a", "edit", gated(gate, begun, [], "a"), tmp_path / "log")
    with pytest.raises(RunError, match="still under way"):
        desk.submit("a", "edit", gated(gate, begun, [], "a"), tmp_path / "log")
    assert desk.get_latest_job("b") is None
    gate.set()
    assert desk.wait(job, 10)
    again = desk.submit("a", "again", lambda reporter: 7, tmp_path / "log")
    assert desk.wait(again, 10)
    assert desk.get_latest_job("a") is again


def test_a_running_job_stops_at_its_next_step_and_a_waiting_one_at_once(tmp_path: Path) -> None:
    desk, gate, begun, order = JobQueue(), threading.Event(), threading.Event(), []
    running = desk.submit("a", "edit", gated(gate, begun, order, "a"), tmp_path / "log")
    waiting = desk.submit("b", "edit", gated(gate, begun, order, "b"), tmp_path / "log")
    assert begun.wait(10)
    desk.stop("b")
    desk.stop("a")
    assert waiting.state == "stopped"
    assert running.state == "stopping"
    gate.set()
    assert desk.wait(running, 10)
    assert running.state == "stopped"
    assert running.done == 0
    assert order == ["a"]
    desk.stop("a")
    assert running.state == "stopped"


def test_failures_say_what_is_wrong_and_the_desk_goes_on(tmp_path: Path) -> None:
    desk, log = JobQueue(), tmp_path / "log.txt"

    def faulty(reporter: Reporter) -> None:
        raise MaskError("the mask has no white pixel")

    def broken(reporter: Reporter) -> None:
        raise ZeroDivisionError("a secret")

    first, second, third = (desk.submit(name, "edit", work, log) for name, work in (("a", faulty), ("b", broken), ("c", lambda r: 1)))
    assert desk.wait(third, 10)
    assert (first.state, first.error) == ("failed", "the mask has no white pixel")
    assert second.state == "failed"
    assert "ZeroDivisionError" in second.error
    assert "a secret" not in second.error
    assert "a secret" in log.read_text("utf-8")
    assert third.state == "done"


def test_the_time_left_is_told_by_the_stage_s_own_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.Job("a", "edit", lambda reporter: None, tmp_path / "log")
    watch, clock = JobReporter(job), [100.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    watch.step("motion", 40, 100)
    assert job.seconds_left is None
    clock[0] = 110.0
    watch.step("motion", 60, 100)
    assert job.seconds_left == pytest.approx(20.0)
    watch.step("generate", 1, 30)
    assert job.seconds_left is None


def test_what_comes_after_training_is_told_by_its_measured_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it takes three times as long as was estimated: 100 seconds for all steps."""
    job, clock = jobs.Job("a", "edit", lambda reporter: None, tmp_path / "log", planned_seconds=(100.0, 20.0)), [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    watch = JobReporter(job)
    job.state = "running"
    watch.step("motion", 0, 50)
    clock[0] = 60.0
    watch.step("motion", 10, 50)
    assert (job.seconds_left, job.seconds_after_training) == (pytest.approx(240.0), pytest.approx(60.0))
    assert describe_job(job, 0) == "Edit: learning the motion, 10 of 50, about 5 min left, 1 min of it to draw the result"
    watch.step("generate", 1, 3)
    assert job.seconds_after_training is None
    job.state, job.start_time, job.end_time = "stopped", 1.0, 61.0
    assert describe_job(job, 0) == "Edit: stopped, at step 1 of 3, after 1 min"


def test_looks_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, clock = jobs.Job("a", "edit", lambda reporter: None, tmp_path / "log"), [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    watch = JobReporter(job)
    assert isinstance(watch, PreviewReporter)
    spent = 0.0

    def draw() -> torch.Tensor:
        nonlocal spent
        clock[0] += 5.0
        spent += 5.0
        return torch.zeros(1, 4, 4, 3, dtype=torch.uint8)

    while clock[0] < 1000:
        clock[0] += 0.5
        watch.show_preview(draw)
    assert 0 < spent <= 0.12 * clock[0]
    assert job.preview_count == spent / 5


def test_newer_work_that_a_page_waits_for_takes_the_place_of_older(tmp_path: Path) -> None:
    hands, begun, go = ForegroundRunner(), threading.Event(), threading.Event()

    def endless(reporter: Reporter) -> None:
        while True:
            begun.set()
            go.wait(10)
            reporter.step("follow", 1, 2)

    first = hands.register_job("a", "follow", endless, tmp_path / "log")
    doing = threading.Thread(target=hands.run_job, args=(first,))
    doing.start()
    assert begun.wait(10)
    second = hands.register_job("a", "follow", lambda reporter: "done", tmp_path / "log")
    go.set()
    doing.join(10)
    assert (first.state, second.state) == ("stopped", "waiting")
    hands.run_job(second)
    hands.run_job(second)
    assert (second.state, second.result, hands.get_latest_job("a")) == ("done", "done", second)


def test_work_that_was_stopped_before_it_began_is_not_done_and_failures_are_told(tmp_path: Path) -> None:
    hands = ForegroundRunner()
    job = hands.register_job("a", "follow", lambda reporter: 1 / 0, tmp_path / "log")
    hands.stop("a")
    hands.run_job(job)
    assert job.state == "stopped"

    def fails(reporter: Reporter) -> None:
        raise InputError("nothing is there")

    with pytest.raises(InputError, match="nothing is there"):
        hands.run_job(hands.register_job("a", "follow", fails, tmp_path / "log"))


@pytest.mark.parametrize(("used", "said"), [(ThreadAllocation(1, 2, is_reduced=True), True), (ThreadAllocation(2, 2), False)])
def test_a_job_says_when_other_programs_leave_it_few_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: ThreadAllocation, said: bool
) -> None:
    monkeypatch.setattr(jobs, "configure_threads", lambda wanted: used)
    desk = JobQueue()
    job = desk.submit("a", "edit", lambda reporter: None, tmp_path / "log.txt")
    assert desk.wait(job, 10)
    assert any("1 thread on 2 cores" in note for note in job.notes) == said
