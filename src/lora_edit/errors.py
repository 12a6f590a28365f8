"""Exception classes.

LoraEditError
|-- InputError (also ValueError): invalid input; the message gives the fault, its location and the remedy; exit code 2
|   |-- VideoError: a clip or image cannot be read or written
|   |   `-- SigningError: a finished result cannot be signed
|   |-- MaskError: a mask or box does not fit the clip
|   |   `-- RegionError: the region misses the edit; has an image that shows both
|   |-- SettingsError: a setting is unknown or out of range
|   |-- ModelError: a model or LoRA file is missing, damaged or of another type
|   `-- RunError: a run folder is missing, in use, or belongs to another edit
|-- TrainingDivergedError: the loss is not finite; the last checkpoint is intact
`-- NonFiniteError: the output of the model is not finite
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FILESYSTEM_ERRNOS = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EDQUOT, errno.EFBIG, errno.EIO,
        errno.ESTALE, errno.EISDIR, errno.ELOOP,
    }
)  # fmt: skip
"""Errors of the file system that the user can fix."""

_OUT_OF_MEMORY_TEXTS = (
    "allocate memory", "not enough memory", "out of memory", "bad_alloc", "insufficient memory", "failed to allocate",
    "failed to map segment", "start new thread",
)  # fmt: skip
"""Parts of the messages of torch, OpenCV, the dynamic linker and the Rust libraries when memory runs out, which have no common class."""


class LoraEditError(Exception):
    """Base class of all exceptions of this package."""


class InputError(LoraEditError, ValueError):
    """Invalid input. The message is one line: the fault, its location and the remedy."""


class VideoError(InputError):
    """A clip or image cannot be read or written."""


class SigningError(VideoError):
    """A finished result cannot be signed."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception reports that memory ran out, on the device or in the machine."""
    if isinstance(error, InputError) or not isinstance(error, Exception):
        return False
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or any(each in text for each in _OUT_OF_MEMORY_TEXTS)
    )


def explain_system_error(error: Exception) -> str | None:
    """Explain an error that the file system or the machine's memory causes: the fault and the remedy. None for any other error."""
    if is_out_of_memory(error):
        return (
            "the machine ran out of memory; finished work is kept, so end other programs or shorten the clip (--frames), and run the same "
            "command again to resume"
        )
    if isinstance(error, OSError) and error.errno in FILESYSTEM_ERRNOS:
        name = error.filename2 or error.filename  # of a file that is renamed, its new name
        remedy = "remove it" if error.errno in (errno.EISDIR, errno.ELOOP) else "choose a writable folder with free space"
        return f"{f'{name}: ' if name else ''}{os.strerror(error.errno).lower()}; {remedy}"
    return None
