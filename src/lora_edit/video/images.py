"""Loading of images with Pillow: stills, folders of stills, animated GIF, WebP, PNG and AVIF, and TIFF pages.

All are converted alike: EXIF orientation is applied, colour profiles are converted to sRGB, more than 8 bits are rounded, and alpha is kept
where any pixel is transparent.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, ImageSequence, UnidentifiedImageError

from lora_edit.errors import VideoError
from lora_edit.limits import MAX_ANIMATION_FRAMES, MAX_ANIMATION_PIXELS, MAX_IMAGES, MAX_PIXELS
from lora_edit.types import Size
from lora_edit.video.icc_profiles import to_srgb
from lora_edit.video.paths import stat_path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".ppm")
DEFAULT_DURATION = Fraction(1, 10)  # as browsers do for animations that state no delay
PAGE_DURATION = Fraction(1, 25)  # of TIFF pages, which state none; the same as for folders of images
_READ_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, MemoryError, ArithmeticError, LookupError, TypeError, AttributeError,
    struct.error, cv2.error,
)  # fmt: skip
"""What Pillow, its decoders and OpenCV raise for damaged files."""
_ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")
"""Formats whose additional images are frames; in JPEG files they are previews or depth maps."""
_COUNTED_FORMATS = ("PNG", "WEBP", "AVIF")
"""Formats that state their number of frames."""

_SIGNATURES = re.compile(rb"GIF8|\x89PNG\r\n\x1a\n|RIFF....WEBP|II\*\0|MM\0\*|....ftypavi[fs]", re.DOTALL)


@dataclass(frozen=True)
class AnimationInfo:
    """Duration of every frame in seconds, and the size, of an animation."""

    durations: tuple[Fraction, ...]
    size: Size


def require_file(path: Path) -> None:
    """Raise `VideoError` where the path is missing, an empty file, or a pipe or device that can be read only once."""
    status = stat_path(path)
    if stat.S_ISDIR(status.st_mode):
        return
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{path}: is a pipe or device, which cannot be read twice; save it to a file first")
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty; export or download it again")


def read_image(path: Path) -> torch.Tensor:
    """Read a still image as `[H, W, 3]` uint8 sRGB, upright; of an animation, the first frame.

    Raises `VideoError` when the file cannot be read, or when part of it is transparent, because its background is unknown.
    """
    rgba = load_image_array(path)
    if rgba.shape[-1] == 4:
        raise VideoError(f"{path}: has transparent parts; flatten it onto a background and save it again")
    return torch.from_numpy(rgba)


def load_image_array(path: Path) -> np.ndarray:
    """Load a still as `[H, W, 3]` uint8, or `[H, W, 4]` where any of it is transparent."""
    require_file(path)
    with open_image(path) as image:
        return image_to_array(_round_to_8_bits(path, image))


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file for reading within the context. Raises `VideoError` where it is damaged, no image, or above `MAX_PIXELS`."""
    try:
        with Image.open(path) as image:
            _check_pixels(path, image.width, image.height)
            yield image
    except VideoError:
        raise
    except UnidentifiedImageError as error:
        raise VideoError(f"{path}: not a picture that can be read; give a PNG, JPEG or WebP file") from error
    except Image.DecompressionBombError as error:
        raise VideoError(f"{path}: has more than {MAX_PIXELS:,} pixels; scale it down") from error
    except _READ_ERRORS as error:
        raise VideoError(f"{path}: damaged or unreadable picture ({error}); export it again") from error


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(f"{path}: is {width}x{height}, above {MAX_PIXELS:,} pixels; scale it down")


def list_conversions(path: Path) -> list[str]:
    """Describe the conversions that `read_image` applies to a readable still: of colours, bit depth and orientation."""
    with open_image(path) as image:
        grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
        changes = {
            "CMYK to RGB": image.mode == "CMYK",
            "grey to RGB": grey,
            "16 bits to 8": image.mode.startswith("I") or _has_16_bits(path, image),
            "rotated upright by its EXIF orientation": image.getexif().get(ExifTags.Base.Orientation, 1) != 1,
        }
    return [description for description, applies in changes.items() if applies]


def image_to_array(image: Image.Image) -> np.ndarray:
    """Convert an image of any Pillow mode to `[H, W, 3]` uint8 sRGB, upright, or `[H, W, 4]` where any of it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grayscale, whatever the byte order
        levels = np.asarray(image).astype(np.float64)
        if levels.size and not 0 <= levels.min() <= levels.max() <= 65535:
            raise ValueError("32-bit integer pixels")
        return np.repeat(np.rint(levels / 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    rgb = np.array(to_srgb(image))
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        alpha = np.array(image.convert("RGBA").getchannel("A"))
        return np.dstack([rgb, alpha]) if alpha.min() < 255 else rgb
    return rgb


def _round_to_8_bits(path: Path, image: Image.Image) -> Image.Image:
    """Round a 16-bit image to 8 bits. Pillow truncates 16-bit colour PNG and TIFF instead, which darkens by half a level."""
    if image.mode not in ("RGB", "RGBA") or not _has_16_bits(path, image):
        return image
    levels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16 or levels.ndim != 3:
        return image
    order = cv2.COLOR_BGR2RGB if levels.shape[-1] == 3 else cv2.COLOR_BGRA2RGBA
    rounded = Image.fromarray(cv2.cvtColor(np.rint(levels / 257).astype(np.uint8), order))
    rounded.info = image.info  # profile and orientation
    return rounded


def _has_16_bits(path: Path, image: Image.Image) -> bool:
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24] == 16  # the header's bit depth
    return image.format == "TIFF" and 16 in getattr(image, "tag_v2", {}).get(258, ())


def list_images(folder: Path) -> list[Path]:
    """List a folder's images in natural order: `2.png` before `10.png`. Raises `VideoError` when there are none."""
    paths = [
        path
        for path in _list_entries(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    ]
    if not paths:
        raise VideoError(f"{folder}: holds no pictures; give a folder of PNG, JPEG or WebP frames, or a video file")
    return sorted(paths, key=_natural_key)


def _list_entries(folder: Path) -> list[Path]:
    try:
        entries = list(islice(folder.iterdir(), MAX_IMAGES + 1))
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read ({error.strerror}); allow reading it, or copy it to another place") from error
    if len(entries) > MAX_IMAGES:
        raise VideoError(f"{folder}: holds more than {MAX_IMAGES:,} files; give a folder with the frames of one clip")
    return entries


def describe_numbering_faults(paths: list[Path]) -> tuple[str, ...]:
    """Describe missing and duplicate numbers in the file names of a folder's images, given in natural order."""
    numbers = [int(groups[-1]) for path in paths if (groups := re.findall(r"\d+", path.stem))]
    if len(numbers) != len(paths):
        return ()
    missing = sorted(set(range(numbers[0], numbers[-1])) - set(numbers)) if numbers[-1] - numbers[0] < 10 * len(paths) else []
    duplicates = sorted({number for number, following in pairwise(numbers) if number == following})
    notes = []
    if missing:
        notes.append(f"the folder {paths[0].parent.name} lacks pictures between its first and last one, such as number {missing[0]}")
    if duplicates:
        notes.append(
            f"the folder {paths[0].parent.name} has several pictures with the same number, such as {duplicates[0]}; each becomes a frame"
        )
    return tuple(notes)


def load_folder(paths: list[Path]) -> Iterator[np.ndarray]:
    """Load the images one by one with `load_image_array`. Raises `VideoError` with the first file of another size."""
    first_size: Size | None = None
    for path in paths:
        image = load_image_array(path)
        size = Size(image.shape[0], image.shape[1])
        first_size = first_size or size
        if size != first_size:
            raise VideoError(f"{path}: is {size} but {paths[0].name} is {first_size}; give all frames one size")
        yield image


def is_image_file(path: Path) -> bool:
    """Whether the file is an image, still or animated, by its first bytes; where these are ambiguous, its suffix must match too."""
    with path.open("rb") as file:
        head = file.read(12)
    return bool(_SIGNATURES.match(head)) or (path.suffix.lower() in IMAGE_SUFFIXES and head[:2] in (b"\xff\xd8", b"BM", b"P6", b"P5"))


def read_animation_info(path: Path) -> AnimationInfo:
    """Read the frame durations and the upright size of an image file. Raises `VideoError` when it is damaged."""
    durations: list[Fraction] = []
    with open_image(path) as image:
        for frame in _iterate_frames(path, image):
            milliseconds = frame.info.get("duration", 0)
            default = PAGE_DURATION if image.format == "TIFF" else DEFAULT_DURATION
            durations.append(Fraction(milliseconds).limit_denominator(10**6) / 1000 if milliseconds else default)
        height, width = image_to_array(image).shape[:2]
        return AnimationInfo(tuple(durations), Size(height, width))


def load_animation(path: Path, start: int, stop: int) -> Iterator[np.ndarray]:
    """Load frames `start` to `stop - 1`, composed as viewers display them."""
    with open_image(path) as image:
        single = getattr(image, "n_frames", 1) == 1
        for index, frame in enumerate(_iterate_frames(path, image)):
            if index >= stop:
                return
            if index >= start:
                yield image_to_array(_round_to_8_bits(path, frame) if single else frame)


def _iterate_frames(path: Path, image: Image.Image) -> Iterator[Image.Image]:
    """Load the frames of an animation one by one, without additional images that are not frames, such as TIFF thumbnails.

    Raises `VideoError` at a damaged frame, with the number of those before it, and for an animation that exceeds the limits.
    """
    size = image.size
    if image.format in _COUNTED_FORMATS:
        _check_frame_count(path, size, getattr(image, "n_frames", 1))
    frames, index = ImageSequence.Iterator(image), 0
    while True:
        try:
            frame = next(frames, None)
            if frame is None or (index and (image.format not in _ANIMATED_FORMATS or frame.size != size)):
                return
            frame.load()  # frames are drawn over earlier ones, so none may be skipped
        except _READ_ERRORS as error:
            raise VideoError(f"{path}: damaged after {index} readable frames ({error}); export it again") from error
        index += 1
        _check_frame_count(path, size, index)
        yield frame


def _check_frame_count(path: Path, size: tuple[int, int], count: int) -> None:
    most = min(MAX_ANIMATION_FRAMES, max(MAX_ANIMATION_PIXELS // (size[0] * size[1]), 1))
    if count > most:
        raise VideoError(
            f"{path}: an animation of {size[0]}x{size[1]} has at most {most:,} frames here; convert it to a video, such as MP4"
        )


def _natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)
