"""Number of compute threads: as requested, else the number of free cores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch

from lora_edit import threads
from lora_edit.threads import (
    ThreadAllocation,
    configure_threads,
    count_free_cores,
    count_usable_cores,
    read_busy_seconds,
    read_cgroup_cores,
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def machine(patch: pytest.MonkeyPatch, cores: int, load: float, busy: float) -> None:
    patch.setattr(threads, "_get_affinity", lambda: set(range(cores)))
    patch.setattr(threads, "_get_load_average", lambda: load)
    patch.setattr(threads, "_measure_busy_cores", lambda: busy)


@pytest.mark.parametrize(
    ("cores", "load", "busy", "free"),
    [
        (2, 0.0, 0.0, 2),
        (2, 0.9, 1.0, 1),
        (2, 3.0, 2.0, 1),
        (8, 3.2, 2.9, 5),
        (8, 7.9, 0.1, 8),  # other work has ended
        (8, 0.3, 7.9, 8),  # other work has just begun
        (1, 9.0, 1.0, 1),
    ],
)
def test_free_cores_exclude_those_of_other_work(monkeypatch: pytest.MonkeyPatch, cores: int, load: float, busy: float, free: int) -> None:
    machine(monkeypatch, cores, load, busy)
    assert count_free_cores(cores) == free


def test_cpu_quota_limits_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota of two cores on 64 cores, of which others use 30."""
    machine(monkeypatch, 64, 30, 30)
    monkeypatch.setattr(threads, "read_cgroup_cores", lambda: 2.0)
    assert count_usable_cores() == 2
    assert count_free_cores(2) == 2


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/job/step", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 100000\n"}, 2.0),
        ("3:cpu,cpuacct:/job", {"cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("4:memory:/job", {"memory/job/cpu.max": "1 1\n"}, None),
        ("", {}, None),
    ],
)
def test_cgroup_quota_is_read(tmp_path: Path, groups: str, files: dict[str, str], cores: float | None) -> None:
    for name, text in {"proc/self/cgroup": groups, **{f"groups/{name}": text for name, text in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_cgroup_cores(tmp_path / "groups", tmp_path / "proc") == cores


def test_busy_seconds_count_allowed_cores_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_get_affinity", lambda: {1})
    tick = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text(f"cpu  9 9 9 9 0 0 0 0 0 0\ncpu0 7 7 7 7 0 0 0 0 0 0\ncpu1 {tick} {tick} {tick} 5 5 {tick} {tick} {tick} 0 0\n")
    assert read_busy_seconds(stat) == 6
    assert read_busy_seconds(tmp_path / "none") is None


def test_thread_count_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4, 1, 1)
    monkeypatch.setattr(threads, "read_cgroup_cores", lambda: None)
    for wanted, environment, used in (
        (2, "3", ThreadAllocation(2, 4)),
        (None, "3,2", ThreadAllocation(3, 4)),
        (None, "", ThreadAllocation(3, 4, is_reduced=True)),
        (None, "many", ThreadAllocation(3, 4, is_reduced=True)),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
        assert configure_threads(wanted) == used
        count = used.count
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (count, count)
    assert str(ThreadAllocation(1, 2)) == "1 thread on 2 cores"


COMMAND = """
import sys
from lora_edit.cli import main
main.app = lambda **_: None
assert "torch" not in sys.modules, "torch was loaded before the wait policy was set"
main.main()
import os
print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_command_sets_passive_wait_policy_by_default(given: str | None, kept: str) -> None:
    """Before torch is loaded, which reads the variables. Importing the library sets nothing."""
    environment = {name: value for name, value in os.environ.items() if name not in threads.PASSIVE_WAIT_ENVIRONMENT}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    done = subprocess.run([sys.executable, "-c", COMMAND], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == kept
    code = "import lora_edit.threads, os; print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(given)
