"""Sizes: resizing, the canvas that a model works on, and legal frame counts."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from einops import rearrange

from lora_edit.types import Size


def resize_frames(frames: torch.Tensor, size: Size) -> torch.Tensor:
    """`[T, H, W, 3]` uint8 at another size: area average where a side shrinks (no aliasing), cubic where it grows."""
    if tuple(frames.shape[1:3]) == (size.height, size.width):
        return frames
    out = torch.empty((len(frames), size.height, size.width, frames.shape[3]), dtype=torch.uint8)
    for index, frame in enumerate(frames.cpu()):
        out[index] = torch.from_numpy(_resize_image(frame.contiguous().numpy(), size))
    return out.to(frames.device)


def resize_pixels(pixels: torch.Tensor, size: Size) -> torch.Tensor:
    """`resize_frames` for `[C, T, H, W]` floats of any range; the cubic filter's overshoot is limited to the input's own range."""
    if tuple(pixels.shape[2:]) == (size.height, size.width):
        return pixels
    pictures = rearrange(pixels.detach().float().cpu(), "c t h w -> t h w c").contiguous().numpy()
    resized = np.stack([_resize_image(picture, size) for picture in pictures])
    out = rearrange(torch.from_numpy(resized.reshape(len(pictures), size.height, size.width, -1)), "t h w c -> c t h w")
    return out.clamp(float(pictures.min()), float(pictures.max())).to(pixels)


def fit_canvas(size: Size, area: int, multiple: int) -> Size:
    """The size of about `area` pixels whose aspect ratio is closest to `size`'s.

    Both sides are multiples of `multiple`, at least two of them, and never larger than the source rounded up to the multiple.
    """
    tallest, widest = (max(2, math.ceil(side / multiple)) for side in (size.height, size.width))
    aspect = size.width / size.height
    wanted = min(area, tallest * widest * multiple**2)

    def distance(rows: int, columns: int) -> float:
        return abs(math.log(columns / rows / aspect)) + 0.5 * abs(math.log(rows * columns * multiple**2 / wanted))

    rows, columns = min(
        ((rows, columns) for rows in range(2, tallest + 1) for columns in range(2, widest + 1)), key=lambda sides: distance(*sides)
    )
    return Size(rows * multiple, columns * multiple)


def pad_frame_count(num_frames: int, stride: int = 4) -> int:
    """The smallest `stride * k + 1` that holds `num_frames`."""
    assert num_frames >= 1
    return math.ceil((num_frames - 1) / stride) * stride + 1


def pad_frames(frames: torch.Tensor, count: int) -> torch.Tensor:
    """`[T, ...]` with the last frame repeated up to `count` frames."""
    assert 1 <= len(frames) <= count
    return torch.cat([frames, frames[-1:].expand(count - len(frames), *frames.shape[1:])]) if count > len(frames) else frames


def _resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    # One filter per direction: a picture may shrink in height and grow in width.
    height, width = image.shape[:2]
    smaller = (min(width, size.width), min(height, size.height))
    if smaller != (width, height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (size.width, size.height):
        image = cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_CUBIC)
    return image
