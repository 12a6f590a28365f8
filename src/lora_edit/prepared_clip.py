"""The clip at the model's size with its predictions, and the way back to the source's size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lora_edit.canvas import Canvas, build_canvas, composite_clip, paste_into_source
from lora_edit.compositing.crop import crop_frames
from lora_edit.config import EditSettings
from lora_edit.hints import Hints
from lora_edit.inputs import Clip
from lora_edit.models.families.embedded.record import TINY
from lora_edit.models.family import Family
from lora_edit.reporting import Reporter


@dataclass(frozen=True)
class PreparedClip:
    """The clip at the model's size, and the predictions of its edited and its source frames."""

    canvas: Canvas
    hints: Hints


def prepare_clip(family: Family, clip: Clip, settings: EditSettings, reporter: Reporter | None = None) -> PreparedClip:
    """Bring a clip to the size that `family` works at. Predictions are computed when they are first used."""
    family.frame_rate = float(clip.video.fps)
    canvas = build_canvas(clip, family.geometry, settings.compositing, settings.masks.snap)
    return PreparedClip(canvas, Hints(clip, canvas, settings.method.hint, settings.method.hint_confidence, reporter))


def composite_output(
    clip: Clip, prepared_clip: PreparedClip, pixels: torch.Tensor, settings: EditSettings, reporter: Reporter | None = None
) -> Iterator[torch.Tensor]:
    """Yield the result's frames `[H, W, 3]` uint8: the model's output `[3, T, h, w]` in [-1, 1], composited into the source.

    With `compositing.detail` on, the prediction is shown where it is reliable.
    """
    prediction = prepared_clip.hints.prediction if settings.compositing.detail else None
    for number, frame in enumerate(paste_into_source(clip, prepared_clip.canvas, pixels, settings.compositing, prediction)):
        if reporter:
            reporter.step("composite", number + 1, clip.video.num_frames)
        yield frame


def predict_preview_frames(clip: Clip, settings: EditSettings, reporter: Reporter) -> torch.Tensor:
    """Predict the edited clip without a diffusion model; returns composited frames `[T, H, W, 3]` uint8.

    Uses the embedded model's geometry, since no model is chosen yet.
    """
    canvas = build_canvas(clip, TINY.geometry, settings.compositing, align_to_tokens=False)
    prediction = paste_prediction(clip, PreparedClip(canvas, Hints(clip, canvas, "explained", reporter=reporter)))
    return torch.stack(list(composite_clip(clip, prediction, settings.compositing)))


def paste_prediction(clip: Clip, prepared_clip: PreparedClip) -> torch.Tensor:
    """Paste the predicted crop into the source, without compositing; returns `[T, H, W, 3]` uint8."""
    frames = clip.video.frames.clone()
    crop_frames(frames, prepared_clip.canvas.crop).copy_(prepared_clip.hints.prediction.frames)
    return frames
