"""Resizing of frames, the canvas size for a model, and valid frame counts."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from einops import rearrange

from lora_edit.types import Size


def resize_frames(frames: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize frames `[T, H, W, 3]` uint8: area average where a side shrinks (no aliasing), cubic where it grows."""
    if tuple(frames.shape[1:3]) == (size.height, size.width):
        return frames
    output = torch.empty((len(frames), size.height, size.width, frames.shape[3]), dtype=torch.uint8)
    for index, frame in enumerate(frames.cpu()):
        output[index] = torch.from_numpy(_resize_image(frame.contiguous().numpy(), size))
    return output.to(frames.device)


def resize_pixels(pixels: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize pixels `[C, T, H, W]`, floats of any range, as `resize_frames` does; the cubic filter's overshoot is clamped to that range."""
    if tuple(pixels.shape[2:]) == (size.height, size.width):
        return pixels
    images = rearrange(pixels.detach().float().cpu(), "c t h w -> t h w c").contiguous().numpy()
    resized = np.stack([_resize_image(image, size) for image in images])
    output = rearrange(torch.from_numpy(resized.reshape(len(images), size.height, size.width, -1)), "t h w c -> c t h w")
    return output.clamp(float(images.min()), float(images.max())).to(pixels)


def fit_canvas(size: Size, area: int, multiple: int) -> Size:
    """Compute the canvas size: about `area` pixels, with an aspect ratio close to that of `size`.

    Both sides are multiples of `multiple`, at least two of them, and never larger than the source rounded up to the multiple.
    """
    tallest, widest = (max(2, math.ceil(side / multiple)) for side in (size.height, size.width))
    aspect = size.width / size.height
    target_area = min(area, tallest * widest * multiple**2)

    def distance(rows: int, columns: int) -> float:
        return abs(math.log(columns / rows / aspect)) + 0.5 * abs(math.log(rows * columns * multiple**2 / target_area))

    rows, columns = min(
        ((rows, columns) for rows in range(2, tallest + 1) for columns in range(2, widest + 1)), key=lambda sides: distance(*sides)
    )
    return Size(rows * multiple, columns * multiple)


def pad_frame_count(num_frames: int, stride: int = 4) -> int:
    """Compute the smallest frame count `stride * k + 1` that is at least `num_frames`."""
    assert num_frames >= 1
    return math.ceil((num_frames - 1) / stride) * stride + 1


def pad_frames(frames: torch.Tensor, count: int) -> torch.Tensor:
    """Pad frames `[T, ...]` to `count` frames by repeating the last one."""
    assert 1 <= len(frames) <= count
    return torch.cat([frames, frames[-1:].expand(count - len(frames), *frames.shape[1:])]) if count > len(frames) else frames


def _resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    # One filter per direction: an image may shrink in height and grow in width.
    height, width = image.shape[:2]
    smaller = (min(width, size.width), min(height, size.height))
    if smaller != (width, height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (size.width, size.height):
        image = cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_CUBIC)
    return image
