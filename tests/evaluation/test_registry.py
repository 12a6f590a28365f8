"""The registry of metrics: complete and consistent records, and lazy imports."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest

from evaluation.pictures import still
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.evaluation.registry import DEFAULT_METRICS, LEARNED_METRICS, METRICS, KeyList, Metric, import_target
from lora_edit.types import Video


def constant(inputs: MetricInputs) -> float:
    """Measure a known value."""
    return 7.0 * len(inputs.result.frames)


def undefined(inputs: MetricInputs) -> float:
    """Return NaN, as a metric does that has nothing to measure."""
    return float("nan")


def make_metric(function: str) -> Metric:
    return Metric(key="x", label="X", heading="x", explanation="a test", target=f"{__name__}:{function}", higher_is_better=True)


@pytest.mark.parametrize("key", METRICS)
def test_records_are_complete(key: str) -> None:
    metric = METRICS[key]
    assert metric.key == key and metric.label and metric.heading and metric.explanation
    assert "\n" not in metric.explanation
    assert callable(import_target(metric.target)) and (not metric.loader or callable(import_target(metric.loader)))
    assert not metric.measured_with or METRICS[metric.measured_with].loader == metric.loader


def test_keys_are_split_by_their_need_for_weights() -> None:
    assert {"region_psnr", "background_ssim", "flicker", "leak"} <= set(DEFAULT_METRICS)
    assert {"clip_score", "input_similarity", "deqa", "lpips"} <= set(LEARNED_METRICS)
    assert not set(DEFAULT_METRICS) & set(LEARNED_METRICS) and "background_lpips" not in LEARNED_METRICS
    assert f"{KeyList(('clip_score', 'lpips'))}" == "clip_score, lpips"


def test_metric_measures_with_its_target() -> None:
    video = Video(still(2), Fraction(25), (0.0, 0.04))
    inputs = MetricInputs(video, video)
    assert make_metric("constant").measure(inputs) == 14
    assert make_metric("undefined").measure(inputs) is None


def test_shared_values_are_computed_once() -> None:
    video = Video(still(2), Fraction(25), (0.0, 0.04))
    inputs, calls = MetricInputs(video, video), []
    for _ in range(2):
        assert inputs.share("key", lambda: calls.append(1) or 5) == 5
    assert calls == [1]


def test_importing_the_registry_imports_no_metric() -> None:
    code = "import sys, lora_edit.evaluation.registry; print('torch' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
