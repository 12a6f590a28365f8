"""The Python interface: the command's verbs as functions. `lora_edit` exports them; see the README's quickstart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from lora_edit import pipeline
from lora_edit.config import EditSettings, merge_tables, resolve_settings
from lora_edit.errors import SettingsError
from lora_edit.evaluation import learned_metrics
from lora_edit.measurement import read_evaluation_files
from lora_edit.pipeline import Result
from lora_edit.provenance.verification import VerificationReport, verify_file
from lora_edit.provenance.watermark_search import search_watermark
from lora_edit.reporting import Reporter, SilentReporter
from lora_edit.run import Run, default_run_folder
from lora_edit.video.paths import protect_inputs

AnyPath = str | PathLike[str]
BoxTuple = tuple[float, float, float, float]
"""Left, top, width and height in source pixels."""


def build_settings(
    source: AnyPath,
    first_frame: AnyPath,
    *,
    mask: AnyPath | None = None,
    boxes: Sequence[BoxTuple | Mapping[str, Any]] = (),
    points: Sequence[tuple[float, float] | Mapping[str, Any]] = (),
    references: Mapping[int, AnyPath] | None = None,
    anchors: Mapping[int, AnyPath] | None = None,
    model: str = "tiny",
    preset: str = "standard",
    prompt: str = "",
    seed: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> EditSettings:
    """Build the settings of an edit.

    Args:
        source: The clip: a video, a folder of images, or a GIF.
        first_frame: The edited first frame.
        mask: The region to edit, white: a video, a folder of images, or one image. Give `mask`, `boxes`, `points` or none of them; without
            any, the region is found from what the first frame changes.
        boxes: Rectangles `(left, top, width, height)` in source pixels of frame 0, or tables of `config.KeyBox`.
        points: Pixels `(x, y)` of frame 0 on the object, or tables of `config.KeyPoint`.
        references: Edited later frames to learn from, by source frame number.
        anchors: Edited later frames that the result must show as they are, by source frame number.
        model: A name from `lora-edit models`, a folder, a file, or a Hub id.
        preset: `standard`, `fast` or `low-vram`.
        prompt: Replaces the captions; models without a text encoder ignore it.
        seed: Seed of all random numbers.
        settings: Further settings by section, such as `{"training": {"motion_steps": 200}}`; docs/settings.md lists them.

    Raises:
        SettingsError: With the first invalid setting.
    """

    def list_keyframes(frames: Mapping[int, AnyPath] | None) -> list[dict[str, Any]]:
        return [{"frame": number, "image": _absolute(path)} for number, path in (frames or {}).items()]

    tables: dict[str, Any] = {
        "input": {
            "source": _absolute(source),
            "first_frame": _absolute(first_frame),
            "boxes": [dict(zip(("x", "y", "width", "height"), box, strict=True)) if isinstance(box, tuple) else dict(box) for box in boxes],
            "points": [dict(zip(("x", "y"), point, strict=True)) if isinstance(point, tuple) else dict(point) for point in points],
            "references": list_keyframes(references),
            "anchors": list_keyframes(anchors),
        }
        | ({} if mask is None else {"mask": _absolute(mask)}),
        "model": model,
        "preset": preset,
        "prompt": prompt,
        "seed": seed,
    }
    return resolve_settings(merge_tables(tables, settings or {}))


def edit(
    source: AnyPath | EditSettings,
    first_frame: AnyPath | None = None,
    output: AnyPath = "edited.mp4",
    *,
    run: AnyPath | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> Result:
    """Edit a clip: check, train, generate, composite, write.

    `source` and `first_frame` with the keyword `options` of `build_settings`, or ready `EditSettings`. The run folder `run` (by default
    `<output stem>.run` beside the output) keeps what the edit needs to be resumed and repeated.

    Raises `InputError` and its subclasses for invalid input, before any model is loaded.
    """
    settings, target = _resolve_settings(source, first_frame, options), Path(output)
    protect_inputs(target, settings.input.list_files())
    folder = default_run_folder(target) if run is None else Path(run)
    return pipeline.edit(settings, target, folder, reporter or SilentReporter(), overwrite)


def preview(
    source: AnyPath | EditSettings,
    first_frame: AnyPath | None = None,
    output: AnyPath = "preview.mp4",
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> Path:
    """Predict the edited clip without a diffusion model and write it; arguments as in `edit`. Returns the output's path."""
    settings, target = _resolve_settings(source, first_frame, options), Path(output)
    protect_inputs(target, settings.input.list_files())
    return pipeline.preview(settings, target, reporter or SilentReporter(), overwrite)


def train(
    run: AnyPath,
    source: AnyPath | EditSettings | None = None,
    first_frame: AnyPath | None = None,
    *,
    reporter: Reporter | None = None,
    **options: Any,
) -> Run:
    """Train the LoRA of a run folder, which is created first when a `source` is given (arguments as in `edit`).

    Training resumes where an earlier call stopped. Returns the run.
    """
    reporter = reporter or SilentReporter()
    if source is not None:
        pipeline.create_run(_resolve_settings(source, first_frame, options), Path(run), reporter)
    pipeline.train(Path(run), reporter)
    return Run(Path(run))


def generate(
    run: AnyPath,
    output: AnyPath | None = None,
    *,
    seed: int | None = None,
    first_frame: AnyPath | None = None,
    loras: Sequence[tuple[AnyPath, float]] | None = None,
    model: str | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Result:
    """Generate another result with the LoRA of a run folder, which is trained first if needed.

    Another `seed`, edited `first_frame`, other people's `loras` with their strengths, or another checkpoint of the same `model` replace the
    run's own. Without an `output`, the result is written to the next free name in the run's `samples/`.
    """
    return pipeline.generate(
        Path(run),
        reporter or SilentReporter(),
        None if output is None else Path(output),
        overwrite,
        seed,
        None if first_frame is None else Path(first_frame),
        None if loras is None else [(Path(file), strength) for file, strength in loras],
        model,
    )


def evaluate(
    result: AnyPath,
    source: AnyPath,
    *,
    truth: AnyPath | None = None,
    mask: AnyPath | None = None,
    first_frame: AnyPath | None = None,
    metrics: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure a result: its region against `truth` (or the source), its background against the source, flicker and leak.

    `metrics` names further, learned metrics (`clip_score`, `input_similarity`, `deqa`, `lpips`), whose networks must be on this machine.
    Returns the values by name, as `lora-edit evaluate --json` prints them.
    """
    learned_metrics.require_first_frame(tuple(metrics), first_frame is not None)
    optional = [None if path is None else Path(path) for path in (truth, mask, first_frame)]
    files = read_evaluation_files(Path(result), Path(source), *optional)
    networks = learned_metrics.load_networks(tuple(metrics))
    return files.measure(files.result, networks, metrics)


def verify(file: AnyPath, *, source: AnyPath | None = None, trusted: AnyPath | None = None) -> VerificationReport:
    """Check the signed manifest of a result: a file, a folder of frames, or a run folder.

    `source` is a file to compare with the claimed source; `trusted` a certificate (PEM) of a signer or an authority that you trust. A
    manifest that is missing or does not hold raises nothing: see `state` and `reason` of the report. Raises `VideoError` for a file that
    cannot be read.
    """
    optional = [None if path is None else Path(path) for path in (source, trusted)]
    report = verify_file(Path(file), *optional)
    return replace(report, watermark=search_watermark(report.file))


def _resolve_settings(source: AnyPath | EditSettings | None, first_frame: AnyPath | None, options: Mapping[str, Any]) -> EditSettings:
    if isinstance(source, EditSettings):
        if first_frame is not None or options:
            raise SettingsError("EditSettings are complete; leave out first_frame and the other options, or give a source instead")
        return source
    if source is None or first_frame is None:
        raise SettingsError("first_frame is missing; give the edited first frame of the clip")
    return build_settings(source, first_frame, **options)


def _absolute(path: AnyPath) -> str:
    # A run folder may be used from another working directory later.
    return str(Path(path).absolute())
