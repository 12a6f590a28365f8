"""The registry of metrics: one record per metric.

The `evaluate` command, the report and the tables of the studies read names, texts and functions from here. To add a metric, write a
module with its function and add a record to `METRICS`. Importing this module imports no metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_edit.evaluation.metric_inputs import MetricInputs


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The record of one metric.

    - `key`: its name in JSON and in `--metrics`.
    - `label`, `explanation`: its name in the report, and one line about it there.
    - `heading`: the head of its column in the tables of the studies, with the unit.
    - `unit`, `digits`: the unit behind its value, and the decimals in the tables of the studies.
    - `higher_is_better`: whether a higher value is the better one.
    - `target`: `module:function`, imported on first use. The function takes `MetricInputs` and returns a number, or None (or NaN) when
      there is nothing to measure.
    - `loader`: `module:function` for a metric that needs learned weights. It takes a `torch.device` and returns the network, which
      `target` takes as its second argument. Metrics with the same loader share the network.
    - `measured_with`: the key of another metric. This one is then measured whenever that one is, and cannot be requested alone.
    - `is_optional`: the record omits the metric, instead of holding null, when there is nothing to measure.
    - `requires_first_frame`: requesting the metric without an edited first frame is an error.
    """

    key: str
    label: str
    heading: str
    explanation: str
    target: str
    higher_is_better: bool
    unit: str = ""
    digits: int = 3
    loader: str = ""
    measured_with: str = ""
    is_optional: bool = False
    requires_first_frame: bool = False

    @property
    def needs_weights(self) -> bool:
        """Whether the metric needs learned weights, which are downloaded once."""
        return bool(self.loader)

    def measure(self, inputs: MetricInputs, network: Any = None) -> float | None:
        """Measure the result; None when there is nothing to measure. `network` is what `loader` returned, for metrics that have one."""
        function = import_target(self.target)
        value: float | None = function(inputs, network) if self.needs_weights else function(inputs)
        return None if value is None or math.isnan(value) else value


@dataclass(frozen=True)
class KeyList:
    """Keys of metrics; as text, separated by commas."""

    keys: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.keys)


_PACKAGE = "lora_edit.evaluation"
_CLIP = f"{_PACKAGE}.clip_score:load_clip_model"
_LPIPS = f"{_PACKAGE}.lpips:load_lpips"

METRICS = {
    metric.key: metric
    for metric in (
        Metric(
            key="region_psnr", label="Region, PSNR", heading="region, dB", unit="dB", digits=2, higher_is_better=True,
            explanation="closeness of the region to the truth, or without one to the source, from which an edit differs",
            target=f"{_PACKAGE}.psnr:measure_region_psnr",
        ),
        Metric(
            key="region_ssim", label="Region, SSIM", heading="region SSIM", higher_is_better=True,
            explanation="structural similarity of the region to the same clip: 1 = equal",
            target=f"{_PACKAGE}.ssim:measure_region_ssim",
        ),
        Metric(
            key="background_psnr", label="Background, PSNR", heading="background, dB", unit="dB", digits=2, higher_is_better=True,
            explanation="closeness of everything outside the region to the source: above 40 no difference is visible",
            target=f"{_PACKAGE}.psnr:measure_background_psnr",
        ),
        Metric(
            key="background_ssim", label="Background, SSIM", heading="background SSIM", higher_is_better=True,
            explanation="structural similarity of everything outside the region to the source: 1 = equal",
            target=f"{_PACKAGE}.ssim:measure_background_ssim",
        ),
        Metric(
            key="flicker", label="Flicker", heading="flicker", unit="levels of 255", digits=2, higher_is_better=False,
            explanation="change from frame to frame beyond motion: below 2 is calm, above 5 is visible",
            target=f"{_PACKAGE}.flicker:measure_flicker",
        ),
        Metric(
            key="leak", label="Leak of the source's colours", heading="leak", higher_is_better=False, is_optional=True,
            explanation="return of the source's colours in the region: 0 = none, 1 = the edit is gone",
            target=f"{_PACKAGE}.leak:measure_leak",
        ),
        Metric(
            key="clip_score", label="CLIP score", heading="CLIP score", higher_is_better=True, requires_first_frame=True,
            explanation="similarity to the edited first frame: 1 = the same picture",
            target=f"{_PACKAGE}.clip_score:measure_clip_score", loader=_CLIP,
        ),
        Metric(
            key="input_similarity", label="Input similarity", heading="input similarity", higher_is_better=True,
            explanation="similarity to the source: 1 = the same clip",
            target=f"{_PACKAGE}.clip_score:measure_input_similarity", loader=_CLIP,
        ),
        Metric(
            key="deqa", label="DeQA score", heading="DeQA score", higher_is_better=True,
            explanation="quality of the frames by themselves: 1 = bad, 5 = excellent",
            target=f"{_PACKAGE}.deqa:measure_deqa", loader=f"{_PACKAGE}.deqa:load_deqa",
        ),
        Metric(
            key="lpips", label="Region, LPIPS", heading="region LPIPS", higher_is_better=False,
            explanation="perceptual distance of the region to the truth, or without one to the source: 0 = equal",
            target=f"{_PACKAGE}.lpips:measure_region_lpips", loader=_LPIPS,
        ),
        Metric(
            key="background_lpips", label="Background, LPIPS", heading="background LPIPS", higher_is_better=False,
            explanation="perceptual distance of everything outside the region to the source: 0 = equal",
            target=f"{_PACKAGE}.lpips:measure_background_lpips", loader=_LPIPS, measured_with="lpips",
        ),
    )
}  # fmt: skip
"""Every metric by its key, in the order of the report and of `evaluate --json`."""

DEFAULT_METRICS = tuple(key for key in METRICS if not METRICS[key].needs_weights)
"""Keys of the metrics that need no download; `evaluate` measures them by default."""

LEARNED_METRICS = tuple(key for key in METRICS if METRICS[key].needs_weights and not METRICS[key].measured_with)
"""Keys of the metrics that need learned weights; `evaluate` measures those that are requested by name."""


def import_target(target: str) -> Any:
    """Import the object behind `module:name`."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
