"""All metrics of one result that need no learned weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.evaluation.registry import DEFAULT_METRICS, METRICS
from lora_edit.types import Size

DIGITS = 4
"""Decimals of the numbers in a record."""


@dataclass(frozen=True)
class Evaluation:
    """The measured values of a result by the keys of their metrics; None where there was nothing to measure.

    PSNR in dB (infinite when every pixel is equal), SSIM in [-1, 1], flicker in levels of 255, leak in [0, 1]. The region is
    compared with the truth, or with the source without one. The background, everything outside the region, is compared with the source.
    """

    num_frames: int
    size: Size
    fps: float
    values: Mapping[str, float | None]

    def to_json(self) -> dict[str, object]:
        """Build the record that `lora-edit evaluate --json` prints.

        JSON has no infinity, so the PSNR of equal pixels is null. For the background, `background_exact` is then added and true. The
        region is always measured, so null means equal. Optional metrics (`leak`) are omitted when they were not measured.
        """
        record: dict[str, object] = {"num_frames": self.num_frames, "size": str(self.size), "fps": _round_finite(self.fps)}
        for key, value in self.values.items():
            if value is not None or not METRICS[key].is_optional:
                record[key] = _round_finite(value)
        if self.values.get("background_psnr") == math.inf:
            record["background_exact"] = True
        return record


def evaluate(inputs: MetricInputs) -> Evaluation:
    """Measure every metric that needs no learned weights, such as the region (the whole frame without a mask) and the background.

    Flicker is that of the region. Leak needs the mask, the edited first frame, and a region in the first frame.
    """
    return Evaluation(
        num_frames=inputs.result.num_frames,
        size=inputs.result.size,
        fps=float(inputs.result.fps),
        values={key: METRICS[key].measure(inputs) for key in DEFAULT_METRICS},
    )


def _round_finite(value: float | None) -> float | None:
    return round(value, DIGITS) if value is not None and math.isfinite(value) else None
