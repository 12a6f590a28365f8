"""Words that every room shares.

Shapes, written the same way everywhere:

| name | shape | values |
|---|---|---|
| frames | `[T, H, W, 3]` uint8 | sRGB as decoded, 0..255; the only layout in which whole clips are kept |
| pixels | `[B, C, T, H, W]` float | what the autoencoder takes, in [-1, 1]; `[C, T, H, W]` for one clip |
| latents | `[B, C, F, h, w]` float | F = 1 + (T - 1) / 4 and h = H / 8 for the Wan 2.1 autoencoder |
| edit mask | `[T, H, W]` bool | True (white) = edit here |
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


@dataclass(frozen=True)
class Size:
    """Height and width in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: left and top inside, `left + width` and `top + height` outside."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class ColourTags:
    """How a YUV file stores colour: code points of ITU-T H.273 for matrix, primaries and transfer (2 where the file does not say), the
    matrix that its samples were read with, and whether they use the full range."""

    matrix: int
    primaries: int
    transfer: int
    read_as: int
    full: bool


@dataclass(frozen=True)
class Chapter:
    """A named part of a clip; `begin` and `end` in seconds from the first frame on."""

    title: str
    begin: float
    end: float


FieldOrder = Literal["progressive", "top", "bottom"]
"""Whether a frame is one picture, or two fields of which the top or the bottom one comes first."""


@dataclass(frozen=True)
class Video:
    """A decoded clip.

    `frames` is `[T, H, W, 3]` uint8, upright (rotation metadata applied). `times` holds each frame's time in seconds
    from the first one, so that a clip of variable frame rate keeps it; the last frame lasts `last_duration` seconds, 1 / fps where
    that is None. `alpha` is `[T, H, W]` uint8 where the source has transparency. `source`, `start_time` (seconds into it) and `first`
    (the number of the clip's first frame in it) say where sound and untouched samples can be copied from; `shifts` are the seconds to
    be added to the time stamps of each part of a source that was joined from several recordings.

    `pixel_aspect` is a pixel's width by its height. `tags` say how the frames' colours are meant, None for sRGB pictures. `kept_format`
    is FFmpeg's name of the pixel format in which a result keeps the source file's pixels, None where there is no file. `chapters` are
    those that lie in the range. `notes` tell what of the source a result does not carry.
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
    """Where the edit lives: `frames` is `[T, H, W]` bool, True = edit. `notes` are remarks that a person should read.

    `parts` are the same of each thing by itself, where several are known; together they make `frames`.
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
    """Hash of tensors' and texts' contents: caches keyed by it cannot go stale."""
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
