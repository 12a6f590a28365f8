"""Exception classes.

LoraEditError
|-- InputError (also ValueError): invalid input; the message gives the fault, its location and the remedy; exit code 2
|   |-- VideoError: a clip or image cannot be read or written
|   |-- MaskError: a mask or box does not fit the clip
|   |   `-- RegionError: the region misses the edit; has an image that shows both
|   |-- SettingsError: a setting is unknown or out of range
|   |-- ModelError: a model or LoRA file is missing, damaged or of another type
|   `-- RunError: a run folder is missing, in use, or belongs to another edit
|-- TrainingDivergedError: the loss is not finite; the last checkpoint is intact
`-- NonFiniteError: the output of the model is not finite
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class LoraEditError(Exception):
    """Base class of all exceptions of this package."""


class InputError(LoraEditError, ValueError):
    """Invalid input. The message is one line: the fault, its location and the remedy."""


class VideoError(InputError):
    """A clip or image cannot be read or written."""


class MaskError(InputError):
    """A mask or box does not fit the clip."""


class RegionError(MaskError):
    """The region misses the edit. `image` `[H, W, 3]` uint8 shows both."""

    def __init__(self, message: str, image: torch.Tensor) -> None:
        super().__init__(message)
        self.image = image


class SettingsError(InputError):
    """A setting is unknown or out of range."""


class ModelError(InputError):
    """A model or LoRA file is missing, damaged or of another type."""


class RunError(InputError):
    """A run folder is missing, in use, or belongs to another edit."""


class TrainingDivergedError(LoraEditError):
    """The loss is not finite."""


class NonFiniteError(LoraEditError):
    """The output of the model is not finite, and would decode to black or noise."""
