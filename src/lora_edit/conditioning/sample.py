"""What one training or denoising pass is given, as a frozen record."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Hint:
    """What is predicted where pixels are withheld, for models that were pretrained to refine a prediction.

    `pixels` `[3, T, H, W]` are in [-1, 1]; `error` `[1, T, H, W]` is the root mean square error to expect in them, in the same units.
    """

    pixels: torch.Tensor
    error: torch.Tensor

    def select_frames(self, frames: torch.Tensor) -> Hint:
        """The hint of some frames, by number."""
        return Hint(self.pixels[:, frames], self.error[:, frames])


@dataclass(frozen=True)
class Sample:
    """The paper's V_cond, M_cond, V_target and prompt.

    `v_cond` and `v_target` are `[3, T, H, W]` in [-1, 1]; `m_cond` is `[1, T, H, W]`, 1 = given, 0 = to generate; `image` is
    the `[3, H, W]` frame for models with an image encoder. `v_target` is None at inference. `v_blend` is set by the feature-level baseline
    only: the source whose noisy latents replace the kept cells at every step (Eq. 3), where `m_blend` is 1. `hint` is what models that
    refine a prediction are shown where pixels are withheld (ours).
    """

    v_cond: torch.Tensor
    m_cond: torch.Tensor
    v_target: torch.Tensor | None
    image: torch.Tensor
    prompt: str = ""
    v_blend: torch.Tensor | None = None
    m_blend: torch.Tensor | None = None
    hint: Hint | None = None

    def __post_init__(self) -> None:
        assert self.v_cond.ndim == 4 and self.v_cond.shape[0] == 3
        assert self.m_cond.shape == (1, *self.v_cond.shape[1:])
        assert self.v_target is None or self.v_target.shape == self.v_cond.shape
        assert self.hint is None or self.hint.pixels.shape == self.v_cond.shape
        assert self.image.shape == (3, *self.v_cond.shape[2:])

    @property
    def num_frames(self) -> int:
        """T."""
        return self.v_cond.shape[1]
