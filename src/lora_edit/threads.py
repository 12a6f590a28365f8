"""How many threads compute: as many as the machine has cores that nothing else uses.

Threads that share a core with other work hold each other up: each step of a computation ends when its slowest thread does, and threads that
spin while they wait take the time that it needs. Importing this module loads no library.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

PASSIVE_WAIT_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""How threads wait, as their libraries read it when they are loaded: GNU's and Intel's OpenMP, OpenBLAS."""

SAMPLE_SECONDS = 0.2
"""Seconds over which other work is measured."""

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


@dataclass(frozen=True)
class ThreadAllocation:
    """`count` threads on a machine that lets this process use `cores` cores; `spared` when there are fewer because others use the rest."""

    count: int
    cores: int
    is_reduced: bool = False

    def __str__(self) -> str:
        """In words, for logs."""
        return f"{self.count} thread{'' if self.count == 1 else 's'} on {self.cores} core{'' if self.cores == 1 else 's'}"


def set_passive_wait_policy() -> None:
    """Let threads without work sleep instead of spin. Takes effect on libraries that are loaded later; what a person has set stays."""
    for name, value in PASSIVE_WAIT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def configure_threads(num_threads: int | None = None) -> ThreadAllocation:
    """Set the number of threads of torch and OpenCV: `wanted`, else OMP_NUM_THREADS where it is set, else the cores that are free."""
    import cv2
    import torch

    cores = count_usable_cores()
    said = num_threads or _read_omp_num_threads()
    count = said or count_free_cores(cores)
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    return ThreadAllocation(count, cores, not said and count < cores)


def _read_omp_num_threads() -> int:
    """What OMP_NUM_THREADS says, for the outermost level; 0 where it says nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def count_usable_cores() -> int:
    """How many cores this process may use: by its affinity and by its control group's share of processor time."""
    cores = len(_get_affinity())
    quota = read_cgroup_cores()
    return cores if quota is None else max(1, min(cores, round(quota)))


def count_free_cores(cores: int) -> int:
    """Of that many usable cores those that other processes leave free, at least one.

    Other work counts when it is there now and has been there for a while: neither a job that has just ended nor a short one holds us up.
    """
    allowed = len(_get_affinity())
    others = min(_get_load_average(), _measure_busy_cores())
    return max(1, min(cores, round(allowed - others)))


def read_cgroup_cores(cgroups: Path = CGROUPS, proc: Path = PROC) -> float | None:
    """The processor time that the control group grants, in cores; None where nothing limits it. Of nested groups the strictest counts."""
    found = []
    for line in _read_lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / controllers if controllers else cgroups
        place = root / path.lstrip("/")
        found += [quota for folder in (place, *place.parents) if folder.is_relative_to(root) and (quota := _read_quota(folder)) is not None]
    return min(found, default=None)


def _read_quota(folder: Path) -> float | None:
    """The limit of one control group: `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1."""
    words = " ".join(_read_lines(folder / "cpu.max")).split()
    if not words:
        words = [*_read_lines(folder / "cpu.cfs_quota_us"), *_read_lines(folder / "cpu.cfs_period_us")]
    if len(words) != 2 or not words[0].isdecimal() or not int(words[1]):  # "max" or -1: no limit
        return None
    return int(words[0]) / int(words[1])


def _get_affinity() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not on macOS and Windows
        return set(range(os.cpu_count() or 1))


def _get_load_average() -> float:
    """Processes that wanted to compute, mean over a minute; endless where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return float("inf")


def _measure_busy_cores() -> float:
    """How many of our cores other processes use now; endless where the system does not say."""
    before, own = read_busy_seconds(), time.process_time()
    if before is None:
        return float("inf") if _get_load_average() < float("inf") else 0.0
    started = time.monotonic()
    time.sleep(SAMPLE_SECONDS)
    after = read_busy_seconds() or before
    return max(0.0, after - before - (time.process_time() - own)) / (time.monotonic() - started)


def read_busy_seconds(stat: Path = PROC / "stat") -> float | None:
    """Seconds that the cores of this process's affinity have computed since the machine started; None where the system does not say."""
    cores = {f"cpu{number}" for number in _get_affinity()}
    rows = [line.split() for line in _read_lines(stat)]
    ticks = [sum(map(int, row[1:4])) + sum(map(int, row[6:9])) for row in rows if row and row[0] in cores]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
