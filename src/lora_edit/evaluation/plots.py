"""The plot of the training loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_edit.atomic_files import replace_file
from lora_edit.errors import RunError

SMOOTHING = 0.9
"""Weight of the previous running mean in each step."""


def draw_loss_plot(losses: Sequence[float], stages: Sequence[tuple[str, int]], path: Path) -> None:
    """Draw the loss of every step and its running mean, as a PNG.

    `stages` are the training stages in order, each with its number of steps. The mean restarts in each stage, because stages train on
    different pictures. Raises `RunError` when the file cannot be written.
    """
    # Matplotlib is slow to import, and most commands draw nothing. A Figure without pyplot draws with Agg and keeps no state between
    # calls.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for index, (name, start, stage_losses) in enumerate(_split_stages(losses, stages)):
        steps = range(start + 1, start + len(stage_losses) + 1)
        # A line of a single step is invisible, so that step is a point.
        axes.plot(steps, stage_losses, color=f"C{index}", alpha=0.3, linewidth=1, marker="." if len(stage_losses) == 1 else None)
        axes.plot(steps, smooth_losses(stage_losses), color=f"C{index}", linewidth=2, label=f"{name}, running mean")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
    try:
        with replace_file(path) as partial:
            figure.savefig(str(partial), format="png")
    except OSError as error:
        raise RunError(f"{path}: the plot cannot be written ({error.strerror}); choose a writable folder with free space") from error


def smooth_losses(losses: Sequence[float]) -> list[float]:
    """Compute the exponential running mean, corrected for the bias to 0 of its first steps; a loss that is not finite is skipped."""
    mean, weight, means = 0.0, 0.0, []
    for loss in losses:
        if math.isfinite(loss):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(mean / weight if weight else math.nan)
    return means


def _split_stages(losses: Sequence[float], stages: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, Sequence[float]]]:
    """Yield the name, first step and losses of each stage; a stage without losses is omitted."""
    start = 0
    for name, steps in stages:
        stage_losses = losses[start : start + steps]
        if stage_losses:
            yield name, start, stage_losses
        start += steps
    assert len(losses) <= start, "more losses than steps"
