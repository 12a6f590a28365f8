"""What a small network need not learn: how much of a noisy latent is noise when the answer is near a known start.

The preconditioning of Karras et al. (2022, "Elucidating the design space", section 5) for flow matching, around a `start` instead of zero:
with data = start + r, r normal with `std` per channel and cell, the expected velocity is linear in the noisy latents. The network
is asked for the remainder alone, scaled to unit variance, so that copying what is predicted does not pass through it, and so that little
is changed where the prediction is sure.
"""

from __future__ import annotations

import torch


def precondition(
    noisy: torch.Tensor, start: torch.Tensor, time: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For `noisy` and `start` `[B, z, F, h, w]`, `time` `[B]` in [0, 1] and `std` `[B, z, F, h, w]` (or what broadcasts to it):

    the expected velocity (noise - data), what to multiply the network's output by before adding it, and what to show the network.
    """
    t = time.view(-1, 1, 1, 1, 1)
    away = noisy - (1 - t) * start
    total = ((1 - t) * std).square() + t.square()
    expected = away * (t - (1 - t) * std.square()) / total - start
    return expected, std / total.sqrt(), away / total.sqrt()


def compute_cell_std(error: torch.Tensor, unit_std: torch.Tensor) -> torch.Tensor:
    """Spread of the latents `[B, z, F, h, w]` around their prediction.

    `error` `[B, 4, F, h, w]` is what to expect by cell (root mean square of pixels in [-1, 1]), `unit_std` `[z]` the spread per unit of it.
    """
    return error.square().mean(1, keepdim=True).sqrt() * unit_std.view(1, -1, 1, 1, 1)
