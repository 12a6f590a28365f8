"""Types that all packages share.

Shapes and value ranges:

| name | shape | values |
|---|---|---|
| frames | `[T, H, W, 3]` uint8 | sRGB as decoded, 0..255; the only layout of whole clips |
| pixels | `[B, C, T, H, W]` float | input of the autoencoder, in [-1, 1]; `[C, T, H, W]` for one clip |
| latents | `[B, C, F, h, w]` float | F = 1 + (T - 1) / 4 and h = H / 8 for the Wan 2.1 autoencoder |
| edit mask | `[T, H, W]` bool | True (white) = edit |
| `M_cond` | `[1, T, H, W]` float | 1 = given, 0 = to generate: the opposite of the edit mask |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

OnFrame = Callable[[int, int], None]
"""Callback with the number of finished frames and the total number."""

Finish = Callable[[Path, Path], None]
"""Last step on a complete file, or folder of frames, with a temporary name: receives its path and the final one, under which it appears."""


@dataclass(frozen=True)
class Size:
    """Height and width in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels. Left and top are inclusive, `left + width` and `top + height` exclusive."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """First column outside, to the right."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """First row outside, below."""
        return self.top + self.height


Bounds = tuple[int, int, int, int]
"""Left, top, right and bottom in whole pixels: left and top inside, right and bottom outside."""


def mask_bounds(mask: torch.Tensor | BoolArray) -> Bounds | None:
    """Return the bounds of the True pixels of a mask `[H, W]`, or None where there are none."""
    array = mask.cpu().numpy() if isinstance(mask, torch.Tensor) else mask
    rows, columns = (np.flatnonzero(array.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class ColourTags:
    """Colour metadata of a YUV file: code points of ITU-T H.273 for matrix, primaries and transfer (2 if unspecified), the matrix
    `read_as` that decoded the samples, and whether they have the full range."""

    matrix: int
    primaries: int
    transfer: int
    read_as: int
    full: bool


@dataclass(frozen=True)
class Chapter:
    """A named part of a clip; `begin` and `end` are in seconds from the first frame."""

    title: str
    begin: float
    end: float


FieldOrder = Literal["progressive", "top", "bottom"]
"""Order of the fields of interlaced frames, or `progressive`."""


@dataclass(frozen=True)
class Video:
    """A decoded clip.

    - `frames`: `[T, H, W, 3]` uint8, upright (rotation metadata applied).
    - `times`: time of each frame in seconds from the first one, which preserves variable frame rates.
    - `alpha`: `[T, H, W]` uint8, or None for sources without transparency.
    - `source`, `start_time`, `start_frame`: file for sound and unchanged samples, and the clip's first frame in it, in seconds and by
      number.
    - `last_duration`: duration of the last frame in seconds; None is 1 / fps.
    - `shifts`: seconds to add to the time stamps of each part of a source that was joined from several recordings.
    - `pixel_aspect`: width of a pixel divided by its height.
    - `tags`: colour metadata; None for sRGB images.
    - `matching_pix_fmt`: FFmpeg name of the pixel format in which a result preserves the pixels of the source file; None without a file.
    - `chapters`: those within the range.
    - `notes`: what of the source a result lacks.
    """

    frames: torch.Tensor
    fps: Fraction
    times: tuple[float, ...]
    alpha: torch.Tensor | None = None
    source: Path | None = None
    start_time: float = 0.0
    has_sound: bool = False
    start_frame: int = 0
    last_duration: float | None = None
    shifts: tuple[float, ...] = (0.0,)
    pixel_aspect: Fraction = Fraction(1)
    tags: ColourTags | None = None
    field_order: FieldOrder = "progressive"
    matching_pix_fmt: str | None = None
    chapters: tuple[Chapter, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.frames.dtype == torch.uint8 and self.frames.ndim == 4 and self.frames.shape[-1] == 3
        assert len(self.times) == len(self.frames)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.frames)

    @property
    def size(self) -> Size:
        """Height and width of a frame."""
        return Size(self.frames.shape[1], self.frames.shape[2])


@dataclass(frozen=True)
class EditMask:
    """The edit region: `frames` is `[T, H, W]` bool, True = edit. `notes` are for the user.

    `parts` are the masks of the single objects, if several are known; their union is `frames`.
    """

    frames: torch.Tensor
    notes: tuple[str, ...] = field(default=())
    parts: tuple[torch.Tensor, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        assert self.frames.dtype == torch.bool and self.frames.ndim == 3

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.frames)

    @property
    def size(self) -> Size:
        """Height and width of a frame."""
        return Size(self.frames.shape[1], self.frames.shape[2])


def hash_content(*parts: torch.Tensor | str | None) -> str:
    """Hash the contents of tensors and texts. Caches with such keys cannot become stale."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            values = part.detach().contiguous().cpu()
            if values.dtype == torch.bool:
                # Masks decoded by Pillow store 255 for True, others 1. All are hashed as the former, which existing runs were.
                values = values.to(torch.bool).ne(False).to(torch.uint8) * 255
            digest.update(values.numpy().tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()
