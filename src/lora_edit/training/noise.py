"""Draws of time and noise for one training step."""

from __future__ import annotations

import torch


def draw_time(sampling: str, generator: torch.Generator) -> torch.Tensor:
    """t in (0, 1), shape `[1]`: uniform as the reference trains (no shift), or logit-normal(0, 1)."""
    if sampling == "logit-normal":
        return torch.sigmoid(torch.randn(1, generator=generator))
    return torch.rand(1, generator=generator)


def add_noise(target: torch.Tensor, noise: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """x_t = (1 - t) x + t noise; the velocity to learn is noise - x (Eq. 1 and 2 of the paper write it as noise prediction)."""
    blend = time.view(-1, 1, 1, 1, 1)
    return (1 - blend) * target + blend * noise
