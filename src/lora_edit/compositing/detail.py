"""Detail above the model's resolution (ours): that of the predicted edit, where the model drew what was predicted.

The prediction (`propagation/`) is at the source's size. What the model changed of it is smooth at that size and is added; what
is finer than the model's frames comes from the prediction, unless the model drew something else there.
"""

from __future__ import annotations

import torch

from lora_edit.types import Size
from lora_edit.video.resize import resize_frames

APART = 20.0
"""Levels of 255 between the model's output and the prediction at which half of the prediction's detail is shown."""


def add_detail(generated: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """The model's frame `generated` `[h, w, 3]` at the size of `predicted` `[H, W, 3]` (both uint8), with the prediction's detail."""
    small, large = Size(*generated.shape[:2]), Size(*predicted.shape[:2])
    drawn = _resized(generated, large)
    coarse = _resized(resize_frames(predicted[None], small)[0], large)
    apart = (drawn - coarse).abs().amax(-1, keepdim=True)
    share = 1 / (1 + (apart / APART) ** 2)
    return (drawn + share * (predicted.float() - coarse)).round().clamp(0, 255).to(torch.uint8)


def _resized(frame: torch.Tensor, size: Size) -> torch.Tensor:
    return resize_frames(frame[None], size)[0].float()
