"""What one training or denoising pass is given, as a frozen record."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sample:
    """The paper's V_cond, M_cond, V_target and prompt.

    `v_cond` and `v_target` are `[3, T, H, W]` in [-1, 1]; `m_cond` is `[1, T, H, W]`, 1 = given, 0 = to generate; `image` is
    the `[3, H, W]` frame for models with an image encoder. `v_target` is None at inference. `v_blend` is set by the feature-level baseline
    only: the source whose noisy latents replace the kept cells at every step (Eq. 3), where `m_blend` is 1. `boxes` `[T, 4]` bounds the
    edit region in every frame (left, top, right, bottom; pixels, NaN where there is none), for models that are given frame 0 carried along.
    """

    v_cond: torch.Tensor
    m_cond: torch.Tensor
    v_target: torch.Tensor | None
    image: torch.Tensor
    prompt: str = ""
    v_blend: torch.Tensor | None = None
    m_blend: torch.Tensor | None = None
    boxes: torch.Tensor | None = None

    def __post_init__(self) -> None:
        assert self.v_cond.ndim == 4 and self.v_cond.shape[0] == 3
        assert self.m_cond.shape == (1, *self.v_cond.shape[1:])
        assert self.v_target is None or self.v_target.shape == self.v_cond.shape
        assert self.boxes is None or self.boxes.shape == (self.num_frames, 4)
        assert self.image.shape == (3, *self.v_cond.shape[2:])

    @property
    def num_frames(self) -> int:
        """T."""
        return self.v_cond.shape[1]
