"""Number of compute threads: by default the number of cores that no other program uses.

A parallel computation is as slow as its slowest thread, so a thread that shares its core with other work delays all, and threads that spin
while waiting take time from that work. Importing this module loads no library.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

PASSIVE_WAIT_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""Variables that libraries read when they are loaded, for threads to sleep while waiting: GNU and Intel OpenMP, OpenBLAS."""

SAMPLE_SECONDS = 0.2
"""Seconds over which the CPU use of other processes is measured."""

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


@dataclass(frozen=True)
class ThreadAllocation:
    """`count` threads for a process that may use `cores` cores. `is_reduced`: fewer threads than cores, as other processes use the rest."""

    count: int
    cores: int
    is_reduced: bool = False

    def __str__(self) -> str:
        """Format for logs."""
        return f"{self.count} thread{'' if self.count == 1 else 's'} on {self.cores} core{'' if self.cores == 1 else 's'}"


def set_passive_wait_policy() -> None:
    """Let idle threads of libraries that are loaded later sleep instead of spin. Variables that are already set stay."""
    for name, value in PASSIVE_WAIT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def configure_threads(num_threads: int | None = None) -> ThreadAllocation:
    """Set the number of threads of torch and OpenCV: `num_threads`, else OMP_NUM_THREADS, else the number of free cores."""
    import cv2
    import torch

    cores = count_usable_cores()
    requested = num_threads or _read_omp_num_threads()
    count = requested or count_free_cores(cores)
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    return ThreadAllocation(count, cores, not requested and count < cores)


def _read_omp_num_threads() -> int:
    """Read OMP_NUM_THREADS for the outermost level; 0 if it is not set."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def count_usable_cores() -> int:
    """Count the cores that this process may use by its CPU affinity and the CPU quota of its control group."""
    cores = len(_get_affinity())
    quota = read_cgroup_cores()
    return cores if quota is None else max(1, min(cores, round(quota)))


def count_free_cores(cores: int) -> int:
    """Count the usable `cores` that other processes leave free; at least one.

    Other work counts only if it runs now and has run for a while: jobs that have just ended, or that are short, are ignored.
    """
    num_allowed = len(_get_affinity())
    num_busy = min(_get_load_average(), _measure_busy_cores())
    return max(1, min(cores, round(num_allowed - num_busy)))


def read_cgroup_cores(cgroups: Path = CGROUPS, proc: Path = PROC) -> float | None:
    """Read the CPU quota of the control group in cores; None without a limit. The lowest of nested groups counts."""
    quotas = []
    for line in _read_lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / controllers if controllers else cgroups
        group = root / path.lstrip("/")
        quotas += [
            quota for folder in (group, *group.parents) if folder.is_relative_to(root) and (quota := _read_quota(folder)) is not None
        ]
    return min(quotas, default=None)


def _read_quota(folder: Path) -> float | None:
    """Read the quota of one control group: `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1."""
    fields = " ".join(_read_lines(folder / "cpu.max")).split()
    if not fields:
        fields = [*_read_lines(folder / "cpu.cfs_quota_us"), *_read_lines(folder / "cpu.cfs_period_us")]
    if len(fields) != 2 or not fields[0].isdecimal() or not int(fields[1]):  # "max" or -1: no limit
        return None
    return int(fields[0]) / int(fields[1])


def _get_affinity() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not on macOS and Windows
        return set(range(os.cpu_count() or 1))


def _get_load_average() -> float:
    """Return the mean number of runnable processes over a minute; infinity if the system does not report it."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return float("inf")


def _measure_busy_cores() -> float:
    """Measure how many of the allowed cores other processes use now; infinity if the system does not report it."""
    before, own_before = read_busy_seconds(), time.process_time()
    if before is None:
        return float("inf") if _get_load_average() < float("inf") else 0.0
    started = time.monotonic()
    time.sleep(SAMPLE_SECONDS)
    after = read_busy_seconds() or before
    return max(0.0, after - before - (time.process_time() - own_before)) / (time.monotonic() - started)


def read_busy_seconds(stat: Path = PROC / "stat") -> float | None:
    """Read the CPU seconds of the allowed cores since the machine started; None if the system does not report them."""
    cores = {f"cpu{number}" for number in _get_affinity()}
    rows = [line.split() for line in _read_lines(stat)]
    ticks = [sum(map(int, row[1:4])) + sum(map(int, row[6:9])) for row in rows if row and row[0] in cores]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
