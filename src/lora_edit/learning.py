"""The LoRA of a run: trained, resumed, or taken as it was saved."""

from __future__ import annotations

import time

import torch

from lora_edit.config import EditSettings
from lora_edit.inputs import Clip
from lora_edit.memory import with_less_memory
from lora_edit.models.family import Family
from lora_edit.reporting import Reporter, Watcher
from lora_edit.run import Run
from lora_edit.samples import PreparedClip, draw_look, lora_metadata, prepare, training_facts, training_stages
from lora_edit.training.experts import load_experts, train_experts
from lora_edit.types import content_hash


def learn(
    run: Run,
    settings: EditSettings,
    clip: Clip,
    family: Family,
    reporter: Reporter,
    trained: bool = False,
    prepared: PreparedClip | None = None,
) -> None:
    """Put the run's LoRA into the family: the saved one when it was trained with these settings and inputs on these weights, else a new
    one, from where an earlier call stopped or as far as the training before was the same: another edited frame adds to the motion that
    was learned. `trained`: whatever was saved is right, as when another checkpoint stands in for the base. `prepared` is the clip at the
    model's size where it is there already.

    Raises `TrainingDiverged`, and `ModelError` when the device's memory suffices in no way.
    """
    key = content_hash(clip.hash(), family.fingerprint(), *training_facts(settings, clip))
    kept = all(run.lora_file(expert.part).is_file() for expert in family.experts())
    if kept and (trained or run.manifest().get("training_key") == key):
        return load_experts(family, settings.lora, settings.seed, run.lora_file)
    started = time.monotonic()
    prepared = prepared or prepare(family, clip, settings, reporter)

    def on_step(stage: str, done: int, total: int, loss: float) -> None:
        hope = ", may end earlier" if settings.training.early_stop and done < total else ""
        reporter.step(stage, done, total, f"loss {loss:.4f}{hope}")
        if isinstance(reporter, Watcher) and len(family.experts()) == 1:  # of two, one has no LoRA yet
            reporter.look(lambda: draw_look(family, clip, prepared, settings))

    facts = lora_metadata(settings, clip, family, key)
    shared = content_hash(family.fingerprint(), repr(settings.training.shared()), repr(settings.lora), str(settings.seed))

    def work(now: EditSettings) -> tuple[list[float], list[tuple[str, int]], list[int]]:
        stages = training_stages(family, prepared, now)
        losses, done = train_experts(family, stages, now.training, now.lora, now.seed, run, shared, facts, on_step)
        return losses, done, [stage.steps for _ in family.experts() for stage in stages]

    losses, done, planned = with_less_memory(family, settings, work, reporter.note)
    for (stage, steps), most in zip(done, planned, strict=True):
        if steps < most:
            reporter.note(f"{stage}: the held-out loss stopped falling; ended after {steps} of {most} steps")
    threads = torch.get_num_threads()
    run.update_manifest(training_key=key, threads=threads, losses=losses, stages=done, seconds_train=time.monotonic() - started)
    run.log(f"trained {len(losses)} steps with {threads} thread{'' if threads == 1 else 's'}")
