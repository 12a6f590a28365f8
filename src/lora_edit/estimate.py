"""How long an edit will take here and how much memory it needs: reckoned for large models, measured on one real step for small ones."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from lora_edit.canvas import build_canvas
from lora_edit.conditioning.windows import plan_inference_windows, plan_training_windows
from lora_edit.config import EditSettings, apply_preset
from lora_edit.devices import get_peak_host_memory_bytes, get_peak_memory_bytes, measure_machine, pick_compute_dtype, pick_device
from lora_edit.errors import ModelError
from lora_edit.inputs import Clip
from lora_edit.memory_estimate import ResourceEstimate, estimate_resources, supports_estimate
from lora_edit.models.checkpoints.locate import locate_model
from lora_edit.models.family import Family, load_family
from lora_edit.models.runtime.offload_plan import OffloadPlan, apply_offload_plan
from lora_edit.samples import PreparedClip, encode_motion_samples, prepare_clip
from lora_edit.seeds import create_generator
from lora_edit.training.held_out import count_held_out_passes as held_out_passes
from lora_edit.training.lora import add_lora, remove_lora
from lora_edit.training.loss import compute_velocity_loss
from lora_edit.types import Size


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes for one edit on this machine: `memory_bytes` where it computes, `host_bytes` of main memory beside a device (0
    where the two are one). `canvas` is the model's frame size, `windows` the passes over a long clip. `place` is where a large model's
    `blocks` blocks lie."""

    seconds_train: float
    seconds_generate: float
    memory_bytes: int
    canvas_size: Size
    windows: int
    host_bytes: int = 0
    offload_plan: OffloadPlan | None = None
    blocks: int = 0

    def describe_offloading(self) -> str:
        """What waits in main memory so that a large model fits, as the end of a sentence; empty where all of it is on the device."""
        if self.offload_plan is None or not self.offload_plan.blocks_to_swap:
            return ""
        states = ", and the states between them" if self.offload_plan.offload_activations else ""
        return f"; {self.offload_plan.blocks_to_swap} of its {self.blocks} blocks wait in main memory{states}"


def open_family(settings: EditSettings, clip: Clip, model: str | None = None) -> Family:
    """Load the model of an edit, or what stands in for it, on the best device here, as it fits there. Raises `ModelError`."""
    found, device, training = estimate_large_model(settings, clip), pick_device(), settings.training
    family = load_family(model or settings.model, device, pick_compute_dtype(device))
    # What is only measured, not reckoned, is small: nothing is moved on its own account.
    swapped = 0 if training.blocks_to_swap == "auto" else training.blocks_to_swap
    asked = OffloadPlan(swapped, training.base, training.offload_activations is True)
    apply_offload_plan(family, asked if found is None or found.offload_plan is None else found.offload_plan)
    return family


def check_memory(settings: EditSettings, clip: Clip) -> None:
    """Raise `ModelError` for a large model that this machine cannot hold."""
    estimate_large_model(settings, clip)


def estimate_edit(settings: EditSettings, clip: Clip) -> Estimate:
    """Time and memory for this edit on this machine; a large model is not loaded for it. Raises `ModelError` when it will not fit."""
    reckoned = estimate_large_model(settings, clip)
    if reckoned is not None:
        return reckoned
    family = open_family(settings, clip)
    # A step costs the same whatever is predicted, and predicting takes seconds.
    cheap = settings.method.model_copy(update={"hint": "none"})
    return measure_steps(family, prepare_clip(family, clip, settings.model_copy(update={"method": cheap})), settings)


def estimate_large_model(settings: EditSettings, clip: Clip) -> Estimate | None:
    """The estimate of a large model, without its weights; None for others. Raises `ModelError` when this machine cannot hold it."""
    facts = locate_model(settings.model)[0]
    if not supports_estimate(facts):
        return None
    size = build_canvas(clip, facts.geometry, settings.compositing, settings.masks.snap).size
    machine = measure_machine()

    def on_this_machine(how: EditSettings) -> ResourceEstimate:
        return estimate_resources(how, facts, size, clip.video.num_frames, bool(clip.references), machine)

    found = on_this_machine(settings)
    if faults := found.list_shortfalls(machine):
        others = [name for name in ("fast", "low-vram") if not on_this_machine(apply_preset(settings, name)).list_shortfalls(machine)]
        instead = f"give --preset {others[0]}" if others else "choose a smaller model (`lora-edit models`) or a larger machine"
        raise ModelError(f"{settings.model} does not fit here: it takes {' and '.join(faults)}; {instead}")
    host = round(found.host_bytes) if machine.device_bytes else 0
    return Estimate(
        found.seconds_train, found.seconds_generate, round(found.device_bytes), size, found.windows, host, found.offload_plan, found.blocks
    )


def measure_steps(family: Family, prepared_clip: PreparedClip, settings: EditSettings) -> Estimate:
    """Time one training step and one denoising step at the edit's own size (the second of each: the first warms up)."""
    one = settings.model_copy(update={"training": settings.training.model_copy(update={"recolour": 0.0})})
    sample, canvas = encode_motion_samples(family, prepared_clip, one)[0][0], prepared_clip.canvas
    expert = family.experts()[0]
    parameters = add_lora(expert, settings.lora, settings.seed)
    generator = create_generator(settings.seed, "estimate")
    seconds: list[float] = []
    for _ in range(2):
        started = time.perf_counter()
        compute_velocity_loss(expert, sample, settings.training, generator).backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - started)
    with torch.no_grad():
        started = time.perf_counter()
        compute_velocity_loss(expert, sample, settings.training, generator)
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
        memory_bytes=get_peak_memory_bytes(canvas.source.device) or host,
        canvas_size=canvas.size,
        windows=windows,
    )
