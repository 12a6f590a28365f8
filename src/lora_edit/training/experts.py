"""Training of all experts of a family in turn, each with its own LoRA, checkpoint and file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lora_edit.models.family import Family
from lora_edit.training.initial_lora import apply_initial_lora
from lora_edit.training.loop import OnNote, OnStep, Stage, fit
from lora_edit.training.lora import add_lora, get_lora_parameters, load_lora, save_lora, set_strength
from lora_edit.training.settings import LoraSettings, TrainingSettings


class ExpertFiles(Protocol):
    """Paths of an expert's files, by its `part`."""

    def lora_file(self, part: str = "") -> Path:
        """Return the path of the LoRA."""
        ...

    def checkpoint_file(self, part: str = "") -> Path:
        """Return the path of the training checkpoint."""
        ...


def train_experts(
    family: Family,
    stages: Sequence[Stage],
    settings: TrainingSettings,
    lora: LoraSettings,
    seed: int,
    files: ExpertFiles,
    key: str,
    metadata: dict[str, str],
    on_step: OnStep,
    on_note: OnNote = lambda text: None,
) -> tuple[list[float], list[tuple[str, int]]]:
    """Fit and save a LoRA for each expert. Returns all losses and the stages (name, steps done).

    `key` identifies everything besides the stages that determines the weights (see `fit`). The stages' samples must be encoded before the
    call, because loading an expert may move the encoders off the device. A stopped run resumes from each expert's checkpoint. Raises
    `TrainingDivergedError`.
    """
    losses: list[float] = []
    stage_steps: list[tuple[str, int]] = []
    for expert in family.experts():

        def report(stage: str, step: int, total: int, loss: float, part: str = expert.part) -> None:
            on_step(_format_stage_name(stage, part), step, total, loss)

        parameters = add_lora(expert, lora, seed)
        if lora.init is not None:
            for note in apply_initial_lora(family, expert, lora):
                on_note(note)
        for stage, stage_losses in zip(
            stages, fit(expert, parameters, stages, settings, seed, files.checkpoint_file(expert.part), key, report, on_note), strict=True
        ):
            losses += stage_losses
            stage_steps.append((_format_stage_name(stage.name, expert.part), len(stage_losses)))
        expert_metadata = {"time_range": "{:g}-{:g}".format(*expert.time_range)} | ({"expert": expert.part} if expert.part else {})
        save_lora(expert, files.lora_file(expert.part), metadata | expert_metadata)
    return losses, stage_steps


def fit_experts(
    family: Family, stages: Sequence[Stage], settings: TrainingSettings, lora: LoraSettings, seed: int, *, reset: bool = True
) -> list[float]:
    """Fit the experts' LoRAs in memory, without files; returns all losses. Without `reset` the present LoRAs are trained further."""
    if reset:
        for expert in family.experts():
            add_lora(expert, lora, seed)
            if lora.init is not None:
                apply_initial_lora(family, expert, lora)
    losses: list[float] = []
    for expert in family.experts():
        for stage_losses in fit(expert, get_lora_parameters(expert), stages, settings, seed, None, "", lambda *_: None):
            losses += stage_losses
    return losses


def load_experts(family: Family, lora: LoraSettings, seed: int, lora_file: Callable[[str], Path]) -> None:
    """Load the saved LoRAs into the experts. Raises `ModelError` when one does not fit."""
    for expert in family.experts():
        add_lora(expert, lora, seed)
        load_lora(expert, lora_file(expert.part))


def set_strengths(family: Family, strength: float) -> None:
    """Set the strength of the LoRAs at generation."""
    for expert in family.experts():
        set_strength(expert, strength)


def _format_stage_name(stage: str, part: str) -> str:
    return f"{stage}, {part}" if part else stage
