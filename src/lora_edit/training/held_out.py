"""When a stage has learned what it will: the loss on a few fixed draws that no step sees (`training.early_stop`)."""

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
"""Steps between two looks at the held-out loss."""

NUM_DRAWS = 4
"""Draws of sample, time and noise; a look costs one pass forward for each."""

PATIENCE = 3
"""A stage ends when its last so many looks together brought next to nothing."""

MIN_RELATIVE_DECREASE = 0.2
"""What is next to nothing: this share of all that the stage has brought. On one clip the loss never stops falling altogether, and how
far it can fall at all differs from model to model and from clip to clip."""

_TIMES_PER_DRAW = 32


@torch.no_grad()
def compute_held_out_loss(
    expert: Expert, samples: Sequence[EncodedSample], weights: Sequence[float], settings: TrainingSettings, seed: int
) -> float:
    """Mean loss of the draws, the same ones at every look: a stage's samples in their shares, times spread over those it draws."""
    total = 0.0
    places = torch.randperm(NUM_DRAWS, generator=create_generator(seed, "held-out", "places")).tolist()
    for number, (place, time) in enumerate(zip(places, _draw_times(expert, settings, seed), strict=True)):
        sample = samples[_find_sample_at_share((place + 0.5) / NUM_DRAWS, weights)]
        total += compute_velocity_loss(expert, sample, settings, create_generator(seed, "held-out", number), time).item()
    return total / NUM_DRAWS


def _draw_times(expert: Expert, settings: TrainingSettings, seed: int) -> list[torch.Tensor]:
    """The middles of as many equal parts of the distribution that the steps draw from, each of shape `[1]`."""
    generator = create_generator(seed, "held-out", "times")
    drawn = [draw_time(settings.time_sampling, settings.shift, generator, expert.time_range) for _ in range(NUM_DRAWS * _TIMES_PER_DRAW)]
    return sorted(drawn)[_TIMES_PER_DRAW // 2 :: _TIMES_PER_DRAW]


def _find_sample_at_share(share: float, weights: Sequence[float]) -> int:
    """Which of the samples laid side by side, as wide as their weights, lies at `share` of the whole."""
    ends = list(accumulate(weights))
    return next(number for number, end in enumerate(ends) if share * ends[-1] < end)


def has_stalled(losses: Sequence[float]) -> bool:
    """Have the last `PATIENCE` looks brought next to nothing? `losses` are a stage's held-out losses so far, the first one from before its
    first step; the lowest up to a look counts, so that a single bad one ends nothing."""
    if len(losses) <= PATIENCE:
        return False
    before, best = min(losses[:-PATIENCE]), min(losses)
    return before - best <= MIN_RELATIVE_DECREASE * (losses[0] - best)


def count_held_out_passes(settings: TrainingSettings, steps: int) -> int:
    """Passes forward that looking costs over `steps` steps."""
    return (1 + steps // HELD_OUT_INTERVAL) * NUM_DRAWS if settings.early_stop else 0
