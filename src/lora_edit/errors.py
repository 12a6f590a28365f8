"""Everything that can go wrong, in one tree.

LoraEditError
|-- InputError (also ValueError): the input is at fault; the message says what, where and what to do; exit code 2
|   |-- VideoError: a clip or image cannot be read or written
|   |-- MaskError: a mask or box does not fit the clip
|   |   `-- RegionError: the region misses the edit; comes with a picture that shows it
|   |-- SettingsError: a setting is unknown or out of range
|   |-- ModelError: a model or LoRA file is missing, damaged or of another kind
|   `-- RunError: a run folder is missing, in use, or belongs to another edit
|-- TrainingDiverged: the loss is no longer a finite number; the last checkpoint is whole
`-- NotFinite: the model answered with numbers that are not finite
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class LoraEditError(Exception):
    """Root of this package's errors."""


class InputError(LoraEditError, ValueError):
    """The input is at fault. The message is one line: what, where, what to do."""


class VideoError(InputError):
    """A clip or image cannot be read or written."""


class MaskError(InputError):
    """A mask or box does not fit the clip."""


class RegionError(MaskError):
    """The region misses the edit. `picture` `[H, W, 3]` uint8 shows both, for whoever reports the error."""

    def __init__(self, message: str, image: torch.Tensor) -> None:
        super().__init__(message)
        self.image = image


class SettingsError(InputError):
    """A setting is unknown or out of range."""


class ModelError(InputError):
    """A model or LoRA file is missing, damaged or of another kind."""


class RunError(InputError):
    """A run folder is missing, in use, or belongs to another edit."""


class TrainingDivergedError(LoraEditError):
    """The loss is no longer a finite number."""


class NonFiniteError(LoraEditError):
    """The model answered with numbers that are not finite: what it would draw is black or noise."""
