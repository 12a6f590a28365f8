"""Inputs of one training or denoising pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Hint:
    """A prediction of the hidden pixels, for models that were pretrained to refine a prediction.

    `pixels` `[3, T, H, W]` are in [-1, 1]; `error` `[1, T, H, W]` is their expected root mean square error, in the same units.
    """

    pixels: torch.Tensor
    error: torch.Tensor

    def select_frames(self, frames: torch.Tensor) -> Hint:
        """Return the hint of the frames with the given numbers."""
        return Hint(self.pixels[:, frames], self.error[:, frames])


@dataclass(frozen=True)
class Sample:
    """The paper's V_cond, M_cond, V_target and prompt.

    `v_cond` and `v_target` are `[3, T, H, W]` in [-1, 1]; `m_cond` is `[1, T, H, W]`, 1 = given, 0 = to generate; `image` is
    the `[3, H, W]` frame for models with an image encoder. `v_target` is None at inference. Only the feature-level baseline sets `v_blend`:
    the source whose noisy latents replace the cells where `m_blend` is 1, at every step (Eq. 3). `hint` is the prediction of the hidden
    pixels, for models that refine one (ours).
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
        """The number of frames T."""
        return self.v_cond.shape[1]
