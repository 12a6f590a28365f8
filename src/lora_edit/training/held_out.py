"""Early stopping of a stage by its loss on fixed held-out draws (`training.early_stop`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from lora_edit.models.family import EncodedSample, Expert
from lora_edit.seeds import create_generator
from lora_edit.training.loss import compute_velocity_loss
from lora_edit.training.noise import draw_time
from lora_edit.training.settings import TrainingSettings

HELD_OUT_INTERVAL = 10
"""Steps between two evaluations of the held-out loss."""

NUM_DRAWS = 4
"""Draws of sample, time and noise per evaluation; each costs one forward pass."""

PATIENCE = 3
"""Number of evaluations over which the decrease is measured; a stage ends when it is too small."""

MIN_RELATIVE_DECREASE = 0.2
"""Smallest decrease over `PATIENCE` evaluations, as a share of the stage's total decrease. On a single clip the loss never stops falling
entirely, and its total decrease differs between models and clips."""

_TIMES_PER_DRAW = 32


@torch.no_grad()
def compute_held_out_loss(
    expert: Expert, samples: Sequence[EncodedSample], weights: Sequence[float], settings: TrainingSettings, seed: int
) -> float:
    """Compute the mean loss of the held-out draws, which are the same in every evaluation.

    They use the stage's samples in proportion to their weights, and times spread evenly over the stage's distribution.
    """
    total = 0.0
    strata = torch.randperm(NUM_DRAWS, generator=create_generator(seed, "held-out", "places")).tolist()
    for number, (stratum, time) in enumerate(zip(strata, _draw_times(expert, settings, seed), strict=True)):
        sample = samples[_find_sample_at_share((stratum + 0.5) / NUM_DRAWS, weights)]
        total += compute_velocity_loss(expert, sample, settings, create_generator(seed, "held-out", number), time).item()
    return total / NUM_DRAWS


def _draw_times(expert: Expert, settings: TrainingSettings, seed: int) -> list[torch.Tensor]:
    """Draw `NUM_DRAWS` times, each of shape `[1]`: the medians of equal parts of the training distribution."""
    generator = create_generator(seed, "held-out", "times")
    times = [draw_time(settings.time_sampling, settings.shift, generator, expert.time_range) for _ in range(NUM_DRAWS * _TIMES_PER_DRAW)]
    return sorted(times)[_TIMES_PER_DRAW // 2 :: _TIMES_PER_DRAW]


def _find_sample_at_share(share: float, weights: Sequence[float]) -> int:
    """Find the sample at `share` of the cumulative weights."""
    ends = list(accumulate(weights))
    return next(number for number, end in enumerate(ends) if share * ends[-1] < end)


def has_stalled(losses: Sequence[float]) -> bool:
    """Return whether the last `PATIENCE` evaluations decreased the loss too little (`MIN_RELATIVE_DECREASE`).

    `losses` are the stage's held-out losses, the first one from before its first step. Running minima are compared, so that a single bad
    evaluation does not end the stage.
    """
    if len(losses) <= PATIENCE:
        return False
    previous_best, best = min(losses[:-PATIENCE]), min(losses)
    return previous_best - best <= MIN_RELATIVE_DECREASE * (losses[0] - best)


def count_held_out_passes(settings: TrainingSettings, steps: int) -> int:
    """Count the forward passes of held-out evaluation over `steps` steps."""
    return (1 + steps // HELD_OUT_INTERVAL) * NUM_DRAWS if settings.early_stop else 0
