"""Small clips for the page's tests: a striped disc that crosses a textured background, and the same in another colour."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from lora_edit.types import Video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

COLOUR, EDITED = (40, 90, 210), (220, 70, 40)


def draw(frames: int, height: int, width: int, colour: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """Draw a striped disc moving to the right, `[T, H, W, 3]` uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 120, (height // 8 + 2, width // 8 + 2, 3))
    background = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
    rows, columns = np.mgrid[:height, :width]
    clip = []
    for number in range(frames):
        x, y, radius = locate_disc(number, frames, height, width)
        distance = np.hypot(columns - x, rows - y)
        shade = 0.75 + 0.25 * np.sin((columns - x) * 40 / radius / 4)
        picture = np.where((distance < radius)[..., None], np.array(colour) * shade[..., None], background)
        clip.append(torch.from_numpy(picture.clip(0, 255).astype(np.uint8)))
    return torch.stack(clip)


def locate_disc(number: int, frames: int, height: int, width: int) -> tuple[float, float, float]:
    """Return centre x, centre y and radius of the disc at a frame."""
    return width * (0.3 + 0.15 * number / max(1, frames - 1)), height * 0.5, height * 0.22


def write(folder: Path, frames: int = 5, height: int = 96, width: int = 128, seed: int = 0) -> tuple[Path, Path]:
    """Write the clip and its edited first frame; returns their paths."""
    source = draw(frames, height, width, COLOUR, seed)
    times = tuple(number / 10 for number in range(frames))
    write_video(folder / f"clip-{seed}.mp4", Video(source, Fraction(10), times))
    save_image(folder / f"edited-{seed}.png", draw(1, height, width, EDITED, seed)[0])
    return folder / f"clip-{seed}.mp4", folder / f"edited-{seed}.png"
