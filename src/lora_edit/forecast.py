"""What an edit with a large model will need of a machine, reckoned before any of its weights is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from lora_edit.conditioning.windows import inference_windows, whole_groups
from lora_edit.config import EditSettings
from lora_edit.devices import Machine
from lora_edit.models.catalog.facts import Geometry, ModelFacts
from lora_edit.models.cost import StepCost, count_step
from lora_edit.models.outline import OUTLINES, codec_bytes, outlined
from lora_edit.models.room import Placement
from lora_edit.models.storage import Storage
from lora_edit.models.streaming import block_lists
from lora_edit.training.held_out import passes as held_out_passes
from lora_edit.training.lora import add_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings
from lora_edit.types import Size

REACHED = 0.5
"""Share of a machine's matrix rate that a step is reckoned to reach."""

RESERVE = 0.7e9
"""What the device's own library holds, in bytes."""

SPREAD = 1.05
"""Allocators lose a few hundredths to gaps between tensors."""

ADAM = 16
"""Bytes for each trained number: itself, its gradient, and two moments, in float32."""

FEW = 2
"""Blocks of a kind that are counted; the rest costs as much each."""

LINK = 2e10
"""Bytes per second from page-locked main memory to a device (PCIe 4 with 16 lanes, less what is always lost)."""

STORED: dict[Storage, float] = {"full": 1.0, "int8": 0.51, "fp8": 0.51, "nf4": 0.29}
"""What stored weights with their scales take of bfloat16's room."""

TILED = 0.2
"""What decoding in tiles takes of decoding whole frames, at 832x480."""


@dataclass(frozen=True)
class Forecast:
    """Bytes on the device by stage, bytes of main memory, seconds by stage; `windows` are the passes over a long clip. `place` is where
    weights and states lie, of `blocks` blocks."""

    train_bytes: float
    generate_bytes: float
    host_bytes: float
    seconds_train: float
    seconds_generate: float
    windows: int
    codec_bytes: float
    place: Placement
    blocks: int

    @property
    def device_bytes(self) -> float:
        """The most that any stage needs."""
        return max(self.train_bytes, self.generate_bytes, self.codec_bytes)

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
    return outlined(facts)


def forecast(settings: EditSettings, facts: ModelFacts, size: Size, num_frames: int, references: bool, machine: Machine) -> Forecast:
    """The forecast for a clip at the frame size of a `countable` model, with as much on the machine's device as fits there.

    Where nothing does, that of the most sparing way that the settings allow.
    """
    training, geometry = settings.training, facts.geometry
    seen = _frames(num_frames, training.window, geometry)
    blocks = len(_counted(facts, _latent(seen, size, geometry), machine.dtype, settings.lora).block_bytes)
    found = None
    for place in _places(training, blocks):
        found = _forecast_at(place, settings, facts, size, num_frames, references, machine)
        if not found.faults(machine):
            break
    assert found is not None
    return found


def _places(training: TrainingSettings, blocks: int) -> Iterator[Placement]:
    """Ways to lay a model out that the settings allow, the quickest first."""
    swaps = range(blocks + 1) if training.blocks_to_swap == "auto" else [min(training.blocks_to_swap, blocks)]
    for swapped in swaps:
        yield Placement(swapped, training.base, training.offload_activations is True)
    if training.offload_activations == "auto":
        yield Placement(swaps[-1], training.base, True)


def _forecast_at(
    place: Placement, settings: EditSettings, facts: ModelFacts, size: Size, num_frames: int, references: bool, machine: Machine
) -> Forecast:
    training, generation, geometry = settings.training, settings.generation, facts.geometry
    seen = _frames(num_frames, training.window, geometry)
    drawn = _frames(num_frames, generation.window, geometry)
    learned, made = (_counted(facts, _latent(count, size, geometry), machine.dtype, settings.lora) for count in (seen, drawn))
    experts, rate = len(facts.parts), REACHED * machine.rate
    steps = experts * (training.motion_steps + (training.appearance_steps if references else 0))
    windows = len(inference_windows(num_frames, generation.window or geometry.max_frames, generation.overlap, geometry.group))
    passes = windows * generation.steps * (1 if generation.guidance_scale == 1 else 2)
    encode, decode = codec_bytes(facts, size)
    tiled = bool(machine.device_bytes) and decode + RESERVE > machine.device_bytes
    copied = _scale(place) * sum(learned.block_bytes) * place.swapped / max(1, len(learned.block_bytes)) / LINK
    return Forecast(
        train_bytes=_weights(learned, place) + SPREAD * _step(learned, place) + RESERVE,
        generate_bytes=_weights(made, place) + 4 * made.trained + SPREAD * made.forward_bytes + RESERVE,
        host_bytes=experts * (sum(learned.block_bytes) + learned.rest_bytes) + 1e9 * facts.encoders_gb,
        seconds_train=steps * training.batch_size * max(learned.step / rate, 2 * copied)
        + held_out_passes(training, steps) * max(learned.forward / rate, copied),
        seconds_generate=passes * max(made.forward / rate, copied),
        windows=windows,
        codec_bytes=max(encode, TILED * decode if tiled else decode) + RESERVE,
        place=replace(place, tiled=tiled),
        blocks=len(learned.block_bytes),
    )


def _scale(place: Placement) -> float:
    return STORED[place.base]


def _weights(cost: StepCost, place: Placement) -> float:
    """Frozen weights on the device: what stays there, and two blocks' room for those that pass through."""
    blocks = sorted(cost.block_bytes)
    stay = sum(blocks[: len(blocks) - place.swapped])
    return cost.rest_bytes + _scale(place) * (stay + (2 * blocks[-1] if place.swapped else 0))


def _step(cost: StepCost, place: Placement) -> float:
    parked = max(0, len(cost.block_bytes) - 2) * cost.border_bytes if place.parked else 0
    return cost.step_bytes - parked + ADAM * cost.trained


def _frames(num_frames: int, window: int, geometry: Geometry) -> int:
    return min(window or geometry.max_frames, whole_groups(num_frames, geometry.group))


def _latent(frames: int, size: Size, geometry: Geometry) -> tuple[int, int, int]:
    return (frames - 1) // geometry.group + 1, size.height // geometry.cell, size.width // geometry.cell


@lru_cache(maxsize=8)
def _counted(facts: ModelFacts, latent: tuple[int, int, int], dtype: torch.dtype, lora: LoraSettings) -> StepCost:
    """The cost with all blocks, from that with few of each kind: a further block costs what the one before did."""
    depths = block_lists(OUTLINES[facts.loader](facts, latent, dtype)[0].transformer)
    few = {name: min(FEW, depth) for name, depth in depths.items()}
    total = base = _counted_at(few, facts, latent, dtype, lora)
    block_bytes: list[int] = []
    for name, depth in depths.items():
        further = _counted_at({**few, name: few[name] + 1}, facts, latent, dtype, lora) if depth > few[name] else base
        total = total.plus(further, base, depth - few[name])
        block_bytes += [base.block_bytes[sum(list(few.values())[: list(few).index(name)])]] * depth
    return replace(total, block_bytes=tuple(block_bytes))


def _counted_at(
    depths: dict[str, int], facts: ModelFacts, latent: tuple[int, int, int], dtype: torch.dtype, lora: LoraSettings
) -> StepCost:
    expert, encoded = OUTLINES[facts.loader](facts, latent, dtype)
    for name, depth in depths.items():
        setattr(expert.transformer, name, getattr(expert.transformer, name)[:depth])
    add_lora(expert, lora, seed=0)
    noisy, time = encoded.target, torch.empty(1, device=encoded.condition.device)
    assert noisy is not None
    return count_step(expert.transformer, lambda: expert.predict_velocity(noisy, time, encoded))
