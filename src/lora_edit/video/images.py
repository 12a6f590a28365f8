"""Pictures from files: stills, folders of stills, and animated GIF, WebP and APNG, all through Pillow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from lora_edit.errors import VideoError
from lora_edit.types import Size

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".ppm")
DEFAULT_DURATION = Fraction(1, 10)  # what browsers show for animations that state no delay
_READ_FAULTS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class AnimationInfo:
    """Frame count, size, and every frame's duration in seconds."""

    durations: tuple[Fraction, ...]
    size: Size


def read_image(path: Path) -> torch.Tensor:
    """A still picture as `[H, W, 3]` uint8, upright (EXIF orientation applied); an animation gives its first frame.

    Grayscale, palette, 16-bit and CMYK pictures become RGB; colour profiles are ignored. Raises `VideoError` when the file cannot
    be read, or when part of it is transparent, because what should show through is not known.
    """
    rgba = load_picture(path)
    if rgba.shape[-1] == 4:
        raise VideoError(f"{path}: has transparent parts; flatten it onto a background and save it again")
    return torch.from_numpy(rgba)


def load_picture(path: Path) -> np.ndarray:
    """A still as `[H, W, 3]` uint8, or `[H, W, 4]` where any of it is transparent."""
    try:
        with Image.open(path) as image:
            return picture_to_array(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file; check the path") from error
    except UnidentifiedImageError as error:
        raise VideoError(f"{path}: not a picture that can be read; give a PNG, JPEG or WebP file") from error
    except _READ_FAULTS as error:
        raise VideoError(f"{path}: damaged or unreadable picture ({error}); export it again") from error


def picture_to_array(image: Image.Image) -> np.ndarray:
    """Any Pillow mode as `[H, W, 3]` uint8, or `[H, W, 4]` where any of it is transparent."""
    if image.mode.startswith("I"):  # 16-bit grayscale, whatever the byte order
        levels = np.asarray(image).astype(np.float64)
        if levels.size and not 0 <= levels.min() <= levels.max() <= 65535:
            raise ValueError("32-bit integer pixels")
        return np.repeat(np.rint(levels / 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        return rgba if rgba[..., 3].min() < 255 else np.ascontiguousarray(rgba[..., :3])
    return np.array(image.convert("RGB"))


def list_images(folder: Path) -> list[Path]:
    """The folder's pictures in natural order: `2.png` before `10.png`. Raises `VideoError` when there are none."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]
    if not paths:
        raise VideoError(f"{folder}: holds no pictures; give a folder of PNG, JPEG or WebP frames, or a video file")
    return sorted(paths, key=_natural_key)


def load_folder(paths: list[Path]) -> Iterator[np.ndarray]:
    """Every picture in turn, as `load_picture`. Raises `VideoError` naming the first file of another size."""
    first: tuple[int, ...] | None = None
    for path in paths:
        picture = load_picture(path)
        first = first or picture.shape[:2]
        if picture.shape[:2] != first:
            raise VideoError(
                f"{path}: is {picture.shape[1]}x{picture.shape[0]} but {paths[0].name} is {first[1]}x{first[0]}; give all frames one size"
            )
        yield picture


def is_animation_file(path: Path) -> bool:
    """Whether the first bytes say GIF, PNG or WebP: formats that Pillow animates more faithfully than PyAV."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"GIF8" or head[:8] == b"\x89PNG\r\n\x1a\n" or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def animation_info(path: Path) -> AnimationInfo:
    """Durations and size of an animated picture. Raises `VideoError` when it is damaged."""
    durations: list[Fraction] = []
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                frame.load()
                milliseconds = frame.info.get("duration", 0)
                durations.append(Fraction(milliseconds).limit_denominator(10**6) / 1000 if milliseconds else DEFAULT_DURATION)
            return AnimationInfo(tuple(durations), Size(image.height, image.width))
    except _READ_FAULTS as error:
        raise VideoError(_damage(path, len(durations), error)) from error


def load_animation(path: Path, start: int, stop: int) -> Iterator[np.ndarray]:
    """Frames `start` to `stop - 1`, composed as a viewer shows them."""
    try:
        with Image.open(path) as image:
            for index, frame in enumerate(ImageSequence.Iterator(image)):
                if index >= stop:
                    return
                frame.load()  # later frames are drawn over earlier ones, so none may be skipped
                if index >= start:
                    yield picture_to_array(frame)
    except _READ_FAULTS as error:
        raise VideoError(_damage(path, start, error)) from error


def _damage(path: Path, read: int, error: BaseException) -> str:
    return f"{path}: damaged after {read} readable frames ({error}); export it again"


def _natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)
