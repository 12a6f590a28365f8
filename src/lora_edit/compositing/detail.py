"""Detail above the model's resolution (ours): that of the predicted edit, where the model drew what was predicted.

The prediction (`propagation/`) is at the source's size and has not been through an autoencoder. It is shown where the model's frames
agree with it, and what the model drew instead where they don't.
"""

from __future__ import annotations

import torch

from lora_edit.types import Size
from lora_edit.video.resize import resize_frames

APART = 20.0
"""Levels of 255 between the model's output and the prediction at which each is shown by half."""


def add_detail(generated: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """The model's frame `generated` `[h, w, 3]` at the size of `predicted` `[H, W, 3]` (both uint8), and that where they agree."""
    small, large = Size(*generated.shape[:2]), Size(*predicted.shape[:2])
    drawn = _resized(generated, large)
    coarse = _resized(resize_frames(predicted[None], small)[0], large)
    apart = (drawn - coarse).abs().amax(-1, keepdim=True)
    share = 1 / (1 + (apart / APART) ** 2)
    return torch.lerp(drawn, predicted.float(), share).round().clamp(0, 255).to(torch.uint8)


def _resized(frame: torch.Tensor, size: Size) -> torch.Tensor:
    return resize_frames(frame[None], size)[0].float()
