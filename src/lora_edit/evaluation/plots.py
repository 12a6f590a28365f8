"""The training loss as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_edit.errors import RunError

SMOOTHING = 0.9
"""Share of the running mean that each step keeps."""


def draw_loss_plot(losses: Sequence[float], stages: Sequence[tuple[str, int]], path: Path) -> None:
    """Draw the loss of every step, and its running mean, as a PNG.

    `stages` are the training stages in order, each with its number of steps; the mean starts anew in each one, because they learn
    from different pictures. Raises `RunError` when the file cannot be written.
    """
    # Matplotlib is slow to load, and most commands draw nothing. A Figure of its own, without pyplot, draws with Agg and keeps
    # no state between calls.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for index, (name, start, part) in enumerate(_split_stages(losses, stages)):
        steps = range(start + 1, start + len(part) + 1)
        # A lone step is a point, which a line would not show.
        axes.plot(steps, part, color=f"C{index}", alpha=0.3, linewidth=1, marker="." if len(part) == 1 else None)
        axes.plot(steps, smooth_losses(part), color=f"C{index}", linewidth=2, label=f"{name}, running mean")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(str(partial), format="png")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: the plot cannot be written ({error.strerror}); choose a writable folder with free space") from error


def smooth_losses(losses: Sequence[float]) -> list[float]:
    """The exponential running mean, free of the bias to 0 of its first steps; steps whose loss is not finite are passed over."""
    mean, weight, out = 0.0, 0.0, []
    for loss in losses:
        if math.isfinite(loss):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            weight = SMOOTHING * weight + (1 - SMOOTHING)
        out.append(mean / weight if weight else math.nan)
    return out


def _split_stages(losses: Sequence[float], stages: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, Sequence[float]]]:
    """Each stage's name, first step and losses; a stage that was not reached is left out."""
    start = 0
    for name, steps in stages:
        part = losses[start : start + steps]
        if part:
            yield name, start, part
        start += steps
    assert len(losses) <= start, "more losses than steps"
