"""What a small network need not learn: how much of a noisy latent is noise when the answer is near a known start.

The preconditioning of Karras et al. (2022, "Elucidating the design space", section 5) for flow matching, around a `start` instead of zero:
with data = start + r, r normal with `std` per channel, the expected velocity is linear in the noisy latents. The network
is asked for the remainder alone, scaled to unit variance, so that copying what is given does not pass through it.
"""

from __future__ import annotations

import torch


def precondition(
    noisy: torch.Tensor, start: torch.Tensor, time: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For `noisy` and `start` `[B, z, F, h, w]`, `time` `[B]` in [0, 1] and `std` `[z]`:

    the expected velocity (noise - data), what to multiply the network's output by before adding it, and what to show the network.
    """
    t, spread = time.view(-1, 1, 1, 1, 1), std.view(1, -1, 1, 1, 1)
    away = noisy - (1 - t) * start
    total = ((1 - t) * spread).square() + t.square()
    expected = away * (t - (1 - t) * spread.square()) / total - start
    return expected, spread / total.sqrt(), away / total.sqrt()
