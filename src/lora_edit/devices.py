"""Which device computes, and in which number format. The only file that knows device names."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass

import torch


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first of CUDA, MPS and CPU that is present; anything else is taken as it is."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device is fast at it; CPUs without matrix units are many times slower in it, so float32 there."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def get_weight_memory_limit(device: torch.device) -> float:
    """Bytes that weights may take there, with some left for what is computed; endless where the device is main memory."""
    return 0.9 * torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else float("inf")


def get_peak_memory_bytes(device: torch.device) -> int | None:
    """Most device memory allocated so far; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def reset_peak_memory(device: torch.device) -> None:
    """Count `peak_memory_bytes` from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def synchronize_device(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for, so that a clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def empty_device_cache(device: torch.device) -> None:
    """Give back what the device's library keeps of freed memory, in pieces that may be too small for what comes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def get_device_name(device: torch.device) -> str:
    """What the maker calls it; a CPU's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def allocate_transfer_buffer(num_bytes: int, device: torch.device) -> torch.Tensor:
    """`count` bytes of main memory, page-locked where the device can then read them beside its computations."""
    return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")


CopyEvent = torch.cuda.Event | None
"""A copy on its way; None when it is done."""


class AsyncCopier:
    """Copies from main memory that run beside the device's computations; on a CPU they are done at once."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def start_copy(self, target: torch.Tensor, source: torch.Tensor) -> CopyEvent:
        """Copy, once all that was asked of the device so far is done, as it may still read `target`. Returns what `finish` takes."""
        if self._stream is None:
            target.copy_(source)
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def wait_for_copy(self, event: CopyEvent) -> None:
        """What is asked of the device from here on waits for the copy."""
        if event is not None and self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(event)


def get_peak_host_memory_bytes() -> int:
    """Most memory this process has held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(held if sys.platform == "darwin" else held * 1024)


@dataclass(frozen=True)
class Machine:
    """Bytes of the device (0 where there is none but the CPU) and of main memory; matrix operations per second in `dtype`."""

    device_bytes: float
    host_bytes: float
    flops_per_second: float
    dtype: torch.dtype


def measure_machine() -> Machine:
    """What this machine has. Takes a fraction of a second: the rate is measured on a product of two square matrices."""
    device = pick_device()
    own = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    dtype = pick_compute_dtype(device)
    return Machine(float(own), float(_get_main_memory_bytes()), measure_matmul_rate(device, dtype), dtype)


def measure_matmul_rate(device: torch.device, dtype: torch.dtype, side: int = 0, repeats: int = 4) -> float:
    """Floating-point operations per second of a product of two square matrices, the best of some repeats; `side` 0 fits the device."""
    side = side or (1024 if device.type == "cpu" else 8192)
    left = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        synchronize_device(device)
        started = time.perf_counter()
        left @ left
        synchronize_device(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _get_main_memory_bytes() -> int:
    """All of it; what nothing says is taken as endless."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize
