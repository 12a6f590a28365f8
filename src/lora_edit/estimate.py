"""Time and memory of an edit on this machine: estimated from the record of large models, measured on real steps of small ones."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from lora_edit.conditioning.windows import plan_inference_windows, plan_training_windows
from lora_edit.config import EditSettings, apply_preset
from lora_edit.devices import (
    get_peak_host_memory_bytes,
    get_peak_memory_bytes,
    measure_machine,
    pick_compute_dtype,
    pick_device,
    reset_peak_memory,
    synchronize_device,
)
from lora_edit.errors import ModelError
from lora_edit.inputs import Clip
from lora_edit.memory_estimate import ResourceEstimate, estimate_resources, supports_estimate
from lora_edit.models.checkpoints.checks import holds_8_bit_weights
from lora_edit.models.family import Family, load_record
from lora_edit.models.runtime.offload_plan import OffloadPlan, apply_offload_plan
from lora_edit.models.runtime.quantization import WeightFormat
from lora_edit.prepared_clip import PreparedClip, prepare_clip
from lora_edit.resolved import ResolvedEdit
from lora_edit.seeds import create_generator
from lora_edit.training.dataset import encode_motion_samples
from lora_edit.training.held_out import count_held_out_passes as held_out_passes
from lora_edit.training.lora import add_lora, remove_lora
from lora_edit.training.loss import compute_velocity_loss
from lora_edit.types import Size


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of one edit on this machine.

    `memory_bytes` are on the computing device, `host_bytes` in main memory beside it (0 where the two are one). `canvas_size` is the
    model's frame size, `windows` the number of windows of a long clip, `offload_plan` the placement of a large model's `blocks` blocks.
    """

    seconds_train: float
    seconds_generate: float
    memory_bytes: int
    canvas_size: Size
    windows: int
    host_bytes: int = 0
    offload_plan: OffloadPlan | None = None
    blocks: int = 0

    def describe_offloading(self) -> str:
        """Describe what is kept in main memory so that a large model fits, as the end of a sentence; empty when nothing is."""
        if self.offload_plan is None or not self.offload_plan.blocks_to_swap:
            return ""
        states = ", and the states between them" if self.offload_plan.offload_activations else ""
        return f"; {self.offload_plan.blocks_to_swap} of its {self.blocks} blocks wait in main memory{states}"


def open_family(edit: ResolvedEdit) -> Family:
    """Load the model of an edit on the best device of this machine, offloaded as far as needed to fit. Raises `ModelError`."""
    estimate, device, training = estimate_large_model(edit), pick_device(), edit.settings.training
    family = load_record(edit.loaded_record, edit.checkpoint, device, pick_compute_dtype(device))
    # Models without an estimate are small: only what the settings ask for is offloaded.
    num_swapped = 0 if training.blocks_to_swap == "auto" else training.blocks_to_swap
    plan = OffloadPlan(num_swapped, training.base, training.offload_activations is True)
    apply_offload_plan(family, plan if estimate is None or estimate.offload_plan is None else estimate.offload_plan)
    return family


def check_memory(edit: ResolvedEdit) -> None:
    """Raise `ModelError` for a large model that does not fit this machine."""
    estimate_large_model(edit)


def estimate_edit(edit: ResolvedEdit, clip: Clip) -> Estimate:
    """Estimate time and memory of an edit on this machine. Large models are not loaded for it; small ones are measured.

    Raises `ModelError` when the model does not fit.
    """
    estimate = estimate_large_model(edit)
    if estimate is not None:
        return estimate
    family, settings = open_family(edit), edit.settings
    # A step costs the same with any hint, and predicting one takes seconds.
    method = settings.method.model_copy(update={"hint": "none"})
    return measure_steps(family, prepare_clip(family, clip, settings.model_copy(update={"method": method})), settings)


def estimate_large_model(edit: ResolvedEdit) -> Estimate | None:
    """Estimate a large model without its weights; returns None for models that are measured instead.

    Raises `ModelError` when the model does not fit this machine.
    """
    settings, record = edit.settings, edit.record
    if not supports_estimate(record):
        return None
    machine = measure_machine()
    stored_format: WeightFormat = "fp8" if holds_8_bit_weights(edit.loaded_record, edit.checkpoint) else "full"

    def estimate(settings: EditSettings) -> ResourceEstimate:
        return estimate_resources(settings, record, edit.canvas_size, edit.num_frames, edit.has_references, machine, stored_format)

    resources = estimate(settings)
    if shortfalls := resources.list_shortfalls(machine):
        others = [name for name in ("fast", "low-vram") if not estimate(apply_preset(settings, name)).list_shortfalls(machine)]
        instead = f"give --preset {others[0]}" if others else "choose a smaller model (`lora-edit models`) or a larger machine"
        raise ModelError(f"{settings.model} does not fit here: it takes {' and '.join(shortfalls)}; {instead}")
    return Estimate(
        resources.seconds_train,
        resources.seconds_generate,
        round(resources.device_bytes),
        edit.canvas_size,
        resources.windows,
        round(resources.host_bytes) if machine.device_bytes else 0,
        resources.offload_plan,
        resources.blocks,
    )


def measure_steps(family: Family, prepared_clip: PreparedClip, settings: EditSettings) -> Estimate:
    """Time a training step and a denoising step at the edit's own size (the second of each; the first warms up)."""
    plain = settings.model_copy(update={"training": settings.training.model_copy(update={"recolour": 0.0})})
    sample, canvas = encode_motion_samples(family, prepared_clip, plain)[0][0], prepared_clip.canvas
    expert, device = family.experts()[0], family.device_manager.device
    reset_peak_memory(device)
    parameters = add_lora(expert, settings.lora, settings.seed)
    generator = create_generator(settings.seed, "estimate")
    seconds: list[float] = []
    for _ in range(2):
        started = time.perf_counter()
        compute_velocity_loss(expert, sample, settings.training, generator).backward()  # type: ignore[no-untyped-call]
        synchronize_device(device)
        seconds.append(time.perf_counter() - started)
    with torch.no_grad():
        started = time.perf_counter()
        compute_velocity_loss(expert, sample, settings.training, generator)
        synchronize_device(device)
        forward = time.perf_counter() - started
    assert parameters
    remove_lora(expert)
    training, generation, geometry = settings.training, settings.generation, family.geometry
    steps = len(family.experts()) * (training.motion_steps + (training.appearance_steps if canvas.references else 0))
    count = canvas.source.shape[1]
    windows = len(
        plan_inference_windows(count, generation.window or geometry.max_frames, generation.overlap, geometry.temporal_compression)
    )
    passes = 1 if generation.guidance_scale == 1 else 2
    variants = len(plan_training_windows(count, training.window or geometry.max_frames, geometry.temporal_compression))
    host = get_peak_host_memory_bytes()
    return Estimate(
        seconds_train=steps * training.batch_size * seconds[-1] + held_out_passes(training, steps) * forward + 0.1 * variants,
        seconds_generate=windows * generation.steps * passes * forward,
        memory_bytes=get_peak_memory_bytes(device) or host,
        canvas_size=canvas.size,
        windows=windows,
    )
