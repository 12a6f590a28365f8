"""The rooms in order: read, place on the model's grid, condition, train, generate, composite, write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from lora_edit import results
from lora_edit.canvas import Canvas, make_canvas, return_to_source
from lora_edit.compositing.flow_warp import flow_warp
from lora_edit.config import EditSettings
from lora_edit.devices import compute_dtype, pick_device
from lora_edit.inputs import Clip, load_inputs, read_inputs, store_inputs, with_first_frame
from lora_edit.models.family import Family, load_family
from lora_edit.reporting import Reporter
from lora_edit.run import Run, content_hash, make_run
from lora_edit.samples import generate_windows, training_stages
from lora_edit.training.loop import fit
from lora_edit.training.lora import add_lora, load_lora, save_lora, set_strength
from lora_edit.types import Size, Video
from lora_edit.video.write import check_output, write_video


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


def check(settings: EditSettings) -> Clip:
    """Read and check all input without loading a model. Raises `InputError` kin."""
    return read_inputs(settings)


def create_run(settings: EditSettings, folder: Path) -> Run:
    """Check everything, then make the run folder with its own lossless copy of the input."""
    clip = check(settings)
    run = make_run(folder, settings)
    with run.locked():
        store_inputs(clip, run)
    return run


def open_family(settings: EditSettings) -> Family:
    """Load the model of an edit on the best device here."""
    device = pick_device()
    return load_family(settings.model, device, compute_dtype(device))


def train(folder: Path, reporter: Reporter) -> None:
    """Motion, then appearance; resumes where an earlier call stopped."""
    run = Run(folder)
    settings = run.settings()
    with run.locked():
        clip, family = load_inputs(run), open_family(settings)
        _train(run, settings, clip, family, reporter)


def _train(run: Run, settings: EditSettings, clip: Clip, family: Family, reporter: Reporter) -> Canvas:
    canvas = make_canvas(clip, family.geometry, settings.compositing, settings.masks.snap)
    parameters = add_lora(family, settings.lora, settings.seed)
    relevant = (settings.training, settings.lora, settings.method, settings.masks, settings.compositing, settings.prompt, settings.trigger)
    key = content_hash(clip.hash(), family.fingerprint(), str(settings.seed), *(repr(part) for part in relevant))
    if run.lora_file.is_file() and run.manifest().get("training_key") == key:
        load_lora(family, run.lora_file)
        return canvas
    started = time.monotonic()
    stages = training_stages(family, canvas, settings)
    losses = fit(
        family, parameters, stages, settings.training, settings.seed, run.checkpoint_file, key, lambda n, d, t, v: reporter.step(n, d, t, f"loss {v:.4f}")
    )
    save_lora(family, run.lora_file, {"base_model": family.name, "method": settings.method.conditioning, "training_key": key})
    run.update_manifest(training_key=key, losses=losses, stages=[[s.name, s.steps] for s in stages], seconds_train=time.monotonic() - started)
    run.log(f"trained {len(losses)} steps")
    return canvas


def generate(
    folder: Path, reporter: Reporter, output: Path | None = None, overwrite: bool = False, seed: int | None = None, first_frame: Path | None = None
) -> Result:
    """Sample and composite again with the run's LoRA: another seed, another first frame."""
    run = Run(folder)
    settings = run.settings()
    target = output or results.next_sample(run)
    check_output(target, settings.video.codec, overwrite=overwrite)
    with run.locked():
        clip, family = load_inputs(run), open_family(settings)
        canvas = _train(run, settings, clip, family, reporter)
        if first_frame is not None:
            clip = with_first_frame(clip, first_frame)
            canvas = make_canvas(clip, family.geometry, settings.compositing, settings.masks.snap)
        return _generate(run, settings, clip, canvas, family, reporter, target, overwrite, settings.seed if seed is None else seed)


def edit(settings: EditSettings, output: Path, folder: Path, reporter: Reporter, overwrite: bool = False) -> Result:
    """The whole job: check, train, generate, composite, write `output` and the run folder's own results."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    run = create_run(settings, folder)
    return generate(run.folder, reporter, output, overwrite)


def _generate(
    run: Run, settings: EditSettings, clip: Clip, canvas: Canvas, family: Family, reporter: Reporter, target: Path, overwrite: bool, seed: int
) -> Result:
    started = time.monotonic()
    set_strength(family, settings.generation.lora_strength)
    pixels = generate_windows(family, canvas, settings, seed, lambda done, total: reporter.step("generate", done, total))
    sampled = time.monotonic()
    frames = torch.stack(list(return_to_source(clip, canvas, pixels, settings.compositing)))
    source = clip.video
    video = Video(frames, source.fps, source.times, source.alpha, source.source, source.start_time, source.has_sound)
    write_video(target, video, settings.video.codec, overwrite=overwrite)
    seconds = {"train": run.manifest().get("seconds_train", 0.0), "generate": sampled - started, "write": time.monotonic() - sampled}
    notes = (*clip.notes, *results.frame_notes(clip))
    results.write_results(run, settings, clip, video, target, seconds, notes)
    return Result(target, run.folder, video.num_frames, video.size, video.fps, seconds, notes)


def preview(settings: EditSettings, output: Path, overwrite: bool = False) -> Path:
    """A flow-warped preview in seconds, without a model."""
    check_output(output, settings.video.codec, overwrite=overwrite)
    clip = check(settings)
    source = clip.video
    frames = flow_warp(source.frames, clip.first_frame, clip.edit_mask)
    write_video(output, Video(frames, source.fps, source.times, None, source.source, source.start_time, source.has_sound), overwrite=overwrite)
    return output
