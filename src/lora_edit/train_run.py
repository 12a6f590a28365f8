"""The LoRA of a run: trained, resumed, or taken as it was saved."""

from __future__ import annotations

import time

import torch

from lora_edit.config import EditSettings
from lora_edit.inputs import Clip
from lora_edit.models.family import Family
from lora_edit.oom_fallback import retry_with_less_memory
from lora_edit.reporting import PreviewReporter, Reporter
from lora_edit.run import Run
from lora_edit.samples import (
    PreparedClip,
    build_lora_metadata,
    build_training_stages,
    list_training_key_parts,
    prepare_clip,
    sample_training_preview,
)
from lora_edit.training.experts import load_experts, train_experts
from lora_edit.types import hash_content


def train_or_load_lora(
    run: Run,
    settings: EditSettings,
    clip: Clip,
    family: Family,
    reporter: Reporter,
    accept_saved: bool = False,
    prepared_clip: PreparedClip | None = None,
) -> None:
    """Put the run's LoRA into the family: the saved one when it was trained with these settings and inputs on these weights, else a new
    one, from where an earlier call stopped or as far as the training before was the same: another edited frame adds to the motion that
    was learned. `trained`: whatever was saved is right, as when another checkpoint stands in for the base. `prepared` is the clip at the
    model's size where it is there already.

    Raises `TrainingDiverged`, and `ModelError` when the device's memory suffices in no way.
    """
    key = hash_content(clip.compute_hash(), family.fingerprint(), *list_training_key_parts(settings, clip))
    kept = all(run.lora_file(expert.part).is_file() for expert in family.experts())
    if kept and (accept_saved or run.read_manifest().get("training_key") == key):
        return load_experts(family, settings.lora, settings.seed, run.lora_file)
    started = time.monotonic()
    prepared_clip = prepared_clip or prepare_clip(family, clip, settings, reporter)

    def on_step(stage: str, done: int, total: int, loss: float) -> None:
        hope = ", may end earlier" if settings.training.early_stop and done < total else ""
        reporter.step(stage, done, total, f"loss {loss:.4f}{hope}")
        if isinstance(reporter, PreviewReporter) and len(family.experts()) == 1:  # of two, one has no LoRA yet
            reporter.show_preview(lambda: sample_training_preview(family, clip, prepared_clip, settings))

    facts = build_lora_metadata(settings, clip, family, key)
    shared = hash_content(family.fingerprint(), repr(settings.training.reset_stage_fields()), repr(settings.lora), str(settings.seed))

    def work(now: EditSettings) -> tuple[list[float], list[tuple[str, int]], list[int]]:
        stages = build_training_stages(family, prepared_clip, now)
        losses, done = train_experts(family, stages, now.training, now.lora, now.seed, run, shared, facts, on_step)
        return losses, done, [stage.steps for _ in family.experts() for stage in stages]

    losses, done, planned = retry_with_less_memory(family, settings, work, reporter.note)
    for (stage, steps), most in zip(done, planned, strict=True):
        if steps < most:
            reporter.note(f"{stage}: the held-out loss stopped falling; ended after {steps} of {most} steps")
    threads = torch.get_num_threads()
    run.update_manifest(training_key=key, threads=threads, losses=losses, stages=done, seconds_train=time.monotonic() - started)
    run.log(f"trained {len(losses)} steps with {threads} thread{'' if threads == 1 else 's'}")
