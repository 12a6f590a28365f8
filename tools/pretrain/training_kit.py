"""What both training scripts share: a schedule by wall clock, averaged weights, resumable checkpoints."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Clock:
    """Share of a time budget spent so far, in [0, 1]; survives a restart through `spent`."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.budget, self.before, self.started = minutes * 60, spent, time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds so far, earlier sessions included."""
        return self.before + time.monotonic() - self.started

    @property
    def share(self) -> float:
        """Part of the budget that is spent."""
        return min(1.0, self.spent / self.budget)

    def rate(self, peak: float, warm: float = 0.02, flat: float = 0.4) -> float:
        """Learning rate now: a linear rise, a plateau, then a cosine fall to two per cent."""
        if self.share < warm:
            return peak * max(0.02, self.share / warm)
        fall = max(0.0, (self.share - flat) / (1 - flat))
        return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move toward the module's present values."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside, then rename: a kill in between leaves the earlier file whole."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
