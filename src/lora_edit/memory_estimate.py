"""Estimates of the memory and time of an edit with a large model, without reading its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from lora_edit.conditioning.windows import plan_inference_windows, round_up_frame_count
from lora_edit.config import EditSettings
from lora_edit.devices import Machine
from lora_edit.models.record import Geometry, ModelRecord
from lora_edit.models.runtime.autoencoder_memory import count_codec_bytes
from lora_edit.models.runtime.block_swap import count_blocks_by_list
from lora_edit.models.runtime.meta_model import build_meta_model, has_meta_model
from lora_edit.models.runtime.offload_plan import OffloadPlan
from lora_edit.models.runtime.pinned_memory import compute_pinned_bytes
from lora_edit.models.runtime.quantization import WeightFormat
from lora_edit.models.runtime.step_cost import StepCost, count_step_cost
from lora_edit.training.held_out import count_held_out_passes as held_out_passes
from lora_edit.training.lora import add_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings
from lora_edit.types import Size

MODEL_FLOPS_UTILIZATION = 0.5
"""Assumed share of the matmul rate of the machine that a step reaches."""

DEVICE_RESERVE_BYTES = 0.7e9
"""Bytes that the library of the device occupies."""

ALLOCATOR_OVERHEAD = 1.05
"""Factor for the gaps of the allocator between tensors."""

ADAM_BYTES_PER_PARAMETER = 16
"""Bytes per trainable parameter: the parameter, its gradient and two moments, in float32."""

COUNTED_BLOCKS = 2
"""Blocks of each type that are counted; each further block costs the same."""

HOST_TO_DEVICE_BANDWIDTH = 2e10
"""Bytes per second from page-locked main memory to a device: PCIe 4 with 16 lanes, minus overhead."""

WEIGHT_FORMAT_SIZE_RATIO: dict[WeightFormat, float] = {"full": 1.0, "int8": 0.51, "fp8": 0.51, "nf4": 0.29}
"""Size of stored weights with their scales, relative to bfloat16."""

ENCODER_LAYER_RATIO = 0.2
"""Largest layer of a text encoder, its table of tokens, relative to the encoder: what the device holds of one that does not fit whole."""


@dataclass(frozen=True)
class ResourceEstimate:
    """Bytes on the device and seconds by stage, and bytes of main memory.

    `autoencoder_bytes` are those of encoding and decoding, `encoder_bytes` those of the largest other encoder.
    `windows` is the number of windows of a long clip; `offload_plan` divides the `blocks` transformer blocks between device and main
    memory.
    """

    train_bytes: float
    generate_bytes: float
    host_bytes: float
    seconds_train: float
    seconds_generate: float
    windows: int
    autoencoder_bytes: float
    encoder_bytes: float
    offload_plan: OffloadPlan
    blocks: int

    @property
    def device_bytes(self) -> float:
        """The maximum of all stages."""
        return max(self.train_bytes, self.generate_bytes, self.autoencoder_bytes, self.encoder_bytes)

    def list_shortfalls(self, machine: Machine) -> list[str]:
        """Describe what does not fit the machine; empty if everything fits."""
        shortfalls = []
        if machine.device_bytes and self.device_bytes > machine.device_bytes:
            shortfalls.append(f"{self.device_bytes / 1e9:.1f} GB on the device, which has {machine.device_bytes / 1e9:.1f} free")
        host_bytes = self.host_bytes if machine.device_bytes else max(self.host_bytes, self.device_bytes)
        if host_bytes > machine.host_bytes:
            shortfalls.append(f"{host_bytes / 1e9:.1f} GB of main memory, of which {machine.host_bytes / 1e9:.1f} are free")
        return shortfalls


def supports_estimate(record: ModelRecord) -> bool:
    """Whether the model has a meta model to count the cost of a step. The small model has none, as measuring it is faster."""
    return has_meta_model(record)


def estimate_resources(
    settings: EditSettings,
    record: ModelRecord,
    size: Size,
    num_frames: int,
    has_references: bool,
    machine: Machine,
    stored_format: WeightFormat = "full",
) -> ResourceEstimate:
    """Estimate an edit of `num_frames` frames at the canvas size `size`, for a model with `supports_estimate`.

    `stored_format` is `fp8` for a checkpoint in 8 bits, which stay in memory.
    The estimate has as much on the device of the machine as fits. If nothing fits, it has the smallest memory use that the settings
    allow.
    """
    training, geometry = settings.training, record.geometry
    window = _compute_window_length(num_frames, training.window, geometry)
    blocks = len(_count_step_cost(record, _compute_latent_shape(window, size, geometry), machine.dtype, settings.lora).block_bytes)
    estimate = None
    for offload_plan in _list_offload_plans(training, blocks):
        estimate = _estimate_with_plan(offload_plan, settings, record, size, num_frames, has_references, machine, stored_format)
        if not estimate.list_shortfalls(machine):
            break
    assert estimate is not None
    return estimate


def _list_offload_plans(training: TrainingSettings, blocks: int) -> Iterator[OffloadPlan]:
    """Yield the offload plans that the settings allow, the fastest first."""
    swap_counts = range(blocks + 1) if training.blocks_to_swap == "auto" else [min(training.blocks_to_swap, blocks)]
    for num_swapped in swap_counts:
        yield OffloadPlan(num_swapped, training.base, training.offload_activations is True)
    if training.offload_activations == "auto":
        yield OffloadPlan(swap_counts[-1], training.base, True)


def _estimate_with_plan(
    offload_plan: OffloadPlan,
    settings: EditSettings,
    record: ModelRecord,
    size: Size,
    num_frames: int,
    has_references: bool,
    machine: Machine,
    stored_format: WeightFormat,
) -> ResourceEstimate:
    placed = offload_plan if offload_plan.weight_format != "full" else replace(offload_plan, weight_format=stored_format)
    training, generation, geometry = settings.training, settings.generation, record.geometry
    training_window = _compute_window_length(num_frames, training.window, geometry)
    generation_window = _compute_window_length(num_frames, generation.window, geometry)
    training_cost, generation_cost = (
        _count_step_cost(record, _compute_latent_shape(window, size, geometry), machine.dtype, settings.lora)
        for window in (training_window, generation_window)
    )
    num_experts, rate = len(record.transformer_parts), MODEL_FLOPS_UTILIZATION * machine.flops_per_second
    steps = num_experts * (training.motion_steps + (training.appearance_steps if has_references else 0))
    windows = len(
        plan_inference_windows(num_frames, generation.window or geometry.max_frames, generation.overlap, geometry.temporal_compression)
    )
    passes = windows * generation.steps * (1 if generation.guidance_scale == 1 else 2)
    encoding, decoding = (
        count_codec_bytes(record, size, window) for window in (max(training_window, generation_window), generation_window)
    )
    tile_encoding, tile_decoding = (
        _exceeds_device(ALLOCATOR_OVERHEAD * num_bytes, machine) for num_bytes in (encoding.encode, decoding.decode)
    )
    codec_bytes = max(
        encoding.tiled_encode if tile_encoding else encoding.encode, decoding.tiled_decode if tile_decoding else decoding.decode
    )
    copy_seconds = (
        _get_size_ratio(placed)
        * sum(training_cost.block_bytes)
        * offload_plan.blocks_to_swap
        / max(1, len(training_cost.block_bytes))
        / HOST_TO_DEVICE_BANDWIDTH
    )
    return ResourceEstimate(
        train_bytes=_compute_weight_bytes(training_cost, placed)
        + ALLOCATOR_OVERHEAD * _compute_step_bytes(training_cost, offload_plan)
        + DEVICE_RESERVE_BYTES,
        generate_bytes=_compute_weight_bytes(generation_cost, placed)
        + 4 * generation_cost.num_trainable
        + ALLOCATOR_OVERHEAD * generation_cost.forward_peak_bytes
        + DEVICE_RESERVE_BYTES,
        host_bytes=_compute_host_bytes(training_cost, placed, num_experts, record, machine, stored_format),
        seconds_train=steps * training.batch_size * max(training_cost.step_flops / rate, 2 * copy_seconds)
        + held_out_passes(training, steps) * max(training_cost.forward_flops / rate, copy_seconds),
        seconds_generate=passes * max(generation_cost.forward_flops / rate, copy_seconds),
        windows=windows,
        autoencoder_bytes=ALLOCATOR_OVERHEAD * codec_bytes + DEVICE_RESERVE_BYTES,
        encoder_bytes=_compute_encoder_bytes(record, machine) + DEVICE_RESERVE_BYTES,
        offload_plan=replace(offload_plan, tile_encoding=tile_encoding, tile_decoding=tile_decoding),
        blocks=len(training_cost.block_bytes),
    )


def _get_size_ratio(offload_plan: OffloadPlan) -> float:
    return WEIGHT_FORMAT_SIZE_RATIO[offload_plan.weight_format]


def _compute_weight_bytes(cost: StepCost, offload_plan: OffloadPlan) -> float:
    """Compute the bytes of frozen weights on the device: those that stay there, and buffers of two blocks for swapped ones."""
    block_bytes = sorted(cost.block_bytes)
    resident_bytes = sum(block_bytes[: len(block_bytes) - offload_plan.blocks_to_swap])
    return cost.rest_bytes + _get_size_ratio(offload_plan) * (resident_bytes + (2 * block_bytes[-1] if offload_plan.blocks_to_swap else 0))


def _compute_host_bytes(
    cost: StepCost, offload_plan: OffloadPlan, num_experts: int, record: ModelRecord, machine: Machine, stored_format: WeightFormat
) -> float:
    """Compute the peak of main memory: while files are read, while the encoders are in memory too, or while a transformer trains.

    Swapped blocks and hidden states are in page-locked memory, with torch's rounding. On the device are all other weights of one expert.
    """
    block_bytes, ratio = sorted(cost.block_bytes), _get_size_ratio(offload_plan)
    num_resident = len(block_bytes) - offload_plan.blocks_to_swap
    swapped = [round(ratio * each) for each in block_bytes[num_resident:]]
    swapped_bytes = compute_pinned_bytes(swapped) if machine.device_bytes else sum(swapped)
    resident_bytes = cost.rest_bytes + ratio * sum(block_bytes[:num_resident])
    state_bytes = compute_pinned_bytes([cost.hidden_state_bytes] * len(block_bytes)) if offload_plan.offload_activations else 0
    reading = num_experts * (WEIGHT_FORMAT_SIZE_RATIO[stored_format] * sum(block_bytes) + cost.rest_bytes)
    encoding = num_experts * (swapped_bytes + resident_bytes) + 1e9 * record.encoders_gb
    training = num_experts * swapped_bytes + (num_experts - 1) * resident_bytes + state_bytes
    return max(reading, encoding, training)


def _compute_encoder_bytes(record: ModelRecord, machine: Machine) -> float:
    """Compute the device memory of the largest encoder; one that does not fit is moved layer by layer."""
    num_bytes = 1e9 * record.largest_encoder_gb
    return ENCODER_LAYER_RATIO * num_bytes if machine.device_bytes and num_bytes > 0.9 * machine.device_bytes else num_bytes


def _exceeds_device(num_bytes: float, machine: Machine) -> bool:
    return bool(machine.device_bytes) and num_bytes + DEVICE_RESERVE_BYTES > machine.device_bytes


def _compute_step_bytes(cost: StepCost, offload_plan: OffloadPlan) -> float:
    offloaded_bytes = max(0, len(cost.block_bytes) - 2) * cost.hidden_state_bytes if offload_plan.offload_activations else 0
    return cost.step_peak_bytes - offloaded_bytes + ADAM_BYTES_PER_PARAMETER * cost.num_trainable


def _compute_window_length(num_frames: int, window: int, geometry: Geometry) -> int:
    return min(window or geometry.max_frames, round_up_frame_count(num_frames, geometry.temporal_compression))


def _compute_latent_shape(num_frames: int, size: Size, geometry: Geometry) -> tuple[int, int, int]:
    return (
        (num_frames - 1) // geometry.temporal_compression + 1,
        size.height // geometry.spatial_compression,
        size.width // geometry.spatial_compression,
    )


@lru_cache(maxsize=8)
def _count_step_cost(record: ModelRecord, latent_shape: tuple[int, int, int], dtype: torch.dtype, lora: LoraSettings) -> StepCost:
    """Count the cost of a step from that with few blocks of each type, as each further block costs the same."""
    depths = count_blocks_by_list(build_meta_model(record, latent_shape, dtype)[0].transformer)
    small_depths = {name: min(COUNTED_BLOCKS, depth) for name, depth in depths.items()}
    total = base = _count_step_cost_at_depths(small_depths, record, latent_shape, dtype, lora)
    block_bytes: list[int] = []
    for name, depth in depths.items():
        small_depth = small_depths[name]
        if depth > small_depth:
            deeper = _count_step_cost_at_depths({**small_depths, name: small_depth + 1}, record, latent_shape, dtype, lora)
            total = total.add_difference(deeper, base, depth - small_depth)
        first_block = sum(list(small_depths.values())[: list(small_depths).index(name)])
        block_bytes += [base.block_bytes[first_block]] * depth
    return replace(total, block_bytes=tuple(block_bytes))


def _count_step_cost_at_depths(
    depths: dict[str, int], record: ModelRecord, latent_shape: tuple[int, int, int], dtype: torch.dtype, lora: LoraSettings
) -> StepCost:
    expert, encoded = build_meta_model(record, latent_shape, dtype)
    for name, depth in depths.items():
        setattr(expert.transformer, name, getattr(expert.transformer, name)[:depth])
    add_lora(expert, lora, seed=0)
    latents, time = encoded.target, torch.empty(1, device=encoded.condition.device)
    assert latents is not None
    return count_step_cost(expert.transformer, lambda: expert.predict_velocity(latents, time, encoded))
