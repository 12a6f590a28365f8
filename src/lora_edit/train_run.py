"""Train, resume or load the LoRA of a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from lora_edit.config import EditSettings
from lora_edit.generation.windows import sample_training_preview
from lora_edit.inputs import Clip
from lora_edit.models.family import Family
from lora_edit.oom_fallback import retry_with_less_memory
from lora_edit.prepared_clip import PreparedClip
from lora_edit.reporting import PreviewReporter, Reporter
from lora_edit.run import Run
from lora_edit.training.dataset import build_lora_metadata, build_training_stages, list_training_key_parts
from lora_edit.training.experts import load_experts, train_experts
from lora_edit.types import hash_content


def train_or_load_lora(
    run: Run,
    settings: EditSettings,
    clip: Clip,
    family: Family,
    reporter: Reporter,
    prepare: Callable[[], PreparedClip],
    accept_saved: bool = False,
    *,
    short_window: int | None = None,
) -> None:
    """Load the run's LoRA into the family, or train it.

    The saved LoRA is loaded when it was trained with these settings and inputs on these weights, or in any case with `accept_saved`
    (another checkpoint replaces the base). Otherwise training starts, resumes where an earlier call stopped, or continues from the stages
    that are unchanged: another edited later frame adds to the motion that was learned. `prepare` gives the clip at the model's size, and is
    called only for training; `short_window` is as in `retry_with_less_memory`.

    Raises `TrainingDivergedError`, and `ModelError` when the device's memory does not suffice.
    """
    key = hash_content(clip.compute_hash(), family.fingerprint(), *list_training_key_parts(settings, clip))
    is_saved = all(run.lora_file(expert.part).is_file() for expert in family.experts())
    if is_saved and (accept_saved or run.read_manifest().get("training_key") == key):
        return load_experts(family, settings.lora, settings.seed, run.lora_file)
    started = time.monotonic()
    prepared_clip = prepare()

    def on_step(stage: str, done: int, total: int, loss: float) -> None:
        suffix = ", may end earlier" if settings.training.early_stop and done < total else ""
        reporter.step(stage, done, total, f"loss {loss:.4f}{suffix}")
        if isinstance(reporter, PreviewReporter) and len(family.experts()) == 1:  # of two, one is untrained so far
            reporter.show_preview(lambda: sample_training_preview(family, clip, prepared_clip, settings))

    metadata = build_lora_metadata(settings, clip, family, key)
    shared = hash_content(family.fingerprint(), repr(settings.training.reset_stage_fields()), repr(settings.lora), str(settings.seed))

    def work(current: EditSettings) -> tuple[list[float], list[tuple[str, int]], list[int]]:
        stages = build_training_stages(family, prepared_clip, current)
        losses, done = train_experts(family, stages, current.training, current.lora, current.seed, run, shared, metadata, on_step)
        return losses, done, [stage.steps for _ in family.experts() for stage in stages]

    losses, done, planned = retry_with_less_memory(family, settings, work, reporter.note, short_window)
    for (stage, steps), most in zip(done, planned, strict=True):
        if steps < most:
            reporter.note(f"{stage}: the held-out loss stopped falling; ended after {steps} of {most} steps")
    threads = torch.get_num_threads()
    run.update_manifest(training_key=key, threads=threads, losses=losses, stages=done, seconds_train=time.monotonic() - started)
    run.log(f"trained {len(losses)} steps with {threads} thread{'' if threads == 1 else 's'}")
