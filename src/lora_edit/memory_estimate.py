"""What an edit with a large model will need of a machine, reckoned before any of its weights is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from lora_edit.conditioning.windows import plan_inference_windows, round_up_frame_count
from lora_edit.config import EditSettings
from lora_edit.devices import Machine
from lora_edit.models.record import Geometry, ModelRecord
from lora_edit.models.runtime.block_swap import count_blocks_by_list
from lora_edit.models.runtime.meta_model import build_meta_model, count_codec_bytes, has_meta_model
from lora_edit.models.runtime.offload_plan import OffloadPlan
from lora_edit.models.runtime.quantization import WeightFormat
from lora_edit.models.runtime.step_cost import StepCost, count_step_cost
from lora_edit.training.held_out import count_held_out_passes as held_out_passes
from lora_edit.training.lora import add_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings
from lora_edit.types import Size

MODEL_FLOPS_UTILIZATION = 0.5
"""Share of a machine's matrix rate that a step is reckoned to reach."""

DEVICE_RESERVE_BYTES = 0.7e9
"""What the device's own library holds, in bytes."""

ALLOCATOR_OVERHEAD = 1.05
"""Allocators lose a few hundredths to gaps between tensors."""

ADAM_BYTES_PER_PARAMETER = 16
"""Bytes for each trained number: itself, its gradient, and two moments, in float32."""

COUNTED_BLOCKS = 2
"""Blocks of a kind that are counted; the rest costs as much each."""

HOST_TO_DEVICE_BANDWIDTH = 2e10
"""Bytes per second from page-locked main memory to a device (PCIe 4 with 16 lanes, less what is always lost)."""

WEIGHT_FORMAT_SIZE_RATIO: dict[WeightFormat, float] = {"full": 1.0, "int8": 0.51, "fp8": 0.51, "nf4": 0.29}
"""What stored weights with their scales take of bfloat16's room."""

TILED_DECODE_RATIO = 0.2
"""What decoding in tiles takes of decoding whole frames, at 832x480."""


@dataclass(frozen=True)
class ResourceEstimate:
    """Bytes on the device by stage, bytes of main memory, seconds by stage; `windows` are the passes over a long clip. `place` is where
    weights and states lie, of `blocks` blocks."""

    train_bytes: float
    generate_bytes: float
    host_bytes: float
    seconds_train: float
    seconds_generate: float
    windows: int
    autoencoder_bytes: float
    offload_plan: OffloadPlan
    blocks: int

    @property
    def device_bytes(self) -> float:
        """The most that any stage needs."""
        return max(self.train_bytes, self.generate_bytes, self.autoencoder_bytes)

    def list_shortfalls(self, machine: Machine) -> list[str]:
        """What does not fit the machine, in words; empty when all does."""
        found = []
        if machine.device_bytes and self.device_bytes > machine.device_bytes:
            found.append(f"{self.device_bytes / 1e9:.1f} GB on the device, which has {machine.device_bytes / 1e9:.1f}")
        held = self.host_bytes if machine.device_bytes else max(self.host_bytes, self.device_bytes)
        if held > machine.host_bytes:
            found.append(f"{held / 1e9:.1f} GB of main memory, of which the machine has {machine.host_bytes / 1e9:.1f}")
        return found


def supports_estimate(facts: ModelRecord) -> bool:
    """Can a step of the model be counted? Not of a small one, which is quicker to measure, nor of one that nobody outlined."""
    return has_meta_model(facts)


def estimate_resources(
    settings: EditSettings, facts: ModelRecord, size: Size, num_frames: int, has_references: bool, machine: Machine
) -> ResourceEstimate:
    """The forecast for a clip at the frame size of a `countable` model, with as much on the machine's device as fits there.

    Where nothing does, that of the most sparing way that the settings allow.
    """
    training, geometry = settings.training, facts.geometry
    seen = _compute_window_length(num_frames, training.window, geometry)
    blocks = len(_count_step_cost(facts, _compute_latent_shape(seen, size, geometry), machine.dtype, settings.lora).block_bytes)
    found = None
    for place in _list_offload_plans(training, blocks):
        found = _estimate_with_plan(place, settings, facts, size, num_frames, has_references, machine)
        if not found.list_shortfalls(machine):
            break
    assert found is not None
    return found


def _list_offload_plans(training: TrainingSettings, blocks: int) -> Iterator[OffloadPlan]:
    """Ways to lay a model out that the settings allow, the quickest first."""
    swaps = range(blocks + 1) if training.blocks_to_swap == "auto" else [min(training.blocks_to_swap, blocks)]
    for swapped in swaps:
        yield OffloadPlan(swapped, training.base, training.offload_activations is True)
    if training.offload_activations == "auto":
        yield OffloadPlan(swaps[-1], training.base, True)


def _estimate_with_plan(
    offload_plan: OffloadPlan,
    settings: EditSettings,
    facts: ModelRecord,
    size: Size,
    num_frames: int,
    has_references: bool,
    machine: Machine,
) -> ResourceEstimate:
    training, generation, geometry = settings.training, settings.generation, facts.geometry
    seen = _compute_window_length(num_frames, training.window, geometry)
    drawn = _compute_window_length(num_frames, generation.window, geometry)
    learned, made = (
        _count_step_cost(facts, _compute_latent_shape(count, size, geometry), machine.dtype, settings.lora) for count in (seen, drawn)
    )
    experts, rate = len(facts.transformer_parts), MODEL_FLOPS_UTILIZATION * machine.flops_per_second
    steps = experts * (training.motion_steps + (training.appearance_steps if has_references else 0))
    windows = len(
        plan_inference_windows(num_frames, generation.window or geometry.max_frames, generation.overlap, geometry.temporal_compression)
    )
    passes = windows * generation.steps * (1 if generation.guidance_scale == 1 else 2)
    encode, decode = count_codec_bytes(facts, size)
    tiled = bool(machine.device_bytes) and decode + DEVICE_RESERVE_BYTES > machine.device_bytes
    copied = (
        _get_size_ratio(offload_plan)
        * sum(learned.block_bytes)
        * offload_plan.blocks_to_swap
        / max(1, len(learned.block_bytes))
        / HOST_TO_DEVICE_BANDWIDTH
    )
    return ResourceEstimate(
        train_bytes=_compute_weight_bytes(learned, offload_plan)
        + ALLOCATOR_OVERHEAD * _compute_step_bytes(learned, offload_plan)
        + DEVICE_RESERVE_BYTES,
        generate_bytes=_compute_weight_bytes(made, offload_plan)
        + 4 * made.num_trainable
        + ALLOCATOR_OVERHEAD * made.forward_peak_bytes
        + DEVICE_RESERVE_BYTES,
        host_bytes=experts * (sum(learned.block_bytes) + learned.rest_bytes) + 1e9 * facts.encoders_gb,
        seconds_train=steps * training.batch_size * max(learned.step_flops / rate, 2 * copied)
        + held_out_passes(training, steps) * max(learned.forward_flops / rate, copied),
        seconds_generate=passes * max(made.forward_flops / rate, copied),
        windows=windows,
        autoencoder_bytes=max(encode, TILED_DECODE_RATIO * decode if tiled else decode) + DEVICE_RESERVE_BYTES,
        offload_plan=replace(offload_plan, tile_decoding=tiled),
        blocks=len(learned.block_bytes),
    )


def _get_size_ratio(offload_plan: OffloadPlan) -> float:
    return WEIGHT_FORMAT_SIZE_RATIO[offload_plan.weight_format]


def _compute_weight_bytes(cost: StepCost, offload_plan: OffloadPlan) -> float:
    """Frozen weights on the device: what stays there, and two blocks' room for those that pass through."""
    blocks = sorted(cost.block_bytes)
    stay = sum(blocks[: len(blocks) - offload_plan.blocks_to_swap])
    return cost.rest_bytes + _get_size_ratio(offload_plan) * (stay + (2 * blocks[-1] if offload_plan.blocks_to_swap else 0))


def _compute_step_bytes(cost: StepCost, offload_plan: OffloadPlan) -> float:
    parked = max(0, len(cost.block_bytes) - 2) * cost.hidden_state_bytes if offload_plan.offload_activations else 0
    return cost.step_peak_bytes - parked + ADAM_BYTES_PER_PARAMETER * cost.num_trainable


def _compute_window_length(num_frames: int, window: int, geometry: Geometry) -> int:
    return min(window or geometry.max_frames, round_up_frame_count(num_frames, geometry.temporal_compression))


def _compute_latent_shape(num_frames: int, size: Size, geometry: Geometry) -> tuple[int, int, int]:
    return (
        (num_frames - 1) // geometry.temporal_compression + 1,
        size.height // geometry.spatial_compression,
        size.width // geometry.spatial_compression,
    )


@lru_cache(maxsize=8)
def _count_step_cost(facts: ModelRecord, latent: tuple[int, int, int], dtype: torch.dtype, lora: LoraSettings) -> StepCost:
    """The cost with all blocks, from that with few of each kind: a further block costs what the one before did."""
    depths = count_blocks_by_list(build_meta_model(facts, latent, dtype)[0].transformer)
    few = {name: min(COUNTED_BLOCKS, depth) for name, depth in depths.items()}
    total = base = _count_step_cost_at_depths(few, facts, latent, dtype, lora)
    block_bytes: list[int] = []
    for name, depth in depths.items():
        further = _count_step_cost_at_depths({**few, name: few[name] + 1}, facts, latent, dtype, lora) if depth > few[name] else base
        total = total.add_difference(further, base, depth - few[name])
        block_bytes += [base.block_bytes[sum(list(few.values())[: list(few).index(name)])]] * depth
    return replace(total, block_bytes=tuple(block_bytes))


def _count_step_cost_at_depths(
    depths: dict[str, int], facts: ModelRecord, latent: tuple[int, int, int], dtype: torch.dtype, lora: LoraSettings
) -> StepCost:
    expert, encoded = build_meta_model(facts, latent, dtype)
    for name, depth in depths.items():
        setattr(expert.transformer, name, getattr(expert.transformer, name)[:depth])
    add_lora(expert, lora, seed=0)
    noisy, time = encoded.target, torch.empty(1, device=encoded.condition.device)
    assert noisy is not None
    return count_step_cost(expert.transformer, lambda: expert.predict_velocity(noisy, time, encoded))
