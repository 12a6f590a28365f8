"""Checkpoints of a training run, written atomically."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, BinaryIO, cast

import torch
from torch import nn

from lora_edit.atomic_files import replace_file
from lora_edit.errors import RunError, TrainingDivergedError, is_out_of_memory

DIVERGENCE_REMEDY = "the last checkpoint is kept; lower training.learning_rate or use another number format of the weights, and run again"
"""What to do about a loss that is not finite."""

_LOAD_ERRORS = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
    AssertionError,
)  # fmt: skip
"""What the ZIP library and PyTorch raise for a damaged file, and for one with other contents than a checkpoint."""


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
    """Write a checkpoint atomically. `keys` are the keys of the stages begun.

    Raises `TrainingDivergedError` instead when a parameter is not finite: the earlier checkpoint stays.
    """
    if not _is_finite(parameters.values()):
        steps = sum(map(len, progress.losses))
        raise TrainingDivergedError(f"the LoRA is not finite after step {steps}; {DIVERGENCE_REMEDY}")
    state = {
        "keys": list(keys),
        "losses": progress.losses,
        "held_out": progress.held_out_losses,
        "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
        "optimiser": optimiser.state_dict(),
    }
    with replace_file(path) as partial, partial.open("wb") as file:
        recording_file = _ErrorRecordingFile(file)
        try:
            torch.save(state, cast(IO[bytes], recording_file))
        except RuntimeError:
            if recording_file.error:  # PyTorch's own error only reports an unexpected position
                raise recording_file.error from None
            raise


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
    paths: Sequence[Path],
    parameters: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    keys: Sequence[str],
    on_note: Callable[[str], None] = lambda text: None,
) -> Progress:
    """Restore the first checkpoint whose stages are the first ones of `keys`; without one, return empty progress.

    A damaged file is skipped, and `on_note` receives a remark on it. Raises `RunError` for an intact one that does not fit the LoRA.
    """
    for path in paths:
        state = _read_state(path, on_note)
        stage_keys = state.get("keys")
        if not stage_keys or stage_keys != list(keys[: len(stage_keys)]):
            continue
        try:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(state["parameters"][name])
            optimiser.load_state_dict(state["optimiser"])
            return Progress(state["losses"], state["held_out"])
        except _LOAD_ERRORS as error:
            if is_out_of_memory(error):
                raise
            raise RunError(
                f"{path}: the state of the training does not fit ({str(error).strip().partition(chr(10))[0][:200]}); remove this file, and "
                "training starts again from its last whole stage"
            ) from error
    return Progress()


def _read_state(path: Path, on_note: Callable[[str], None]) -> dict[str, Any]:
    """Read a checkpoint; empty when it is missing, damaged or not finite. Its checksums are those of the ZIP file that PyTorch writes."""
    if not path.exists():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            is_intact = archive.testzip() is None
        state: Any = torch.load(path, map_location="cpu", weights_only=True) if is_intact else None
        if isinstance(state, dict) and _is_finite(state.get("parameters", {}).values()):
            return state
    except _LOAD_ERRORS as error:
        if is_out_of_memory(error):
            raise
    on_note(f"{path}: the checkpoint is damaged and is not used; training continues from an earlier state")
    return {}


def _is_finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
