"""Named random generators derived from one seed, so that the noise of a step is the same after a restart and on every device."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed for one named purpose of a run."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def create_generator(seed: int, *names: str | int) -> torch.Generator:
    """Create a CPU generator for one named purpose. Callers draw on the CPU and move the result."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))
