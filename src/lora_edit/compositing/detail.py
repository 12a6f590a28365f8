"""The predicted edit beside what the model drew (ours): which of them is shown.

The prediction (`propagation/`) is at the source's size, has not been through an autoencoder, and knows where it may be wrong. It is shown
where it is sure, and where the model agrees with it; what the model drew is shown where the prediction is unsure and the model differs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lora_edit.types import Size
from lora_edit.video.resize import resize_frames

DISAGREEMENT_SCALE = 20.0
"""Levels of 255 between the model's output and the prediction at which each is shown by half, where the prediction is unsure."""
ERROR_SCALE = 40.0
"""Expected error, levels of 255, from which the embedded model's output is nearer to the truth than the prediction."""


def add_detail(generated: torch.Tensor, predicted: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """The model's frame `generated` `[h, w, 3]` at the size of `predicted` `[H, W, 3]` (both uint8), and that where it is to be shown.

    `error` `[h', w']` is to be expected in the prediction, in levels of 255.
    """
    small, large = Size(*generated.shape[:2]), Size(*predicted.shape[:2])
    drawn = _resize_frame(generated, large)
    coarse = _resize_frame(resize_frames(predicted[None], small)[0], large)
    apart = (drawn - coarse).abs().amax(-1, keepdim=True)
    doubt = (
        F.interpolate(error[None, None], (large.height, large.width), mode="bilinear", align_corners=False)[0, 0, ..., None] / ERROR_SCALE
    )
    differs, unsure = (x / (1 + x) for x in ((apart / DISAGREEMENT_SCALE) ** 2, doubt**4))
    return torch.lerp(predicted.float(), drawn, differs * unsure).round().clamp(0, 255).to(torch.uint8)


def _resize_frame(frame: torch.Tensor, size: Size) -> torch.Tensor:
    return resize_frames(frame[None], size)[0].float()
