"""How long an edit will take here and how much memory it needs: measured on one real step, not guessed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from lora_edit.canvas import Canvas
from lora_edit.conditioning.windows import inference_windows, training_windows
from lora_edit.config import EditSettings
from lora_edit.devices import host_memory_bytes, peak_memory_bytes
from lora_edit.models.family import Family
from lora_edit.samples import motion_samples
from lora_edit.seeds import named_generator
from lora_edit.training.lora import add_lora, remove_lora
from lora_edit.training.loss import velocity_loss
from lora_edit.types import Size


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes for one edit on this machine; `canvas` is the model's frame size, `windows` the passes over a long clip."""

    seconds_train: float
    seconds_generate: float
    memory_bytes: int
    canvas: Size
    windows: int


def measure(family: Family, canvas: Canvas, settings: EditSettings) -> Estimate:
    """Time one training step and one denoising step at the edit's own size (the second of each: the first warms up)."""
    one = settings.model_copy(update={"training": settings.training.model_copy(update={"recolour": 0.0})})
    sample = motion_samples(family, canvas, one)[0][0]
    expert = family.experts()[0]
    parameters = add_lora(expert, settings.lora, settings.seed)
    generator = named_generator(settings.seed, "estimate")
    seconds: list[float] = []
    for _ in range(2):
        started = time.perf_counter()
        velocity_loss(expert, sample, settings.training, generator).backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - started)
    with torch.no_grad():
        started = time.perf_counter()
        velocity_loss(expert, sample, settings.training, generator)
        forward = time.perf_counter() - started
    assert parameters
    remove_lora(expert)
    training, generation, geometry = settings.training, settings.generation, family.geometry
    steps = len(family.experts()) * (training.motion_steps + (training.appearance_steps if canvas.references else 0))
    count = canvas.source.shape[1]
    windows = len(inference_windows(count, generation.window or geometry.max_frames, generation.overlap, geometry.group))
    passes = 1 if generation.guidance_scale == 1 else 2
    variants = len(training_windows(count, training.window or geometry.max_frames, geometry.group))
    host = host_memory_bytes()
    return Estimate(
        seconds_train=steps * training.batch_size * seconds[-1] + 0.1 * variants,
        seconds_generate=windows * generation.steps * passes * forward,
        memory_bytes=peak_memory_bytes(canvas.source.device) or host,
        canvas=canvas.size,
        windows=windows,
    )
