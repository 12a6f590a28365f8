"""Draws of time and noise for one training step."""

from __future__ import annotations

import torch


def draw_time(sampling: str, shift: float, generator: torch.Generator, time_range: tuple[float, float] = (0.0, 1.0)) -> torch.Tensor:
    """t in (0, 1), shape `[1]`: uniform or logit-normal(0, 1), moved toward noise by `shift` (1 = not, as the reference trains).

    Draws outside `times` (start included, end only where it is 1) are drawn again, so that what remains keeps the distribution's form.
    """
    first, last = time_range
    while True:
        time = torch.sigmoid(torch.randn(1, generator=generator)) if sampling == "logit-normal" else torch.rand(1, generator=generator)
        time = shift * time / (1 + (shift - 1) * time)
        if first <= time.item() and (time.item() < last or last == 1):
            return time


def add_noise(target: torch.Tensor, noise: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """x_t = (1 - t) x + t noise; the velocity to learn is noise - x (Eq. 1 and 2 of the paper write it as noise prediction)."""
    blend = time.view(-1, 1, 1, 1, 1)
    return (1 - blend) * target + blend * noise
