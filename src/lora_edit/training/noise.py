"""Draws of time and noise for one training step."""

from __future__ import annotations

import torch


def draw_time(sampling: str, shift: float, generator: torch.Generator, time_range: tuple[float, float] = (0.0, 1.0)) -> torch.Tensor:
    """Draw t in (0, 1), shape `[1]`: uniform or logit-normal(0, 1), shifted toward noise by `shift` (1 = no shift, as in the reference).

    Draws outside `time_range` (start included, end only if it is 1) are rejected, so that the distribution keeps its shape in that range.
    """
    first, last = time_range
    while True:
        time = torch.sigmoid(torch.randn(1, generator=generator)) if sampling == "logit-normal" else torch.rand(1, generator=generator)
        time = shift * time / (1 + (shift - 1) * time)
        if first <= time.item() and (time.item() < last or last == 1):
            return time


def add_noise(target: torch.Tensor, noise: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Compute x_t = (1 - t) x + t noise. The target velocity is noise - x (Eq. 1 and 2 of the paper state it as noise prediction)."""
    blend = time.view(-1, 1, 1, 1, 1)
    return (1 - blend) * target + blend * noise
