"""Metrics of the registry that studies measure in addition to those of their own."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.evaluation.registry import DEFAULT_METRICS, METRICS
from lora_edit.inputs import Clip

SPECIAL_METRICS = frozenset({"region_psnr", "region_ssim", "background_psnr", "background_ssim", "flicker", "leak"})
"""Metrics that `study.py` and `case_study.py` measure on frames of their own choice, or omit."""

EXTRA_METRICS = tuple(key for key in DEFAULT_METRICS if key not in SPECIAL_METRICS)
"""All other metrics that need no learned weights; studies measure them on the finished clip."""


def measure_extra_metrics(frames: torch.Tensor, clip: Clip, truth: torch.Tensor | None = None) -> dict[str, float]:
    """Measure `EXTRA_METRICS` of a finished clip; NaN where there is nothing to measure.

    `frames` and the true edit `truth`, where known, are `[T, H, W, 3]` uint8; `clip` has the source, the region and the first frame.
    """
    if not EXTRA_METRICS:
        return {}
    result = replace(clip.video, frames=frames)
    true_edit = None if truth is None else replace(clip.video, frames=truth)
    inputs = MetricInputs(result, clip.video, true_edit, clip.edit_mask, clip.first_frame)
    values = {key: METRICS[key].measure(inputs) for key in EXTRA_METRICS}
    return {key: math.nan if value is None else value for key, value in values.items()}
