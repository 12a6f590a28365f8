"""Checks of clips and masks that all metrics share, and the iteration over their frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lora_edit.errors import MaskError, VideoError
from lora_edit.types import BoolArray, UInt8Array


def require_same_shape(result: torch.Tensor, other: torch.Tensor, name: str) -> None:
    """Raise `VideoError` unless both clips `[T, H, W, 3]` have the same length and size; `name` describes `other` in the message."""
    if result.shape != other.shape:
        raise VideoError(
            f"the result has {_format_dimensions(result)} but the {name} has {_format_dimensions(other)}; "
            f"give the {name} of the same range of frames, at the result's size"
        )


def require_pixels(where: torch.Tensor, frames: torch.Tensor) -> None:
    """Raise `MaskError` unless the bool mask `[T, H, W]` fits `frames` and marks at least one pixel."""
    if where.shape != frames.shape[:3]:
        raise MaskError(
            f"the mask has {_format_dimensions(where)} but the clip has {_format_dimensions(frames)}; give one mask frame per "
            f"frame, at the clip's size"
        )
    if not where.any():
        raise MaskError(
            "the mask marks no pixel of the frames to measure; white marks the measured pixels, so invert the mask if black marks them"
        )


def iterate_frames(
    result: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None
) -> Iterator[tuple[UInt8Array, UInt8Array, BoolArray]]:
    """Yield each frame of both clips `[H, W, 3]` and its mask `[H, W]`, which is all true when `where` is None.

    Raises `VideoError` or `MaskError` when the three do not fit together.
    """
    require_same_shape(result, truth, "clip to compare with")
    if where is not None:
        require_pixels(where, result)
    for index in range(len(result)):
        yield as_array(result[index]), as_array(truth[index]), get_frame_mask(where, result, index)


def get_frame_mask(where: torch.Tensor | None, frames: torch.Tensor, index: int) -> BoolArray:
    """Return the mask of the measured pixels in frame `index`, bool `[H, W]`; all true when `where` is None."""
    return np.ones(tuple(frames.shape[1:3]), bool) if where is None else np.asarray(where[index].cpu().numpy(), bool)


def as_array(frame: torch.Tensor) -> UInt8Array:
    """Convert a uint8 frame `[H, W, 3]` to a contiguous array."""
    return np.ascontiguousarray(frame.cpu().numpy())


def _format_dimensions(frames: torch.Tensor) -> str:
    return f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}"
