"""Which device computes, and in which number format. The only file that knows device names."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass

import torch


def pick_device(wanted: str = "auto") -> torch.device:
    """`auto` is the first of CUDA, MPS and CPU that is present; anything else is taken as it is."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device is fast at it; CPUs without matrix units are many times slower in it, so float32 there."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def device_room(device: torch.device) -> float:
    """Bytes that weights may take there, with some left for what is computed; endless where the device is main memory."""
    return 0.9 * torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else float("inf")


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most device memory allocated so far; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def reset_peak_memory(device: torch.device) -> None:
    """Count `peak_memory_bytes` from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for, so that a clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def forget_freed(device: torch.device) -> None:
    """Give back what the device's library keeps of freed memory, in pieces that may be too small for what comes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_name(device: torch.device) -> str:
    """What the maker calls it; a CPU's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def transfer_memory(count: int, device: torch.device) -> torch.Tensor:
    """`count` bytes of main memory, page-locked where the device can then read them beside its computations."""
    return torch.empty(count, dtype=torch.uint8, pin_memory=device.type == "cuda")


Copied = torch.cuda.Event | None
"""A copy on its way; None when it is done."""


class Copies:
    """Copies from main memory that run beside the device's computations; on a CPU they are done at once."""

    def __init__(self, device: torch.device) -> None:
        self._beside = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def start(self, target: torch.Tensor, source: torch.Tensor) -> Copied:
        """Copy, once all that was asked of the device so far is done, as it may still read `target`. Returns what `finish` takes."""
        if self._beside is None:
            target.copy_(source)
            return None
        self._beside.wait_stream(torch.cuda.current_stream(self._beside.device))
        with torch.cuda.stream(self._beside):
            target.copy_(source, non_blocking=True)
            return self._beside.record_event()

    def finish(self, copied: Copied) -> None:
        """What is asked of the device from here on waits for the copy."""
        if copied is not None and self._beside is not None:
            torch.cuda.current_stream(self._beside.device).wait_event(copied)


def host_memory_bytes() -> int:
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
    rate: float
    dtype: torch.dtype


def this_machine() -> Machine:
    """What this machine has. Takes a fraction of a second: the rate is measured on a product of two square matrices."""
    device = pick_device()
    own = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    dtype = compute_dtype(device)
    return Machine(float(own), float(_main_memory()), matrix_rate(device, dtype), dtype)


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int = 0, repeats: int = 4) -> float:
    """Floating-point operations per second of a product of two square matrices, the best of some repeats; `side` 0 fits the device."""
    side = side or (1024 if device.type == "cpu" else 8192)
    left = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        left @ left
        synchronise(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _main_memory() -> int:
    """All of it; what nothing says is taken as endless."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize
