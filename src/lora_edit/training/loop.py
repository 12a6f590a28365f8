"""The training loop: fit the LoRA on encoded samples, stage after stage (paper 3.3, 4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lora_edit.errors import TrainingDiverged
from lora_edit.models.family import EncodedSample, Expert
from lora_edit.seeds import named_generator
from lora_edit.training import checkpoint
from lora_edit.training.loss import velocity_loss
from lora_edit.training.settings import TrainingSettings

OnStep = Callable[[str, int, int, float], None]
"""Called after each step with the stage's name, steps done and to do over all stages, and the step's loss."""


@dataclass(frozen=True)
class Stage:
    """`steps` steps on `samples`, drawn with the probabilities `weights`."""

    name: str
    samples: Sequence[EncodedSample]
    weights: Sequence[float]
    steps: int


def _stage_at(stages: Sequence[Stage], step: int) -> tuple[Stage, int]:
    """The stage of a step, and the step's number within it."""
    for stage in stages:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    raise AssertionError("step is beyond the last stage")


def rate_at(settings: TrainingSettings, step: int, steps: int) -> float:
    """Learning rate of a stage's step number `step` of `steps`."""
    return settings.learning_rate * (1 - step / steps if settings.schedule == "linear" else 1)


def _step(
    expert: Expert,
    stage: Stage,
    step: int,
    settings: TrainingSettings,
    seed: int,
    parameters: list[nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> float:
    """One optimiser step. All its randomness comes from (seed, step), so a resumed run repeats it exactly."""
    generator = named_generator(seed, "training", step)
    weights = torch.tensor(stage.weights)
    optimiser.zero_grad(set_to_none=True)
    total = 0.0
    for _ in range(settings.batch_size):
        chosen = int(torch.multinomial(weights, 1, generator=generator))
        loss = velocity_loss(expert, stage.samples[chosen], settings, generator) / settings.batch_size
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    if not math.isfinite(total):
        raise TrainingDiverged(f"the loss became {total} at step {step + 1}; lower training.learning_rate and run again")
    torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
    optimiser.step()
    return total


def fit(
    expert: Expert,
    parameters: dict[str, nn.Parameter],
    stages: Sequence[Stage],
    settings: TrainingSettings,
    seed: int,
    file: Path | None,
    key: str,
    on_step: OnStep,
) -> list[float]:
    """Run every stage and return each step's loss. Resumes from `file` when its `key` (settings and inputs) is the same.

    A new optimiser starts with each stage, as in the reference. Raises `TrainingDiverged`.
    """
    values = list(parameters.values())
    expert.to_device()
    optimiser = _optimiser(values, settings)
    progress = checkpoint.restore(file, parameters, optimiser, key) if file else checkpoint.Progress(0, [])
    losses, total = list(progress.losses), sum(stage.steps for stage in stages)
    starts = {sum(s.steps for s in stages[:i]) for i in range(1, len(stages))}
    for step in range(progress.step, total):
        if step in starts:
            optimiser = _optimiser(values, settings)
        stage, place = _stage_at(stages, step)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(settings, place, stage.steps)
        losses.append(_step(expert, stage, step, settings, seed, values, optimiser))
        done = step + 1
        if file and (done % settings.checkpoint_every == 0 or done == total or done in starts):
            checkpoint.save(file, parameters, optimiser, checkpoint.Progress(done, losses), key)
        on_step(stage.name, done, total, losses[-1])
    return losses


def _optimiser(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay)
