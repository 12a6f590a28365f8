"""Edits with a run folder: check the input, create the run, train, generate, write the results, preview.

`Session` (session.py) holds one edit's steps in order; the functions here read its inputs from a run folder and write its results there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch

from lora_edit import results
from lora_edit.captions import CAPTIONS_FILE, add_captions, check_captioner, needs_captions, read_captions
from lora_edit.config import EditSettings
from lora_edit.errors import SigningError
from lora_edit.estimate import Estimate, check_memory, estimate_edit, open_family
from lora_edit.inputs import Clip, load_inputs, read_inputs, replace_first_frame, store_inputs
from lora_edit.loras.extra_loras import ExtraLora, WeightedLoraPaths, check_extra_loras, load_extra_loras
from lora_edit.models.checkpoints.locate import check_substitute_model
from lora_edit.models.runtime.encoding_cache import enable_disk_cache
from lora_edit.prepared_clip import predict_preview_frames
from lora_edit.provenance.signing import ResultSigner, check_sidecar, finish_unsigned
from lora_edit.reporting import Reporter, SilentReporter
from lora_edit.reproduction import (
    GeneratedClipCache,
    Reproduction,
    build_record,
    compare_environments,
    compare_files,
    compare_result,
    describe_replacements,
    hash_loras,
    read_record,
)
from lora_edit.resolved import ResolvedEdit, resolve_edit
from lora_edit.result_claim import build_claim, describe_loras, describe_model, load_signing_credentials
from lora_edit.result_watermark import mark_result
from lora_edit.run import Run, make_run
from lora_edit.session import Session
from lora_edit.takes import SAMPLES_FOLDER, GenerationRequest, claim_output, find_free_name, find_sample_path, owns_output
from lora_edit.train_run import load_saved_lora
from lora_edit.training.initial_lora import check_initial_lora
from lora_edit.types import Size, Video
from lora_edit.video.png_frames import save_frames
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
    check_initial_lora(settings.lora, settings.model)
    check_captioner(settings)
    load_signing_credentials(settings)
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
    load_signing_credentials(settings)  # what `generate` will sign with is checked before hours of training
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
    credentials = load_signing_credentials(settings)
    if credentials:
        check_sidecar(target, overwrite=overwrite)
    with run.lock():
        clip = results.check_output_for_clip(run, clip or load_inputs(run), target, settings.video.codec)
        for note in clip.notes:
            reporter.note(note)
        inputs = add_captions(clip if first_frame is None else replace_first_frame(clip, first_frame), run, settings, reporter)
        # Before training, for it reads the input files; `claim` gets model and LoRAs when they are there.
        signer = ResultSigner(build_claim(settings, inputs, run, first_frame, seed), credentials) if credentials else None
        resolved = resolve_edit(settings, clip, model)
        session = _open_session(run, resolved, inputs, reporter)
        extra_loras = load_extra_loras(session.model, checked_loras, reporter.note)
        trained = session
        if first_frame is not None:  # the LoRA is that of the run's own first frame
            own_inputs = replace(clip, captions=inputs.captions)
            trained = Session(session.model, own_inputs, settings, reporter, session.short_window)
        trained.train(run, accept_saved=model is not None)
        started = time.monotonic()
        cache = _open_generated_cache(run, session, seed, checked_loras)
        pixels = _load_or_generate(cache, session, seed, extra_loras)
        video = session.composite(pixels)
        mark = mark_result(inputs, video, settings)
        inputs = replace(inputs, notes=(*inputs.notes, *mark.notes))
        entries = {
            "loras": [each.to_json() for each in extra_loras],
            "generated_with": model or settings.model,
            "watermark": mark.to_json(),
        }
        run.update_manifest(**entries)
        if signer:
            base = describe_model(resolved.loaded_record, session.model.fingerprint())
            signer.claim = replace(signer.claim, model=base, loras=describe_loras(run), extra={"watermark": mark.to_json()})
        write = partial(write_video, target, video, settings.video.codec, overwrite=overwrite, source_clip=inputs.video)
        with _keep_unsigned_frames(run, request, video):
            write(on_frame=partial(reporter.step, "write"), finish=signer.sign_file if signer else finish_unsigned)
        if is_main_result:
            claim_output(run, target)
        seconds = {"train": run.read_manifest().get("seconds_train", 0.0), "generate": time.monotonic() - started}
        replacements = describe_replacements(first_frame, loras, model)
        record = build_record(run, settings, replacements | {"seed": seed}, inputs.compute_hash(), checked_loras, pixels, video.frames)
        result = results.GeneratedResult(video, target, seconds, request, record, signer)
        notes = results.write_results(run, settings, inputs, result, is_main_result, reporter)
        cache.clear()
    return Result(target, run.folder, video.num_frames, video.size, video.fps, seconds, notes)


@contextmanager
def _keep_unsigned_frames(run: Run, request: GenerationRequest, video: Video) -> Iterator[None]:
    """Save the frames in the run folder if signing fails in the block, so that they are not lost."""
    try:
        yield
    except SigningError as error:
        folder = run.folder / SAMPLES_FOLDER / f"{find_free_name(run, request)}-unsigned"
        save_frames(folder, video.frames, video.alpha)
        raise SigningError(f"{error}; the finished frames are in {folder}") from error


def _open_session(run: Run, edit: ResolvedEdit, inputs: Clip, reporter: Reporter) -> Session:
    """Load the model of a run and open a session with it; encoder outputs are cached on disk as the settings say."""
    family = open_family(edit)
    enable_disk_cache(family, edit.settings.encodings.kept_gb, run.log)
    return Session(family, inputs, edit.settings, reporter, edit.record.short_window)


def _open_generated_cache(run: Run, session: Session, seed: int, loras: WeightedLoraPaths) -> GeneratedClipCache:
    """Open the cache of the model's output for this input, settings, weights and LoRAs."""
    files = hash_loras([*run.list_lora_files(), *(Path(file) for file, _ in loras)])
    captions = sorted(session.inputs.captions.items())
    parts = (str(session.settings), session.inputs.compute_hash(), session.model.fingerprint(), str(captions), str(seed), str(loras))
    return GeneratedClipCache(run, *parts, str(files))


def _load_or_generate(cache: GeneratedClipCache, session: Session, seed: int, extra_loras: Sequence[ExtraLora]) -> torch.Tensor:
    """Return the model's output: that of an interrupted call, or a new one."""
    pixels = cache.get()
    if pixels is None:
        pixels = session.generate(seed, extra_loras)
        cache.put(pixels)
    return pixels


def check_result(folder: Path, reporter: Reporter) -> Reproduction:
    """Compute the run's own result again, from its stored input and LoRA, and compare it with the hashes in the manifest.

    Nothing is written into the run folder. What the computation starts from is compared first; where that differs, nothing is computed.
    Raises `RunError` if the run has no finished result.
    """
    run = Run(folder)
    settings, recorded = run.read_settings(), read_record(run)
    loras = (
        settings.generation.list_lora_paths() if recorded.loras is None else [(Path(file), strength) for file, strength in recorded.loras]
    )
    checked_loras = check_extra_loras(loras, settings.model)
    clip = load_inputs(run, discard_damaged=False)
    inputs = replace_first_frame(clip, Path(recorded.first_frame)) if recorded.first_frame else clip
    inputs = replace(inputs, captions=read_captions(inputs, run.folder / CAPTIONS_FILE)) if needs_captions(settings) else inputs
    used = hash_loras([*run.list_lora_files(), *(Path(file) for file, _ in checked_loras)])
    environment = compare_environments(recorded)
    differences = compare_files(recorded, settings, inputs.compute_hash(), used)
    if not differences:
        edit = resolve_edit(settings, inputs, recorded.model or None)
        session = Session(open_family(edit), inputs, settings, reporter, edit.record.short_window)
        extra_loras = load_extra_loras(session.model, checked_loras, reporter.note)
        load_saved_lora(run, settings, session.model)
        pixels = session.generate(recorded.seed, extra_loras)
        video = session.composite(pixels)
        mark_result(inputs, video, settings)
        differences = compare_result(recorded, pixels, video.frames)
    return Reproduction(clip.video.num_frames, tuple(differences), environment)


def edit(settings: EditSettings, output: Path, folder: Path, reporter: Reporter, overwrite: bool = False) -> Result:
    """Run a whole edit: check, train, generate, composite; write `output` and the run folder's results."""
    overwrite = overwrite or owns_output(Run(folder), output)
    check_output(output, settings.video.codec, overwrite=overwrite)
    if settings.provenance.sign:
        check_sidecar(output, overwrite=overwrite)
    clip = check(settings, reporter)
    run, is_stored = _create_run(settings, folder, clip)
    return generate(run.folder, reporter, output, overwrite, is_main_result=True, clip=clip if is_stored else None)


def preview(settings: EditSettings, output: Path, reporter: Reporter, overwrite: bool = False) -> Path:
    """Write a prediction of the edited clip, made without a diffusion model; returns its path."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    if settings.provenance.sign:
        check_sidecar(output, overwrite=overwrite)
    clip = check(settings, reporter)
    for note in (*clip.notes, *describe_output_losses(output, clip.video)):
        reporter.note(note)
    video = replace(clip.video, frames=predict_preview_frames(clip, settings, reporter))
    mark = mark_result(clip, video, settings)
    credentials = load_signing_credentials(settings)
    claim = replace(build_claim(settings, clip), extra={"watermark": mark.to_json()})
    signer = ResultSigner(claim, credentials) if credentials else None
    finish, on_frame = signer.sign_file if signer else finish_unsigned, partial(reporter.step, "write")
    write_video(output, video, overwrite=overwrite, source_clip=clip.video, on_frame=on_frame, finish=finish)
    for note in (*mark.notes, *(signer.notes if signer else ())):
        reporter.note(note)
    return output
