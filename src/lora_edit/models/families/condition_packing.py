"""Packing of masks and expected errors on the autoencoder's grid, as in Wan 2.1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat


def pack_mask(m_cond: torch.Tensor, spatial_compression: int = 8, temporal_compression: int = 4) -> torch.Tensor:
    """Pack a per-pixel `M_cond` `[B, 1, T, H, W]` (1 = given) to channels `[B, temporal_compression, F, h, w]`.

    A cell is given only if all its pixels are. Frame 0 fills all channels of latent frame 0; pixel frame f >= 1 is channel
    (f + 3) % 4 of latent frame (f + 3) // 4, as in Wan2.1 `wan/image2video.py` and diffusers `pipeline_wan_i2v.py`.
    Upstream shrinks by nearest neighbour, where a cell is given when its top left pixel is; for masks aligned to the grid the results
    are equal.
    """
    small = -F.max_pool3d(-m_cond, (1, spatial_compression, spatial_compression))
    padded = torch.cat([repeat(small[:, :, :1], "b 1 1 h w -> b 1 g h w", g=temporal_compression), small[:, :, 1:]], 2)
    return rearrange(padded, "b 1 (f g) h w -> b g f h w", g=temporal_compression)


def pack_error(error: torch.Tensor, spatial_compression: int = 8, temporal_compression: int = 4) -> torch.Tensor:
    """Pack an expected error per pixel `[B, 1, T, H, W]` (root mean square) to its root mean square per cell.

    Channels are `[B, temporal_compression, F, h, w]`, as in `pack_mask`.
    """
    small = F.avg_pool3d(error.square(), (1, spatial_compression, spatial_compression)).sqrt()
    padded = torch.cat([repeat(small[:, :, :1], "b 1 1 h w -> b 1 g h w", g=temporal_compression), small[:, :, 1:]], 2)
    return rearrange(padded, "b 1 (f g) h w -> b g f h w", g=temporal_compression)
