"""The subcommands for results and files: evaluate, models, import, export."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lora_edit.cli.error_handling import CommandState
from lora_edit.cli.model_cards import download_model, find_models
from lora_edit.cli.options import Json, Overwrite, Threads, make_typer_command
from lora_edit.cli.output import emit_columns, emit_json, emit_rows
from lora_edit.cli.progress import open_compute_reporter
from lora_edit.errors import RunError, SettingsError
from lora_edit.evaluation.registry import DEFAULT_METRICS as METRICS
from lora_edit.evaluation.registry import LEARNED_METRICS, KeyList
from lora_edit.models.families.vace.record import check_vace
from lora_edit.reporting import Reporter

if TYPE_CHECKING:
    import torch

    from lora_edit.inputs import Clip
    from lora_edit.types import EditMask, Video
    from lora_edit.vace_baseline import VaceBaseline

METRIC_LIST = f"{KeyList((*METRICS, *LEARNED_METRICS))}"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `evaluate`."""

    result: Annotated[Path, typer.Argument(metavar="RESULT", help="The edited clip; best as lossless frames.", show_default=False)]
    source: Annotated[Path, typer.Option("--source", metavar="SOURCE", help="The source, with the same range of frames.")]
    truth: Annotated[Path | None, typer.Option("--truth", metavar="T", help="The ground truth of the edited clip.")] = None
    mask: Annotated[Path | None, typer.Option("--mask", metavar="M", help="The edit region (white), such as RUN/masks.")] = None
    first_frame: Annotated[Path | None, typer.Option("--first-frame", metavar="IMAGE", help="The edited first frame.")] = None
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="LIST", help=f"Some of {METRIC_LIST}; {KeyList(LEARNED_METRICS)} need a download.")
    ] = None
    vace: Annotated[
        str | None, typer.Option("--vace", metavar="FOLDER|HUB-ID", help="Also edit the clip with a VACE model, and measure its result.")
    ] = None
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also measure three baselines of the same edit: flow warp, colour map, moving layer.")
    ] = False
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Prompt for --vace; default: a caption.")] = None
    threads: Threads = None
    json: Json = False


@make_typer_command(EvaluateOptions)
def evaluate(state: CommandState, options: EvaluateOptions) -> None:
    """Measure a result: its region against the truth (or the source), its background against the source, and flicker."""
    from lora_edit.cli.resolve import require_files

    metrics = parse_metrics(options.metrics)
    if options.vace and not (options.mask and options.first_frame):
        raise SettingsError("--vace edits the source where the mask is white; give --mask M and --first-frame IMAGE too")
    if options.prompt is not None and not options.vace:
        raise SettingsError("--prompt belongs to --vace; leave it out")
    if options.baselines and not (options.truth and options.mask and options.first_frame):
        raise SettingsError(
            "--baselines start from the first frame and are compared with the truth; give --truth T, --mask M, --first-frame IMAGE"
        )
    require_files(options.result, options.source, options.truth, options.mask, options.first_frame)
    if "clip_score" in metrics and options.first_frame is None:
        raise SettingsError("clip_score compares with the edited first frame; give it with --first-frame IMAGE")
    if options.vace:
        check_vace(options.vace)
    with open_compute_reporter(options.threads) as reporter:
        record, baselines, vace = _measure_clips(options, metrics, reporter)
    if options.json:
        emit_json(record | ({"baselines": baselines} if baselines else {}) | ({"vace": vace} if vace else {}))
    elif baselines or vace:
        columns = {"result": {**record, "output": options.result}} | baselines | ({"VACE": vace} if vace else {})
        emit_columns({name: _format_infinite_psnr(column) for name, column in columns.items()})
    else:
        emit_rows(_format_infinite_psnr(record))


MetricRecord = dict[str, Any]
"""Metrics of one clip by name."""


def _measure_clips(
    options: EvaluateOptions, metrics: tuple[str, ...], reporter: Reporter
) -> tuple[MetricRecord, dict[str, MetricRecord], MetricRecord]:
    """Compute the metrics of the result, of the baselines by name, and of the VACE clip, which include its path.

    The latter two are empty unless the options request them.
    """
    from lora_edit.evaluation import learned_metrics
    from lora_edit.measurement import read_evaluation_files

    learned_metrics.require_first_frame(metrics, options.first_frame is not None)
    baseline = _find_vace_baseline(options)
    files = read_evaluation_files(options.result, options.source, options.truth, options.mask, options.first_frame)
    vace_clip = _build_vace_clip(baseline, files.source, files.mask, files.first_frame)
    # Before the long work, so that a missing network is reported at once.
    networks = learned_metrics.load_networks(metrics)

    def compute_metrics(clip: Video) -> MetricRecord:
        return _filter_metrics(files.measure(clip, networks, metrics), metrics)

    record = compute_metrics(files.result)
    for text in files.mask.notes if files.mask else ():
        reporter.note(text)
    baseline_clips = _build_baselines(files.source, files.first_frame, files.mask, reporter) if options.baselines else {}
    baselines = {name: compute_metrics(clip) for name, clip in baseline_clips.items()}
    if baseline is None or vace_clip is None:
        return record, baselines, {}
    from lora_edit.vace_baseline import generate_vace_baseline

    output = generate_vace_baseline(baseline, vace_clip, options.prompt or "", reporter)
    return record, baselines, {**compute_metrics(output), "model": baseline.record.name, "output": baseline.output}


def _build_baselines(source: Video, first_frame: torch.Tensor | None, mask: EditMask | None, reporter: Reporter) -> dict[str, Video]:
    """Build the clips of the classical baselines by name. Raises `MaskError` if the first frame has another shape."""
    from lora_edit.masks.change_detection import fit_first_frame
    from lora_edit.propagation.baselines import BASELINES

    assert first_frame is not None and mask is not None
    image, note = fit_first_frame(first_frame, source.size)
    if note:
        reporter.note(note)
    return {name: replace(source, frames=build(source.frames, image, mask)) for name, build in BASELINES.items()}


def _format_infinite_psnr(record: dict[str, Any]) -> dict[str, Any]:
    """Format a record for the terminal: an infinite PSNR, None in the record, becomes `exact (inf)`."""
    infinite = {"region_psnr": "region_psnr" in record, "background_psnr": bool(record.get("background_exact"))}
    exact = {name: "exact (inf)" for name, is_infinite in infinite.items() if is_infinite and record.get(name) is None}
    return {**record, **exact}


def _find_vace_baseline(options: EvaluateOptions) -> VaceBaseline | None:
    if not options.vace:
        return None
    from lora_edit.vace_baseline import find_vace_baseline

    return find_vace_baseline(options.vace, options.result)


def _build_vace_clip(baseline: VaceBaseline | None, source: Video, mask: EditMask | None, first_frame: torch.Tensor | None) -> Clip | None:
    if baseline is None or mask is None or first_frame is None:
        return None
    from lora_edit.vace_baseline import build_vace_clip

    return build_vace_clip(source, mask, first_frame)


def _filter_metrics(record: dict[str, Any], metrics: tuple[str, ...]) -> dict[str, Any]:
    filtered = {key: value for key, value in record.items() if key not in METRICS or key in metrics}
    if "background_psnr" not in metrics:
        filtered.pop("background_exact", None)
    return filtered


def parse_metrics(text: str | None) -> tuple[str, ...]:
    """Parse a comma-separated list of metrics; None is all that need no download. Raises `SettingsError` for an unknown one."""
    if text is None:
        return METRICS
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in (*METRICS, *LEARNED_METRICS)]
    if unknown or not names:
        fault = f"unknown metric {', '.join(unknown)}" if unknown else "the list is empty"
        raise SettingsError(f"--metrics {text}: {fault}; choose from {METRIC_LIST}")
    return names


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model; default: all.", show_default=False)] = None,
    download: Annotated[bool, typer.Option("--download", help="Download the missing files of the model from the Hub; resumes.")] = False,
    json: Json = False,
) -> None:
    """List the models with their licence, requirements and download state."""
    if download and name is None:
        raise SettingsError("--download: the name of the model is missing; give a NAME (`lora-edit models` lists them)")
    cards = [card.to_json() for card in ([download_model(name)] if download and name else find_models(name))]
    if json:
        emit_json({"models": cards})
    elif name is not None:
        emit_rows(cards[0])
    else:
        columns = ("name", "license", "frames", "size", "memory", "weights")
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for card in cards:
            table.add_row(*(str(card[column]) for column in columns))
        Console().print(table)


def import_lora(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A LoRA as a .safetensors file.", show_default=False)], json: Json = False
) -> None:
    """Describe a LoRA file: tensors, rank, layers, metadata. Loads no weights and runs no code of the file."""
    from lora_edit.cli.resolve import require_files

    require_files(file)
    from lora_edit.cli.lora_file import describe_lora

    facts = describe_lora(file)
    if json:
        emit_json(facts.to_json())
        return
    record = facts.to_json()
    metadata = record.pop("metadata")
    assert isinstance(metadata, dict)
    emit_rows(record | {f"metadata {key}": _shorten_text(value) for key, value in metadata.items()})


class LoraFormat(StrEnum):
    """File layouts of `export`."""

    COMFYUI = "comfyui"
    DIFFUSERS = "diffusers"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `export`."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a trained LoRA.", show_default=False)]
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="Output file; its name ends in .safetensors.")]
    format: Annotated[LoraFormat, typer.Option("--format", help="diffusers pipelines and diffusion-pipe read comfyui as well.")] = (
        LoraFormat.COMFYUI
    )
    overwrite: Overwrite = False


@make_typer_command(ExportOptions)
def export(state: CommandState, options: ExportOptions) -> None:
    """Write the LoRA of a run for other programs, one file for each expert of the model. Prints the paths."""
    from lora_edit.run import Run

    run = Run(options.run)
    run.read_settings()
    files = run.list_lora_files()
    if not files:
        raise RunError(f"{options.run}: has no trained LoRA yet; train it with `lora-edit train {options.run}`")
    from lora_edit.loras.files import export_lora

    for file in files:
        output = options.output.with_stem(options.output.stem + file.stem.removeprefix("edit"))
        export_lora(file, output, options.format.value, overwrite=options.overwrite)
        typer.echo(output)


def _shorten_text(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters; --json has all)"
