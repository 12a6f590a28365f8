"""Fill value of hidden pixels."""

from __future__ import annotations

import torch

FILL_VALUE = 0.0
"""Mid grey in [-1, 1]. Wan pads its I2V condition with zeros (Wan2.1 `wan/image2video.py`), so the model treats zeros as missing content.
The reference writes 128 of 255 instead, which is +0.0039 and passes through two lossy codecs."""


def mask_video(video: torch.Tensor, m_cond: torch.Tensor) -> torch.Tensor:
    """Replace every pixel of `video` `[3, T, H, W]` that is not given by `FILL_VALUE`; the hidden values cannot be recovered."""
    return torch.where(m_cond > 0.5, video, torch.full_like(video, FILL_VALUE))
