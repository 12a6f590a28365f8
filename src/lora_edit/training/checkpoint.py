"""State of a training run that survives a kill at any moment."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import nn


@dataclass(frozen=True)
class Progress:
    """How far a run is: for every stage that it has begun, the loss of each step done, and the held-out losses where those are watched."""

    losses: list[list[float]] = field(default_factory=list)
    held_out_losses: list[list[float]] = field(default_factory=list)


def get_stage_path(path: Path, stage: str) -> Path:
    """Where the state at the end of a stage is kept once another one follows it: beside the run's checkpoint."""
    return path.with_stem(f"{path.stem}-{stage}")


def save_checkpoint(
    path: Path, parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, progress: Progress, keys: Sequence[str]
) -> None:
    """Write to a neighbour, flush to disk, then rename: the file is always a whole one. `keys` are those of the stages begun."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    state = {
        "keys": list(keys),
        "losses": progress.losses,
        "held_out": progress.held_out_losses,
        "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
        "optimiser": optimiser.state_dict(),
    }
    try:
        with part.open("wb") as file:
            watched = _ErrorRecordingFile(file)
            try:
                torch.save(state, cast(IO[bytes], watched))
            except RuntimeError:
                if watched.error:  # PyTorch says only that its position is unexpected
                    raise watched.error from None
                raise
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class _ErrorRecordingFile(io.RawIOBase):
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise


def load_checkpoint(
    paths: Sequence[Path], parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, keys: Sequence[str]
) -> Progress:
    """Put the first checkpoint back whose stages are the first ones of `keys`, or start anew when there is none."""
    for path in paths:
        if not path.exists():
            continue
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state.get("keys")
        if not found or found != list(keys[: len(found)]):
            continue
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state["parameters"][name])
        optimiser.load_state_dict(state["optimiser"])
        return Progress(state["losses"], state["held_out"])
    return Progress()
