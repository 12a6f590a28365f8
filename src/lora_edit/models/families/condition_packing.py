"""`M_cond` on the autoencoder's grid, as Wan 2.1 packs it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat


def pack_mask(m_cond: torch.Tensor, spatial_compression: int = 8, temporal_compression: int = 4) -> torch.Tensor:
    """Per-pixel `M_cond` `[B, 1, T, H, W]` (1 = given) -> channels `[B, group, F, h, w]`.

    A cell is given only if all its pixels are. Frame 0 fills all channels of latent frame 0; pixel frame f >= 1 is channel
    (f + 3) % 4 of latent frame (f + 3) // 4, as in Wan2.1 `wan/image2video.py` and diffusers `pipeline_wan_i2v.py`.
    Those shrink by nearest neighbour, which calls a cell given when its top left pixel is; on masks aligned to
    the grid the results are equal.
    """
    small = -F.max_pool3d(-m_cond, (1, spatial_compression, spatial_compression))
    padded = torch.cat([repeat(small[:, :, :1], "b 1 1 h w -> b 1 g h w", g=temporal_compression), small[:, :, 1:]], 2)
    return rearrange(padded, "b 1 (f g) h w -> b g f h w", g=temporal_compression)


def pack_error(error: torch.Tensor, spatial_compression: int = 8, temporal_compression: int = 4) -> torch.Tensor:
    """Expected error per pixel `[B, 1, T, H, W]` (root mean square) -> its root mean square by cell, channels `[B, group, F, h, w]` as in
    `pack_mask`."""
    small = F.avg_pool3d(error.square(), (1, spatial_compression, spatial_compression)).sqrt()
    padded = torch.cat([repeat(small[:, :, :1], "b 1 1 h w -> b 1 g h w", g=temporal_compression), small[:, :, 1:]], 2)
    return rearrange(padded, "b 1 (f g) h w -> b g f h w", g=temporal_compression)
