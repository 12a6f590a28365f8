"""What an edit with a large model will need of a machine, reckoned before any of its weights is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from lora_edit.conditioning.windows import inference_windows, whole_groups
from lora_edit.config import EditSettings
from lora_edit.devices import Machine
from lora_edit.models.catalog.facts import Geometry, ModelFacts
from lora_edit.models.cost import StepCost, count_step
from lora_edit.models.outline import OUTLINES
from lora_edit.training.lora import add_lora
from lora_edit.training.settings import LoraSettings
from lora_edit.types import Size

REACHED = 0.5
"""Share of a machine's matrix rate that a step is reckoned to reach."""

RESERVE = 0.7e9
"""What the device's own library holds, in bytes."""

SPREAD = 1.05
"""Allocators lose a few hundredths to gaps between tensors."""

ADAM = 16
"""Bytes for each trained number: itself, its gradient, and two moments, in float32."""


@dataclass(frozen=True)
class Placement:
    """Where weights and hidden states lie in training: `swapped` blocks are streamed from main memory, `scale` is what the streamed ones'
    numbers take of bfloat16's room, and `parked` hidden states wait in main memory for the backward pass."""

    swapped: int = 0
    scale: float = 1.0
    parked: bool = False


@dataclass(frozen=True)
class Forecast:
    """Bytes on the device by stage, bytes of main memory, seconds by stage; `windows` are the passes over a long clip."""

    train_bytes: float
    generate_bytes: float
    host_bytes: float
    seconds_train: float
    seconds_generate: float
    windows: int

    @property
    def device_bytes(self) -> float:
        """The most that any stage needs."""
        return max(self.train_bytes, self.generate_bytes)

    def faults(self, machine: Machine) -> list[str]:
        """What does not fit the machine, in words; empty when all does."""
        found = []
        if machine.device_bytes and self.device_bytes > machine.device_bytes:
            found.append(f"{self.device_bytes / 1e9:.1f} GB on the device, which has {machine.device_bytes / 1e9:.1f}")
        held = self.host_bytes if machine.device_bytes else max(self.host_bytes, self.device_bytes)
        if held > machine.host_bytes:
            found.append(f"{held / 1e9:.1f} GB of main memory, of which the machine has {machine.host_bytes / 1e9:.1f}")
        return found


def countable(facts: ModelFacts) -> bool:
    """Can a step of the model be counted? Not of a small one, which is quicker to measure, nor of one that nobody outlined."""
    return facts.loader in OUTLINES


def forecast(settings: EditSettings, facts: ModelFacts, size: Size, num_frames: int, references: bool, machine: Machine) -> Forecast:
    """The forecast for a clip at the frame size of a `countable` model."""
    training, generation, geometry = settings.training, settings.generation, facts.geometry
    seen = _frames(num_frames, training.window, geometry)
    drawn = _frames(num_frames, generation.window, geometry)
    learned, made = (_counted(facts, _latent(count, size, geometry), machine.dtype, settings.lora) for count in (seen, drawn))
    experts, rate = len(facts.parts), REACHED * machine.rate
    steps = experts * (training.motion_steps + (training.appearance_steps if references else 0)) * training.batch_size
    windows = len(inference_windows(num_frames, generation.window or geometry.max_frames, generation.overlap, geometry.group))
    passes = windows * generation.steps * (1 if generation.guidance_scale == 1 else 2)
    place = Placement()
    return Forecast(
        train_bytes=_weights(learned, place) + SPREAD * _step(learned, place) + RESERVE,
        generate_bytes=_weights(made, place) + 4 * made.trained + SPREAD * made.forward_bytes + RESERVE,
        host_bytes=experts * (sum(learned.block_bytes) + learned.rest_bytes) + 1e9 * facts.encoders_gb,
        seconds_train=steps * learned.step / rate,
        seconds_generate=passes * made.forward / rate,
        windows=windows,
    )


def _weights(cost: StepCost, place: Placement) -> float:
    """Frozen weights on the device: what stays there, and two blocks' room for those that pass through."""
    blocks = sorted(cost.block_bytes)
    stay = sum(blocks[: len(blocks) - place.swapped])
    return cost.rest_bytes + stay + (2 * place.scale * blocks[-1] if place.swapped else 0)


def _step(cost: StepCost, place: Placement) -> float:
    parked = max(0, len(cost.block_bytes) - 2) * cost.border_bytes if place.parked else 0
    return cost.step_bytes - parked + ADAM * cost.trained


def _frames(num_frames: int, window: int, geometry: Geometry) -> int:
    return min(window or geometry.max_frames, whole_groups(num_frames, geometry.group))


def _latent(frames: int, size: Size, geometry: Geometry) -> tuple[int, int, int]:
    return (frames - 1) // geometry.group + 1, size.height // geometry.cell, size.width // geometry.cell


@lru_cache(maxsize=8)
def _counted(facts: ModelFacts, latent: tuple[int, int, int], dtype: torch.dtype, lora: LoraSettings) -> StepCost:
    expert, encoded = OUTLINES[facts.loader](facts, latent, dtype)
    add_lora(expert, lora, seed=0)
    noisy, time = encoded.target, torch.empty(1, device=encoded.condition.device)
    assert noisy is not None
    return count_step(expert.transformer, lambda: expert.predict_velocity(noisy, time, encoded))
