"""The metrics that need learned weights; only the networks of the requested metrics are loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lora_edit.devices import pick_device
from lora_edit.errors import SettingsError
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.evaluation.registry import METRICS, Metric, import_target

DIGITS = 4
"""Decimals of the numbers in a record."""

Networks = Mapping[str, Any]
"""Loaded networks by the `loader` of their metrics."""


def load_networks(names: Collection[str], device: str = "auto") -> Networks:
    """Load the networks of the metrics in `names`. Raises `ModelError` when one is not on this machine."""
    torch_device = pick_device(device)
    loaders = dict.fromkeys(metric.loader for metric in _select_metrics(names))
    return {loader: import_target(loader)(torch_device) for loader in loaders}


def measure_learned_metrics(networks: Networks, names: Collection[str], inputs: MetricInputs) -> dict[str, float]:
    """Measure the learned metrics in `names`, rounded, as `lora-edit evaluate --json` prints them.

    `lpips` is that of the region (the whole frame without a mask) against the truth, or the source without one. Where the mask leaves
    a background, `background_lpips` compares it with the source. Raises `SettingsError` when a metric needs the edited first frame and
    there is none.
    """
    require_first_frame(names, inputs.first_frame is not None)
    values = {metric.key: metric.measure(inputs, networks[metric.loader]) for metric in _select_metrics(names) if metric.loader in networks}
    return {key: round(value, DIGITS) for key, value in values.items() if value is not None}


def require_first_frame(names: Collection[str], has_first_frame: bool) -> None:
    """Raise `SettingsError` when a metric in `names` needs the edited first frame and `has_first_frame` is false."""
    for name in names:
        if METRICS[name].requires_first_frame and not has_first_frame:
            raise SettingsError(f"{name} compares with the edited first frame; give it with --first-frame IMAGE")


def _select_metrics(names: Collection[str]) -> list[Metric]:
    """The learned metrics that are named, and those that are measured with them."""
    return [metric for metric in METRICS.values() if metric.needs_weights and (metric.measured_with or metric.key) in names]
