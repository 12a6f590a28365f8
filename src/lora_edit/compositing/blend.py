"""The generated region laid over the source."""

from __future__ import annotations

import torch


def composite(source: torch.Tensor, generated: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """`source + alpha * (generated - source)` for uint8 frames `[T, H, W, 3]` and weights `[T, H, W]` in [0, 1].

    Where alpha is 0 the result is the source bit for bit, where it is 1 the generated. Frames are blended one after the
    other, so that memory beyond the result stays that of one frame.
    """
    assert source.dtype == generated.dtype == torch.uint8 and source.shape == generated.shape and alpha.shape == source.shape[:3]
    out = torch.empty_like(source)
    for index in range(len(source)):
        out[index] = composite_frame(source[index], generated[index], alpha[index])
    return out


def composite_frame(source: torch.Tensor, generated: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """One uint8 frame `[H, W, 3]` of `composite`; `alpha` is `[H, W]`."""
    base = source.float()
    return (base + alpha[..., None] * (generated.float() - base)).round_().clamp_(0, 255).to(torch.uint8)
