"""Small clips of moving objects with true masks, for the segmenters' tests."""

from __future__ import annotations

import numpy as np
import torch

HEIGHT, WIDTH = 96, 160


def disc_clip(
    frames: int = 6, pace: float = 3.0, post: tuple[int, int] | None = None, second: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames `[T, H, W, 3]` and the true mask `[T, H, W]` of a striped blue disc of radius 20 that starts at (50, 48) and moves
    to the right.

    `pace` is in pixels per frame. A green post hides the disc between the columns `post`. A `second`, red disc of radius 10 stays at
    (20, 20).
    """
    rng = np.random.default_rng(0)
    background = np.kron(rng.uniform(40, 110, (HEIGHT // 4, WIDTH // 4, 1)), np.ones((4, 4, 1))) * np.array([1.0, 0.8, 0.5])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    clip, masks = [], []
    for number in range(frames):
        x = 50 + pace * number
        inside = np.hypot(columns - x, rows - 48) < 20
        disc = np.array([40, 90, 210]) * (0.8 + 0.2 * np.sin((columns - pace * number) / 2 + rows / 3))[..., None]
        picture = np.where(inside[..., None], disc, background)
        if second:
            picture = np.where((np.hypot(columns - 20, rows - 20) < 10)[..., None], np.array([210, 30, 40]), picture)
        if post is not None:
            behind = (columns >= post[0]) & (columns < post[1])
            picture, inside = np.where(behind[..., None], np.array([30, 160, 60]), picture), inside & ~behind
        clip.append(picture.clip(0, 255).astype(np.uint8))
        masks.append(inside)
    return torch.from_numpy(np.stack(clip)), torch.from_numpy(np.stack(masks))


def pale_clip(frames: int = 24, pale: float = 180.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames and true mask of a pale disc of radius 13 that starts on a dark background and moves onto one as pale as itself."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:108, :192]
    dark = np.kron(rng.uniform(20, 90, (27, 48, 3)), np.ones((4, 4, 1)))
    background = np.where((columns < 90)[..., None], dark, pale + rng.normal(0, 6, (108, 192, 1)))
    clip, masks = [], []
    for number in range(frames):
        x = 36 + 3 * number
        masks.append(np.hypot(columns - x, rows - 54) < 13)
        disc = 190 + 12 * np.sin((columns - x) / 2.4 + rows / 1.8)
        clip.append(np.where(masks[-1][..., None], disc[..., None], background).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(clip)), torch.from_numpy(np.stack(masks))


def jar_clip(frames: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames and true mask of the lid of a dark jar, as dark as the jar, which tilts and moves to the right on a pale background."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:108, :192]
    background = 190 + np.kron(rng.normal(0, 6, (27, 48, 1)), np.ones((4, 4, 1)))
    clip, masks = [], []
    for number in range(frames):
        turn, x, y = 0.02 * number, columns - 50 - 3 * number, rows - 54
        along, down = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        masks.append((np.abs(along) < 18) & (np.abs(down + 26) < 8))
        jar = masks[-1] | ((np.abs(along) < 15) & (np.abs(down - 8) < 26))
        dark = 24 + 9 * np.sin(along / 2.5) * np.sin(down / 3.5)
        clip.append(np.where(jar[..., None], dark[..., None], background).clip(0, 255).astype(np.uint8).repeat(3, -1))
    return torch.from_numpy(np.stack(clip)), torch.from_numpy(np.stack(masks))


def overlap(mask: torch.Tensor, truth: torch.Tensor) -> float:
    """Compute the intersection over union; 1 where both are empty."""
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 1.0
