"""Selection between the predicted edit and the model's output, per pixel (ours).

The prediction (`propagation/`) has the source's size, has not passed through an autoencoder, and carries an expected error. It is used
where that error is small or the model agrees with it; the model's output is used where the error is large and the two differ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lora_edit.types import Size
from lora_edit.video.resize import resize_frames

DISAGREEMENT_SCALE = 20.0
"""Difference, in levels of 255, at which both are mixed equally where the prediction's expected error is large."""
ERROR_SCALE = 40.0
"""Expected error, in levels of 255, above which the embedded model's output is nearer to the truth than the prediction."""


def add_detail(generated: torch.Tensor, predicted: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """Combine the model's frame `generated` `[h, w, 3]` and `predicted` `[H, W, 3]` (both uint8) at the size of `predicted`.

    `error` `[h', w']` is the prediction's expected error, in levels of 255.
    """
    small, large = Size(*generated.shape[:2]), Size(*predicted.shape[:2])
    upscaled = _resize_frame(generated, large)
    lowpass = _resize_frame(resize_frames(predicted[None], small)[0], large)
    difference = (upscaled - lowpass).abs().amax(-1, keepdim=True)
    relative_error = (
        F.interpolate(error[None, None], (large.height, large.width), mode="bilinear", align_corners=False)[0, 0, ..., None] / ERROR_SCALE
    )
    disagreement, uncertainty = (x / (1 + x) for x in ((difference / DISAGREEMENT_SCALE) ** 2, relative_error**4))
    return torch.lerp(predicted.float(), upscaled, disagreement * uncertainty).round().clamp(0, 255).to(torch.uint8)


def _resize_frame(frame: torch.Tensor, size: Size) -> torch.Tensor:
    return resize_frames(frame[None], size)[0].float()
