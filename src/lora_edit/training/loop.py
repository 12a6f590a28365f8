"""The training loop: fits the LoRA to encoded samples, stage by stage (paper 3.3, 4.1)."""

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
"""Callback after each step, with the stage's name, the steps done and the largest total over all stages, and the step's loss."""


OnNote = Callable[[str], None]
"""Callback with a remark for the user."""


@dataclass(frozen=True)
class Stage:
    """At most `steps` steps on `samples`, drawn with probabilities `weights`; `shift`, if given, replaces the settings' shift."""

    name: str
    samples: Sequence[EncodedSample]
    weights: Sequence[float]
    steps: int
    shift: float | None = None

    def resolve_settings(self, settings: TrainingSettings) -> TrainingSettings:
        """Return the settings of this stage."""
        return settings if self.shift is None else settings.model_copy(update={"shift": self.shift})

    def compute_key(self, previous_key: str) -> str:
        """Hash everything that determines the weights after this stage; `previous_key` is the hash before it."""
        values = [part for sample in self.samples for part in (getattr(sample, each.name) for each in fields(sample))]
        hashable = [part.float() if isinstance(part, torch.Tensor) else part for part in values]  # NumPy has no bfloat16
        return hash_content(previous_key, self.name, str(self.steps), str(self.shift), str(list(self.weights)), *hashable)


def compute_stage_keys(key: str, stages: Sequence[Stage]) -> list[str]:
    """Compute the stages' keys in order; runs with equal first stages share their first keys. `key` identifies model, seed and settings."""
    return list(accumulate(stages, lambda previous_key, stage: stage.compute_key(previous_key), initial=key))[1:]


def compute_learning_rate(settings: TrainingSettings, step: int, num_steps: int) -> float:
    """Compute the learning rate of step `step` of a stage's `num_steps` steps."""
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
    """Run one optimiser step and return its loss. All randomness derives from (seed, step), so a resumed run repeats it exactly."""
    generator = create_generator(seed, "training", step)
    weights = torch.tensor(stage.weights)
    optimiser.zero_grad(set_to_none=True)
    total = 0.0
    for _ in range(settings.batch_size):
        index = int(torch.multinomial(weights, 1, generator=generator))
        loss = compute_velocity_loss(expert, stage.samples[index], settings, generator) / settings.batch_size
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    gradient_norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm))
    if not math.isfinite(total) or not math.isfinite(gradient_norm):
        raise TrainingDivergedError(
            f"the loss became {total:g} and the norm of its gradient {gradient_norm:g} at step {step + 1}; {checkpoint.DIVERGENCE_REMEDY}"
        )
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
    on_note: OnNote = lambda text: None,
) -> list[list[float]]:
    """Run every stage and return the losses of each.

    Training resumes from the checkpoint `file` if its stages are the first ones of `stages`; `key` identifies everything besides the stages
    that determines the weights. The state before each later stage is saved next to it, so that a different later stage can start there.

    Each stage starts a new optimiser, as in the reference. With `early_stop`, a stage may end before its last step; the checkpoint contains
    the held-out losses, so that a resumed run ends at the same step. Raises `TrainingDivergedError`.
    """
    values = list(parameters.values())
    expert.to_device()
    optimiser = _build_optimiser(values, settings)
    keys, progress = compute_stage_keys(key, stages) if file else [], checkpoint.Progress()
    if file:
        stage_paths = [checkpoint.get_stage_path(file, stage.name) for stage in reversed(stages)]
        progress = checkpoint.load_checkpoint([file, *stage_paths], parameters, optimiser, keys, on_note)
    for number, stage in enumerate(stages):
        stage_settings, num_later = stage.resolve_settings(settings), sum(each.steps for each in stages[number + 1 :])
        if number == len(progress.losses):
            optimiser = _build_optimiser(values, settings)
            if file and number:
                checkpoint.save_checkpoint(
                    checkpoint.get_stage_path(file, stages[number - 1].name), parameters, optimiser, progress, keys[:number]
                )
            progress.losses.append([])
            progress.held_out_losses.append(_evaluate_held_out(expert, stage, stage_settings, seed, 0))
        losses, held_out = progress.losses[number], progress.held_out_losses[number]
        while num_left := _count_steps_left(stage, losses, held_out):
            for group in optimiser.param_groups:
                group["lr"] = compute_learning_rate(stage_settings, len(losses), stage.steps)
            losses.append(_train_step(expert, stage, sum(map(len, progress.losses)), stage_settings, seed, values, optimiser))
            held_out += _evaluate_held_out(expert, stage, stage_settings, seed, len(losses))
            num_left, num_done = _count_steps_left(stage, losses, held_out), sum(map(len, progress.losses))
            if file and (num_done % settings.checkpoint_every == 0 or not num_left):
                checkpoint.save_checkpoint(file, parameters, optimiser, progress, keys[: number + 1])
            on_step(stage.name, num_done, num_done + num_left + num_later, losses[-1])
    return progress.losses


def _evaluate_held_out(expert: Expert, stage: Stage, settings: TrainingSettings, seed: int, step: int) -> list[float]:
    """Evaluate the held-out loss if it is due at this step of the stage. Returns a list of at most one loss."""
    due = settings.early_stop and step % HELD_OUT_INTERVAL == 0
    return [compute_held_out_loss(expert, stage.samples, stage.weights, settings, seed)] if due else []


def _count_steps_left(stage: Stage, losses: Sequence[float], held_out: Sequence[float]) -> int:
    """Count the remaining steps of a stage, at most."""
    return 0 if has_stalled(held_out) else stage.steps - len(losses)


def _build_optimiser(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay)
