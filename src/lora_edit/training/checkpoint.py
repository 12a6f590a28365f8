"""State of a training run that survives a kill at any moment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True)
class Progress:
    """How far a run is: for every stage that it has begun, the loss of each step done, and the held-out losses where those are watched."""

    losses: list[list[float]] = field(default_factory=list)
    held_out: list[list[float]] = field(default_factory=list)


def save(path: Path, parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, progress: Progress, key: str) -> None:
    """Write to a neighbour, flush to disk, then rename: the file is always a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    state = {
        "key": key,
        "losses": progress.losses,
        "held_out": progress.held_out,
        "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
        "optimiser": optimiser.state_dict(),
    }
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def restore(path: Path, parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, key: str) -> Progress:
    """Put a checkpoint back, or start anew when there is none or it belongs to other settings (`key`)."""
    if not path.exists():
        return Progress()
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["key"] != key:
        return Progress()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state["parameters"][name])
    optimiser.load_state_dict(state["optimiser"])
    return Progress(state["losses"], state["held_out"])
