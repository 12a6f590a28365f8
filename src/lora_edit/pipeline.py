"""The modules in order: read, prepare at the model's size, condition, train, generate, composite, write."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch

from lora_edit import results
from lora_edit.captions import add_captions, check_captioner
from lora_edit.config import EditSettings
from lora_edit.estimate import Estimate, check_memory, estimate_edit, open_family
from lora_edit.inputs import Clip, load_inputs, read_inputs, replace_first_frame, store_inputs
from lora_edit.loras.extra_loras import ExtraLora, WeightedLoraPaths, activate_loras, check_extra_loras, load_extra_loras
from lora_edit.models.checkpoints.locate import check_substitute_model
from lora_edit.models.family import Family
from lora_edit.models.runtime.encoding_cache import enable_disk_cache
from lora_edit.oom_fallback import retry_with_less_memory
from lora_edit.reporting import Reporter, SilentReporter
from lora_edit.run import Run, make_run
from lora_edit.samples import PreparedClip, composite_output, generate_clip, predict_preview_frames, prepare_clip
from lora_edit.takes import GenerationRequest, find_sample_path
from lora_edit.train_run import train_or_load_lora
from lora_edit.training.experts import set_strengths
from lora_edit.types import Size, Video
from lora_edit.video.write import check_output, describe_output_losses, write_video


@dataclass(frozen=True)
class Result:
    """What an edit made; `seconds` by stage."""

    output: Path
    run: Path
    num_frames: int
    size: Size
    fps: Fraction
    seconds: dict[str, float]
    notes: tuple[str, ...]


def check(settings: EditSettings, reporter: Reporter | None = None) -> Clip:
    """Read and check all input without loading a model. Raises `InputError` kin."""
    check_extra_loras(settings.generation.list_lora_paths(), settings.model)
    check_captioner(settings)
    return read_inputs(settings, reporter or SilentReporter())


def create_run(settings: EditSettings, folder: Path, reporter: Reporter | None = None, clip: Clip | None = None) -> Run:
    """Make the run folder with its own lossless copy of the input, or change the one that is there. Without a `clip` that `check` gave,
    everything is checked first."""
    clip = clip or check(settings, reporter)
    check_memory(settings, clip)
    run = make_run(folder, settings)
    with run.lock():
        store_inputs(clip, run, settings)
    return run


def estimate(settings: EditSettings, clip: Clip) -> Estimate:
    """Time and memory for this edit on this machine. Raises `ModelError` when it will not fit."""
    return estimate_edit(settings, clip)


def train(folder: Path, reporter: Reporter) -> None:
    """Motion, then appearance; resumes where an earlier call stopped."""
    run = Run(folder)
    settings = run.read_settings()
    with run.lock():
        clip = add_captions(load_inputs(run), run, settings, reporter)
        train_or_load_lora(run, settings, clip, _load_family(run, settings, clip), reporter)


def generate(
    folder: Path,
    reporter: Reporter,
    output: Path | None = None,
    overwrite: bool = False,
    seed: int | None = None,
    first_frame: Path | None = None,
    loras: WeightedLoraPaths | None = None,
    model: str | None = None,
    is_main_result: bool = False,
) -> Result:
    """Sample and composite with the run's LoRA, trained first where it is not: another seed, first frame, others' LoRAs, or checkpoint.

    The `main` result, or the first, is the run's own; any other one is a take beside it.
    """
    run = Run(folder)
    settings = run.read_settings()
    chosen = check_extra_loras(settings.generation.list_lora_paths() if loras is None else loras, settings.model)
    check_substitute_model(model, settings.model, has_lora="training_key" in run.read_manifest())
    asked = settings.seed if seed is None else seed
    request = GenerationRequest(
        asked, first_frame.name if first_frame else "", tuple(Path(file).name for file, _ in loras or ()), model or ""
    )
    target = output or find_sample_path(run, settings.video.codec, request)
    check_output(target, settings.video.codec, overwrite=overwrite)
    with run.lock():
        clip = results.check_output_for_clip(run, load_inputs(run), target, settings.video.codec)
        for note in clip.notes:
            reporter.note(note)
        shown = add_captions(clip if first_frame is None else replace_first_frame(clip, first_frame), run, settings, reporter)
        family = _load_family(run, settings, clip, model)
        stack = load_extra_loras(family, chosen, reporter.note)
        prepared = prepare_clip(family, shown, settings, reporter)
        trained_on = replace(clip, captions=shown.captions)
        train_or_load_lora(run, settings, trained_on, family, reporter, model is not None, None if first_frame else prepared)
        started = time.monotonic()
        video = _generate_video(shown, prepared, settings, asked, family, stack, reporter)
        write_video(
            target, video, settings.video.codec, overwrite=overwrite, source_clip=shown.video, on_frame=partial(reporter.step, "write")
        )
        seconds = {"train": run.read_manifest().get("seconds_train", 0.0), "generate": time.monotonic() - started}
        run.update_manifest(loras=[each.to_json() for each in stack], generated_with=model or settings.model)
        notes = results.write_results(run, settings, shown, video, target, seconds, request, is_main_result, reporter)
    return Result(target, run.folder, video.num_frames, video.size, video.fps, seconds, notes)


def _load_family(run: Run, settings: EditSettings, clip: Clip, model: str | None = None) -> Family:
    family = open_family(settings, clip, model)
    enable_disk_cache(family, settings.encodings.kept_gb, run.log)
    return family


def _generate_video(
    clip: Clip, prepared_clip: PreparedClip, settings: EditSettings, seed: int, family: Family, stack: list[ExtraLora], reporter: Reporter
) -> Video:
    draw = partial(generate_clip, family, prepared_clip, seed=seed, on_step=partial(reporter.step, "generate"), on_note=reporter.note)
    set_strengths(family, settings.generation.lora_strength)
    with activate_loras(family, stack):
        pixels = retry_with_less_memory(family, settings, draw, reporter.note)
    return replace(clip.video, frames=torch.stack(list(composite_output(clip, prepared_clip, pixels, settings, reporter))))


def edit(settings: EditSettings, output: Path, folder: Path, reporter: Reporter, overwrite: bool = False) -> Result:
    """The whole job: check, train, generate, composite, write `output` and the run folder's own results."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    return generate(create_run(settings, folder, reporter).folder, reporter, output, overwrite, is_main_result=True)


def preview(settings: EditSettings, output: Path, reporter: Reporter, overwrite: bool = False) -> Path:
    """The explained edit, without a diffusion model: seconds."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    clip = check(settings, reporter)
    for note in (*clip.notes, *describe_output_losses(output, clip.video)):
        reporter.note(note)
    video = replace(clip.video, frames=predict_preview_frames(clip, settings, reporter))
    write_video(output, video, overwrite=overwrite, source_clip=clip.video, on_frame=partial(reporter.step, "write"))
    return output
