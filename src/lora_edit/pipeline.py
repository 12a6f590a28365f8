"""Edits with a run folder: check the input, create the run, train, generate, write the results, preview.

`Session` (session.py) holds one edit's steps in order; the functions here read its inputs from a run folder and write its results there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from lora_edit import results
from lora_edit.captions import add_captions, check_captioner
from lora_edit.config import EditSettings
from lora_edit.estimate import Estimate, check_memory, estimate_edit, open_family
from lora_edit.inputs import Clip, load_inputs, read_inputs, replace_first_frame, store_inputs
from lora_edit.loras.extra_loras import WeightedLoraPaths, check_extra_loras, load_extra_loras
from lora_edit.models.checkpoints.locate import check_substitute_model
from lora_edit.models.runtime.encoding_cache import enable_disk_cache
from lora_edit.prepared_clip import predict_preview_frames
from lora_edit.reporting import Reporter, SilentReporter
from lora_edit.resolved import ResolvedEdit, resolve_edit
from lora_edit.run import Run, make_run
from lora_edit.session import Session
from lora_edit.takes import GenerationRequest, find_sample_path
from lora_edit.types import Size
from lora_edit.video.write import check_output, describe_output_losses, write_video


@dataclass(frozen=True)
class Result:
    """The result of an edit; `seconds` by stage."""

    output: Path
    run: Path
    num_frames: int
    size: Size
    fps: Fraction
    seconds: dict[str, float]
    notes: tuple[str, ...]


def check(settings: EditSettings, reporter: Reporter | None = None) -> Clip:
    """Read and check all input without loading a model. Raises `InputError` and its subclasses."""
    check_extra_loras(settings.generation.list_lora_paths(), settings.model)
    check_captioner(settings)
    return read_inputs(settings, reporter or SilentReporter())


def create_run(settings: EditSettings, folder: Path, reporter: Reporter | None = None, clip: Clip | None = None) -> Run:
    """Create the run folder with a lossless copy of the input, or adapt the existing one to these settings.

    `clip` is what `check` returned; without it the input is checked first. Raises `RunError`, and `ModelError` when the model does not fit.
    """
    return _create_run(settings, folder, clip or check(settings, reporter))[0]


def _create_run(settings: EditSettings, folder: Path, clip: Clip) -> tuple[Run, bool]:
    """As `create_run`; also returns whether the folder holds this very `clip`, so that it need not be read back."""
    check_memory(resolve_edit(settings, clip))
    run = make_run(folder, settings)
    with run.lock():
        is_stored = store_inputs(clip, run, settings)
    return run, is_stored


def estimate(settings: EditSettings, clip: Clip) -> Estimate:
    """Estimate time and memory of this edit on this machine. Raises `ModelError` when the model does not fit."""
    return estimate_edit(resolve_edit(settings, clip), clip)


def train(folder: Path, reporter: Reporter) -> None:
    """Train the LoRA of a run: motion, then appearance. Resumes where an earlier call stopped."""
    run = Run(folder)
    settings = run.read_settings()
    with run.lock():
        clip = add_captions(load_inputs(run), run, settings, reporter)
        _open_session(run, resolve_edit(settings, clip), clip, reporter).train(run)


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
    clip: Clip | None = None,
) -> Result:
    """Generate a result with the run's LoRA, which is trained first if needed.

    Another seed, first frame, other people's LoRAs or another checkpoint of the same `model` may replace the run's own. The main result, or
    the first, becomes the run's own; others are takes beside it. `clip` is the run's input where it is in memory already.
    """
    run = Run(folder)
    settings = run.read_settings()
    checked_loras = check_extra_loras(settings.generation.list_lora_paths() if loras is None else loras, settings.model)
    check_substitute_model(model, settings.model, has_lora="training_key" in run.read_manifest())
    seed = settings.seed if seed is None else seed
    lora_names = tuple(Path(file).name for file, _ in loras or ())
    request = GenerationRequest(seed, first_frame.name if first_frame else "", lora_names, model or "")
    target = output or find_sample_path(run, settings.video.codec, request)
    check_output(target, settings.video.codec, overwrite=overwrite)
    with run.lock():
        clip = results.check_output_for_clip(run, clip or load_inputs(run), target, settings.video.codec)
        for note in clip.notes:
            reporter.note(note)
        inputs = add_captions(clip if first_frame is None else replace_first_frame(clip, first_frame), run, settings, reporter)
        session = _open_session(run, resolve_edit(settings, clip, model), inputs, reporter)
        extra_loras = load_extra_loras(session.model, checked_loras, reporter.note)
        trained = session
        if first_frame is not None:  # the LoRA is that of the run's own first frame
            own_inputs = replace(clip, captions=inputs.captions)
            trained = Session(session.model, own_inputs, settings, reporter, session.short_window)
        trained.train(run, accept_saved=model is not None)
        started = time.monotonic()
        video = session.composite(session.generate(seed, extra_loras))
        on_frame = partial(reporter.step, "write")
        write_video(target, video, settings.video.codec, overwrite=overwrite, source_clip=inputs.video, on_frame=on_frame)
        seconds = {"train": run.read_manifest().get("seconds_train", 0.0), "generate": time.monotonic() - started}
        run.update_manifest(loras=[lora.to_json() for lora in extra_loras], generated_with=model or settings.model)
        notes = results.write_results(run, settings, inputs, video, target, seconds, request, is_main_result, reporter)
    return Result(target, run.folder, video.num_frames, video.size, video.fps, seconds, notes)


def _open_session(run: Run, edit: ResolvedEdit, inputs: Clip, reporter: Reporter) -> Session:
    """Load the model of a run and open a session with it; encoder outputs are cached on disk as the settings say."""
    family = open_family(edit)
    enable_disk_cache(family, edit.settings.encodings.kept_gb, run.log)
    return Session(family, inputs, edit.settings, reporter, edit.record.short_window)


def edit(settings: EditSettings, output: Path, folder: Path, reporter: Reporter, overwrite: bool = False) -> Result:
    """Run a whole edit: check, train, generate, composite; write `output` and the run folder's results."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    clip = check(settings, reporter)
    run, is_stored = _create_run(settings, folder, clip)
    return generate(run.folder, reporter, output, overwrite, is_main_result=True, clip=clip if is_stored else None)


def preview(settings: EditSettings, output: Path, reporter: Reporter, overwrite: bool = False) -> Path:
    """Write a prediction of the edited clip, made without a diffusion model; returns its path."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    clip = check(settings, reporter)
    for note in (*clip.notes, *describe_output_losses(output, clip.video)):
        reporter.note(note)
    video = replace(clip.video, frames=predict_preview_frames(clip, settings, reporter))
    write_video(output, video, overwrite=overwrite, source_clip=clip.video, on_frame=partial(reporter.step, "write"))
    return output
