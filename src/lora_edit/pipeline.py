"""The modules in order: read, prepare at the model's size, condition, train, generate, composite, write."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch

from lora_edit import results
from lora_edit.captions import check_captioner, with_captions
from lora_edit.config import EditSettings
from lora_edit.estimate import Estimate, check_fits, estimate_edit, open_family
from lora_edit.inputs import Clip, load_inputs, read_inputs, store_inputs, with_first_frame
from lora_edit.learning import learn
from lora_edit.loras.stack import Chosen, Stacked, acting, check_files, read_stack
from lora_edit.memory import with_less_memory
from lora_edit.models.catalog.locate import check_stand_in
from lora_edit.models.encodings import keep_encodings
from lora_edit.models.family import Family
from lora_edit.reporting import Reporter, Silent
from lora_edit.run import Run, make_run
from lora_edit.samples import PreparedClip, draw_clip, finish, prepare, preview_frames
from lora_edit.takes import Request, next_sample
from lora_edit.training.experts import set_strengths
from lora_edit.types import Size, Video
from lora_edit.video.write import check_output, output_notes, write_video


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
    check_files(settings.generation.stack(), settings.model)
    check_captioner(settings)
    return read_inputs(settings, reporter or Silent())


def create_run(settings: EditSettings, folder: Path, reporter: Reporter | None = None, clip: Clip | None = None) -> Run:
    """Make the run folder with its own lossless copy of the input, or change the one that is there. Without a `clip` that `check` gave,
    everything is checked first."""
    clip = clip or check(settings, reporter)
    check_fits(settings, clip)
    run = make_run(folder, settings)
    with run.locked():
        store_inputs(clip, run, settings)
    return run


def estimate(settings: EditSettings, clip: Clip) -> Estimate:
    """Time and memory for this edit on this machine. Raises `ModelError` when it will not fit."""
    return estimate_edit(settings, clip)


def train(folder: Path, reporter: Reporter) -> None:
    """Motion, then appearance; resumes where an earlier call stopped."""
    run = Run(folder)
    settings = run.settings()
    with run.locked():
        clip = with_captions(load_inputs(run), run, settings, reporter)
        learn(run, settings, clip, _opened(run, settings, clip), reporter)


def generate(
    folder: Path,
    reporter: Reporter,
    output: Path | None = None,
    overwrite: bool = False,
    seed: int | None = None,
    first_frame: Path | None = None,
    loras: Chosen | None = None,
    model: str | None = None,
    main: bool = False,
) -> Result:
    """Sample and composite with the run's LoRA, trained first where it is not: another seed, first frame, others' LoRAs, or checkpoint.

    The `main` result, or the first, is the run's own; any other one is a take beside it.
    """
    run = Run(folder)
    settings = run.settings()
    chosen = check_files(settings.generation.stack() if loras is None else loras, settings.model)
    check_stand_in(model, settings.model, trained="training_key" in run.manifest())
    asked = settings.seed if seed is None else seed
    request = Request(asked, first_frame.name if first_frame else "", tuple(Path(file).name for file, _ in loras or ()), model or "")
    target = output or next_sample(run, settings.video.codec, request)
    check_output(target, settings.video.codec, overwrite=overwrite)
    with run.locked():
        clip = results.checked_for_output(run, load_inputs(run), target, settings.video.codec)
        for note in clip.notes:
            reporter.note(note)
        shown = with_captions(clip if first_frame is None else with_first_frame(clip, first_frame), run, settings, reporter)
        family = _opened(run, settings, clip, model)
        stack = read_stack(family, chosen, reporter.note)
        prepared = prepare(family, shown, settings, reporter)
        trained_on = replace(clip, captions=shown.captions)
        learn(run, settings, trained_on, family, reporter, model is not None, None if first_frame else prepared)
        started = time.monotonic()
        video = _generate(shown, prepared, settings, asked, family, stack, reporter)
        write_video(target, video, settings.video.codec, overwrite=overwrite, like=shown.video, on_frame=partial(reporter.step, "write"))
        seconds = {"train": run.manifest().get("seconds_train", 0.0), "generate": time.monotonic() - started}
        run.update_manifest(loras=[each.to_json() for each in stack], generated_with=model or settings.model)
        notes = results.write_results(run, settings, shown, video, target, seconds, request, main, reporter)
    return Result(target, run.folder, video.num_frames, video.size, video.fps, seconds, notes)


def _opened(run: Run, settings: EditSettings, clip: Clip, model: str | None = None) -> Family:
    family = open_family(settings, clip, model)
    keep_encodings(family, settings.encodings.kept_gb, run.log)
    return family


def _generate(
    clip: Clip, prepared: PreparedClip, settings: EditSettings, seed: int, family: Family, stack: list[Stacked], reporter: Reporter
) -> Video:
    draw = partial(draw_clip, family, prepared, seed=seed, on_step=partial(reporter.step, "generate"), note=reporter.note)
    set_strengths(family, settings.generation.lora_strength)
    with acting(family, stack):
        pixels = with_less_memory(family, settings, draw, reporter.note)
    return replace(clip.video, frames=torch.stack(list(finish(clip, prepared, pixels, settings, reporter))))


def edit(settings: EditSettings, output: Path, folder: Path, reporter: Reporter, overwrite: bool = False) -> Result:
    """The whole job: check, train, generate, composite, write `output` and the run folder's own results."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    return generate(create_run(settings, folder, reporter).folder, reporter, output, overwrite, main=True)


def preview(settings: EditSettings, output: Path, reporter: Reporter, overwrite: bool = False) -> Path:
    """The explained edit, without a diffusion model: seconds."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    clip = check(settings, reporter)
    for note in (*clip.notes, *output_notes(output, clip.video)):
        reporter.note(note)
    video = replace(clip.video, frames=preview_frames(clip, settings, reporter))
    write_video(output, video, overwrite=overwrite, like=clip.video, on_frame=partial(reporter.step, "write"))
    return output
