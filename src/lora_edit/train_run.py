"""Train, resume or load the LoRA of a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from lora_edit.config import EditSettings
from lora_edit.errors import ModelError, RunError
from lora_edit.generation.windows import sample_training_preview
from lora_edit.inputs import Clip
from lora_edit.models.family import Family
from lora_edit.oom_fallback import retry_with_less_memory
from lora_edit.prepared_clip import PreparedClip
from lora_edit.provenance.content_hash import hash_file
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
    initial_lora = identify_initial_lora(run, settings)
    start = [initial_lora["sha256"]] if initial_lora else []
    key = hash_content(clip.compute_hash(), family.fingerprint(), *list_training_key_parts(settings, clip), *start)
    if _has_saved_lora(run, family, None if accept_saved else key, reporter):
        return load_experts(family, settings.lora, settings.seed, run.lora_file)
    started = time.monotonic()
    prepared_clip = prepare()

    def on_step(stage: str, done: int, total: int, loss: float) -> None:
        suffix = ", may end earlier" if settings.training.early_stop and done < total else ""
        reporter.step(stage, done, total, f"loss {loss:.4f}{suffix}")
        if isinstance(reporter, PreviewReporter) and len(family.experts()) == 1:  # of two, one is untrained so far
            reporter.show_preview(lambda: sample_training_preview(family, clip, prepared_clip, settings))

    metadata = build_lora_metadata(settings, clip, family, key) | ({"init_sha256": start[0]} if start else {})
    shared = hash_content(
        family.fingerprint(), repr(settings.training.reset_stage_fields()), repr(settings.lora), str(settings.seed), *start
    )

    def work(current: EditSettings) -> tuple[list[float], list[tuple[str, int]], list[int]]:
        stages = build_training_stages(family, prepared_clip, current)
        losses, done = train_experts(
            family, stages, current.training, current.lora, current.seed, run, shared, metadata, on_step, reporter.note
        )
        return losses, done, [stage.steps for _ in family.experts() for stage in stages]

    losses, done, planned = retry_with_less_memory(family, settings, work, reporter.note, short_window)
    for (stage, steps), most in zip(done, planned, strict=True):
        if steps < most:
            reporter.note(f"{stage}: the held-out loss stopped falling; ended after {steps} of {most} steps")
    threads = torch.get_num_threads()
    run.update_manifest(
        training_key=key,
        lora_hashes={file.name: hash_file(file) for file in run.list_lora_files()},
        threads=threads,
        losses=losses,
        stages=done,
        seconds_train=time.monotonic() - started,
        **({"lora_init": initial_lora} if initial_lora else {}),
    )
    run.log(f"trained {len(losses)} steps with {threads} thread{'' if threads == 1 else 's'}")


def load_saved_lora(run: Run, settings: EditSettings, family: Family) -> None:
    """Load the run's LoRA into the family. Raises `RunError` if there is none, and `ModelError` if it does not fit or is damaged."""
    if not all(run.lora_file(expert.part).is_file() for expert in family.experts()):
        raise RunError(f"{run.folder}: has no trained LoRA; train it with `lora-edit train {run.folder}`")
    load_experts(family, settings.lora, settings.seed, run.lora_file)


def _has_saved_lora(run: Run, family: Family, key: str | None, reporter: Reporter) -> bool:
    """Whether the run has the whole LoRA of the training `key`; None accepts that of any training.

    A file that is not the one that the run trained, because it was damaged or replaced, is renamed, so that training can write it again:
    from its finished checkpoint, if there is one, that takes no step.
    """
    files = [run.lora_file(expert.part) for expert in family.experts()]
    manifest = run.read_manifest()
    if not all(file.is_file() for file in files) or (key is not None and manifest.get("training_key") != key):
        return False
    changed = [file for file in files if manifest.get("lora_hashes", {}).get(file.name) not in (None, hash_file(file))]
    for file in changed:
        if key is None:
            raise ModelError(f"{file}: is not the LoRA that this run trained; train it again with `lora-edit train {run.folder}`")
        kept = file.with_name(f"changed-{file.name}")
        file.replace(kept)
        reporter.note(f"{file}: is damaged or was replaced since it was trained; it is now {kept.name}, and the LoRA is written again")
    return not changed


def identify_initial_lora(run: Run, settings: EditSettings) -> dict[str, str]:
    """Return file and SHA-256 of the LoRA from which training starts; empty without one.

    A file that is gone is identified by the run's manifest, so that a trained run does not need it any more.
    """
    file = settings.lora.init
    if file is None:
        return {}
    recorded: dict[str, str] = run.read_manifest().get("lora_init", {})
    if not file.is_file() and recorded.get("file") == str(file):
        return recorded
    return {"file": str(file), "sha256": hash_file(file) if file.is_file() else ""}
