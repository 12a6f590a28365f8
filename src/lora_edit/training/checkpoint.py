"""Checkpoints of a training run, written atomically."""

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
    """Progress of a run: for every stage begun, the loss of each step done, and the held-out losses where they are evaluated."""

    losses: list[list[float]] = field(default_factory=list)
    held_out_losses: list[list[float]] = field(default_factory=list)


def get_stage_path(path: Path, stage: str) -> Path:
    """Return the path of the state at the end of a stage that another one follows, next to the run's checkpoint."""
    return path.with_stem(f"{path.stem}-{stage}")


def save_checkpoint(
    path: Path, parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, progress: Progress, keys: Sequence[str]
) -> None:
    """Write a checkpoint to a temporary file, flush it to disk, and rename it, so that the file is always complete.

    `keys` are the keys of the stages begun.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    state = {
        "keys": list(keys),
        "losses": progress.losses,
        "held_out": progress.held_out_losses,
        "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
        "optimiser": optimiser.state_dict(),
    }
    try:
        with temporary.open("wb") as file:
            recording_file = _ErrorRecordingFile(file)
            try:
                torch.save(state, cast(IO[bytes], recording_file))
            except RuntimeError:
                if recording_file.error:  # PyTorch's own error only reports an unexpected position
                    raise recording_file.error from None
                raise
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _ErrorRecordingFile(io.RawIOBase):
    """A binary file that records the error of a failed write."""

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
    """Restore the first checkpoint whose stages are the first ones of `keys`; without one, return empty progress."""
    for path in paths:
        if not path.exists():
            continue
        state = torch.load(path, map_location="cpu", weights_only=True)
        stage_keys = state.get("keys")
        if not stage_keys or stage_keys != list(keys[: len(stage_keys)]):
            continue
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state["parameters"][name])
        optimiser.load_state_dict(state["optimiser"])
        return Progress(state["losses"], state["held_out"])
    return Progress()
