"""Devices, their dtypes and memory. No other module names a device."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch


def pick_device(name: str = "auto") -> torch.device:
    """Return the device `name`. `auto` is the first available one of CUDA, MPS and CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_compute_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 for CUDA, else float32: CPUs without matrix units are many times slower in bfloat16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def get_weight_memory_limit(device: torch.device) -> float:
    """Return the bytes that weights may use: 90 % of the free memory of a CUDA device, the rest being for activations; else infinity."""
    return 0.9 * get_free_device_bytes(device) if device.type == "cuda" else float("inf")


def get_free_device_bytes(device: torch.device) -> int:
    """Return the bytes of a CUDA device that no other program uses, this process's own included; 0 for other devices."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)


def get_peak_memory_bytes(device: torch.device) -> int | None:
    """Return the peak of allocated device memory in bytes; None without CUDA."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that `get_peak_memory_bytes` returns."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def synchronize_device(device: torch.device) -> None:
    """Wait until the device has finished all queued work, for instance before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def empty_device_cache(device: torch.device) -> None:
    """Release cached device memory, whose fragments may be too small for later allocations."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def get_device_name(device: torch.device) -> str:
    """Return the product name of a CUDA device, else the architecture of the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def allocate_transfer_buffer(num_bytes: int, device: torch.device) -> torch.Tensor:
    """Allocate `num_bytes` bytes of main memory `[num_bytes]` uint8, page-locked for CUDA so that copies overlap computation."""
    return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")


CopyEvent = torch.cuda.Event | None
"""Event of a pending copy; None if the copy is complete."""


class AsyncCopier:
    """Copies tensors from main memory while the device computes. Without CUDA, copies are synchronous."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def start_copy(self, target: torch.Tensor, source: torch.Tensor) -> CopyEvent:
        """Queue a copy after all work queued so far, which may still read `target`. Returns the event for `wait_for_copy`."""
        if self._stream is None:
            target.copy_(source)
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def wait_for_copy(self, event: CopyEvent) -> None:
        """Make work that is queued from now on wait for the copy."""
        if event is not None and self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(event)


def get_peak_host_memory_bytes() -> int:
    """Return the peak of main memory of this process in bytes; 0 if the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return int(peak if sys.platform == "darwin" else peak * 1024)


@dataclass(frozen=True)
class Machine:
    """Free bytes of the device (0 without CUDA) and of main memory, and floating-point operations per second of matmuls in `dtype`.

    What this process has allocated on the device counts as free.
    """

    device_bytes: float
    host_bytes: float
    flops_per_second: float
    dtype: torch.dtype


def measure_machine() -> Machine:
    """Measure this machine. Takes a fraction of a second, as the rate is measured on a product of two square matrices."""
    device = pick_device()
    dtype = pick_compute_dtype(device)
    rate = measure_matmul_rate(device, dtype)  # first, because it loads the device's libraries, which take memory
    return Machine(float(get_free_device_bytes(device)), float(get_free_host_bytes()), rate, dtype)


def measure_matmul_rate(device: torch.device, dtype: torch.dtype, side: int = 0, repeats: int = 4) -> float:
    """Measure floating-point operations per second of a product of two square matrices; the best of `repeats`.

    `side` is the size of the matrices; 0 selects one for the device.
    """
    side = side or (1024 if device.type == "cpu" else 8192)
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        synchronize_device(device)
        started = time.perf_counter()
        matrix @ matrix
        synchronize_device(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def get_free_host_bytes() -> int:
    """Return the bytes of main memory and swap that programs can still allocate, within a container's limit (cgroup v2)."""
    import psutil

    free: int = psutil.virtual_memory().available + psutil.swap_memory().free
    return min((free, *_read_cgroup_limit()))


def _read_cgroup_limit() -> tuple[int, ...]:
    """Return the free bytes below a container's limit, with caches counted as free; empty without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text("ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
    except (OSError, ValueError):
        return ()
    return (limit - int(stat.get("anon", 0)),)
