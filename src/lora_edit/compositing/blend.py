"""Alpha blending of the generated region over the source."""

from __future__ import annotations

import torch


def composite(source: torch.Tensor, generated: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Compute `source + alpha * (generated - source)` for uint8 frames `[T, H, W, 3]` and weights `[T, H, W]` in [0, 1].

    The result equals `source` bit for bit where alpha is 0, and `generated` where it is 1. Frames are blended one by one, so
    that memory beyond the result is that of one frame.
    """
    assert source.dtype == generated.dtype == torch.uint8 and source.shape == generated.shape and alpha.shape == source.shape[:3]
    out = torch.empty_like(source)
    for index in range(len(source)):
        out[index] = composite_frame(source[index], generated[index], alpha[index])
    return out


def composite_frame(source: torch.Tensor, generated: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Blend one uint8 frame `[H, W, 3]` as in `composite`; `alpha` is `[H, W]`."""
    base = source.float()
    return (base + alpha[..., None] * (generated.float() - base)).round_().clamp_(0, 255).to(torch.uint8)
