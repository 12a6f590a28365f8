"""The training loop: fit the LoRA on encoded samples, stage after stage (paper 3.3, 4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path

import torch
from torch import nn

from lora_edit.errors import TrainingDivergedError
from lora_edit.models.family import EncodedSample, Expert
from lora_edit.seeds import create_generator
from lora_edit.training import checkpoint
from lora_edit.training.held_out import HELD_OUT_INTERVAL, compute_held_out_loss, has_stalled
from lora_edit.training.loss import compute_velocity_loss
from lora_edit.training.settings import TrainingSettings
from lora_edit.types import hash_content

OnStep = Callable[[str, int, int, float], None]
"""Called after each step with the stage's name, steps done and (at most) to do over all stages, and the step's loss."""


@dataclass(frozen=True)
class Stage:
    """`steps` steps on `samples`, drawn with the probabilities `weights`; `shift` takes the place of the settings' where it is given."""

    name: str
    samples: Sequence[EncodedSample]
    weights: Sequence[float]
    steps: int
    shift: float | None = None

    def resolve_settings(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings as they hold in this stage."""
        return settings if self.shift is None else settings.model_copy(update={"shift": self.shift})

    def compute_key(self, previous_key: str) -> str:
        """A hash of all that decides the weights after this stage, where `before` is that of what went before it."""
        drawn = [part for sample in self.samples for part in (getattr(sample, each.name) for each in fields(sample))]
        exact = [part.float() if isinstance(part, torch.Tensor) else part for part in drawn]  # bfloat16 is nothing to NumPy
        return hash_content(previous_key, self.name, str(self.steps), str(self.shift), str(list(self.weights)), *exact)


def compute_stage_keys(key: str, stages: Sequence[Stage]) -> list[str]:
    """The stages' keys in turn: two trainings that begin alike share their first keys. `key` stands for model, seed and settings."""
    return list(accumulate(stages, lambda before, stage: stage.compute_key(before), initial=key))[1:]


def compute_learning_rate(settings: TrainingSettings, step: int, num_steps: int) -> float:
    """Learning rate of a stage's step number `step` of `steps`."""
    return settings.learning_rate * (1 - step / num_steps if settings.schedule == "linear" else 1)


def _train_step(
    expert: Expert,
    stage: Stage,
    step: int,
    settings: TrainingSettings,
    seed: int,
    parameters: list[nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> float:
    """One optimiser step. All its randomness comes from (seed, step), so a resumed run repeats it exactly."""
    generator = create_generator(seed, "training", step)
    weights = torch.tensor(stage.weights)
    optimiser.zero_grad(set_to_none=True)
    total = 0.0
    for _ in range(settings.batch_size):
        chosen = int(torch.multinomial(weights, 1, generator=generator))
        loss = compute_velocity_loss(expert, stage.samples[chosen], settings, generator) / settings.batch_size
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    if not math.isfinite(total):
        raise TrainingDivergedError(f"the loss became {total} at step {step + 1}; lower training.learning_rate and run again")
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
) -> list[list[float]]:
    """Run every stage and return each one's losses. Goes on from `file` as far as its stages are these: `key` stands for what decides the
    weights beside the stages themselves. The state before a later stage is kept beside it, so that another later stage begins there.

    A new optimiser starts with each stage, as in the reference. With `early_stop` a stage may take fewer than its steps; the held-out
    losses that decide it are kept with the rest, so that a resumed run ends where it would have. Raises `TrainingDiverged`.
    """
    values = list(parameters.values())
    expert.to_device()
    optimiser = _build_optimiser(values, settings)
    keys, progress = compute_stage_keys(key, stages) if file else [], checkpoint.Progress()
    if file:
        ends = [checkpoint.get_stage_path(file, stage.name) for stage in reversed(stages)]
        progress = checkpoint.load_checkpoint([file, *ends], parameters, optimiser, keys)
    for number, stage in enumerate(stages):
        own, later = stage.resolve_settings(settings), sum(each.steps for each in stages[number + 1 :])
        if number == len(progress.losses):
            optimiser = _build_optimiser(values, settings)
            if file and number:
                checkpoint.save_checkpoint(
                    checkpoint.get_stage_path(file, stages[number - 1].name), parameters, optimiser, progress, keys[:number]
                )
            progress.losses.append([])
            progress.held_out_losses.append(_evaluate_held_out(expert, stage, own, seed, 0))
        losses, held_out = progress.losses[number], progress.held_out_losses[number]
        while left := _count_steps_left(stage, losses, held_out):
            for group in optimiser.param_groups:
                group["lr"] = compute_learning_rate(own, len(losses), stage.steps)
            losses.append(_train_step(expert, stage, sum(map(len, progress.losses)), own, seed, values, optimiser))
            held_out += _evaluate_held_out(expert, stage, own, seed, len(losses))
            left, done = _count_steps_left(stage, losses, held_out), sum(map(len, progress.losses))
            if file and (done % settings.checkpoint_every == 0 or not left):
                checkpoint.save_checkpoint(file, parameters, optimiser, progress, keys[: number + 1])
            on_step(stage.name, done, done + left + later, losses[-1])
    return progress.losses


def _evaluate_held_out(expert: Expert, stage: Stage, settings: TrainingSettings, seed: int, step: int) -> list[float]:
    """The held-out loss where a stage's step has one."""
    due = settings.early_stop and step % HELD_OUT_INTERVAL == 0
    return [compute_held_out_loss(expert, stage.samples, stage.weights, settings, seed)] if due else []


def _count_steps_left(stage: Stage, losses: Sequence[float], held_out: Sequence[float]) -> int:
    """How many steps a stage has to go, at most."""
    return 0 if has_stalled(held_out) else stage.steps - len(losses)


def _build_optimiser(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay)
