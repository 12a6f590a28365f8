"""The verbs that make videos: edit, new, train, generate, preview."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_edit.cli.failures import Session
from lora_edit.cli.options import (
    LORA,
    LORA_HELP,
    RESULT,
    EditOptions,
    Json,
    NewOptions,
    Overwrite,
    PreviewOptions,
    Threads,
    parse_loras,
    takes,
)
from lora_edit.cli.output import emit_json
from lora_edit.cli.progress import Notes, computing, format_bytes, format_seconds

if TYPE_CHECKING:
    from lora_edit.config import EditSettings
    from lora_edit.pipeline import Result


@takes(EditOptions)
def edit(session: Session, options: EditOptions) -> None:
    """Edit a clip: check, train, generate, composite, write. Prints the result's path."""
    from lora_edit.cli.resolve import protect_input, run_folder, run_settings

    settings = run_settings(options)
    protect_input(options.output, settings, options.overwrite)
    session.run, session.output = run_folder(options.run, options.output), options.output
    with computing(options.threads) as reporter:
        from lora_edit import pipeline

        result = pipeline.edit(settings, options.output, session.run, reporter, options.overwrite)
        _tell(result, reporter)
    _emit(result, json=options.json)


@takes(NewOptions)
def new(session: Session, options: NewOptions) -> None:
    """Make the run folder and check everything, but train nothing. Prints the folder, and what the edit would need."""
    from lora_edit.cli.known_models import absent_gigabytes
    from lora_edit.cli.resolve import plan_settings, protect_input, run_folder

    settings = plan_settings(options)
    absent = absent_gigabytes(settings.model)
    folder = run_folder(options.run, options.output)
    session.output = options.output or folder
    with computing(options.threads) as reporter:
        from lora_edit import pipeline

        if absent:
            download = f"`lora-edit models --download {settings.model}` gets it"
            reporter.note(f"{settings.model} is not here, so this is a plan: about {absent:g} GB to download; {download}")
        if options.output is not None:
            from lora_edit.video.write import check_output

            protect_input(options.output, settings)
            check_output(options.output, settings.video.codec, overwrite=options.overwrite)
        clip = pipeline.check(settings, reporter)
        from lora_edit.video.write import output_notes

        lost = () if options.output is None else output_notes(options.output, clip.video, settings.video.codec)
        for text in (*clip.notes, *lost):
            reporter.note(text)
        estimate = pipeline.estimate(settings, clip)
        session.run = pipeline.create_run(settings, folder, reporter, clip).folder
        needs = {
            "seconds_train": round(estimate.seconds_train, 1),
            "seconds_generate": round(estimate.seconds_generate, 1),
            "memory_bytes": int(estimate.memory_bytes),
            "canvas": str(estimate.canvas),
            "windows": estimate.windows,
            "host_bytes": estimate.host_bytes,
            "blocks_to_swap": estimate.place.swapped if estimate.place else 0,
            "blocks": estimate.blocks,
            "download_bytes": round(1e9 * absent),
        }
        if not options.json:
            beside = f" on the device and {format_bytes(estimate.host_bytes)} of main memory" if estimate.host_bytes else ""
            reporter.note(
                f"about {format_seconds(estimate.seconds_train)} to train, {format_seconds(estimate.seconds_generate)} to generate and "
                f"{format_bytes(estimate.memory_bytes)} of memory{beside}; "
                f"the model works at {estimate.canvas} in {estimate.windows} window(s){estimate.waiting()}"
            )
    if options.json:
        video = clip.video
        facts = {"run": folder, "num_frames": video.num_frames, "size": str(video.size), "fps": float(video.fps)}
        emit_json({**facts, "estimate": needs, "notes": clip.notes})
    else:
        typer.echo(folder)


def train(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `edit` or `new` made.", show_default=False)],
    threads: Threads = None,
) -> None:
    """Train the LoRA of a run: motion, then appearance. Goes on where an earlier call stopped. Prints the run folder."""
    require_run(run)
    ctx.obj.run = run
    with computing(threads) as reporter:
        from lora_edit import pipeline

        pipeline.train(run, reporter)
    typer.echo(run)


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Options of `generate`."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `edit` or `new` made.", show_default=False)]
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Another seed than the run's; hardly changes what tiny draws.", min=0)
    ] = None
    first_frame: Annotated[
        Path | None, typer.Option("--first-frame", metavar="IMAGE", help="Another edited first frame than the run's.")
    ] = None
    lora: Annotated[list[str], typer.Option("--lora", metavar=LORA, help=f"{LORA_HELP} Replaces the run's.")] = field(default_factory=list)
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME@PLACE", help="Another checkpoint of the run's model; also a .gguf file."),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="OUT.mp4", help="Default: the next free name in the run's samples/.", rich_help_panel=RESULT),
    ] = None
    overwrite: Overwrite = False
    threads: Threads = None
    json: Json = False


@takes(GenerateOptions)
def generate(session: Session, options: GenerateOptions) -> None:
    """Sample and composite again with a run's LoRA (trained first where that is unfinished). Prints the result's path."""
    from lora_edit.cli.known_models import require_model
    from lora_edit.cli.resolve import absolute_model, require_files

    settings = require_run(options.run)
    session.run = options.run
    loras = parse_loras(options.lora) or None
    require_files(options.first_frame, *(file for file, _ in loras or ()))
    model = options.model and absolute_model(options.model)
    if model:
        require_model(model, trained=False)
    with computing(options.threads) as reporter:
        from lora_edit import pipeline

        if options.seed is not None and settings.model == "tiny":
            reporter.note(
                "the embedded model draws nearly the same with every seed; another first frame or a later edited frame changes more"
            )
        result = pipeline.generate(
            options.run, reporter, options.output, options.overwrite, options.seed, options.first_frame, loras, model
        )
        _tell(result, reporter)
    _emit(result, json=options.json)


@takes(PreviewOptions)
def preview(session: Session, options: PreviewOptions) -> None:
    """Predict the edited clip in seconds, without a diffusion model: what the model is shown before it draws."""
    from lora_edit.cli.resolve import preview_settings, protect_input

    settings = preview_settings(options)
    protect_input(options.output, settings, options.overwrite)
    session.output = options.output
    with computing(options.threads) as reporter:
        from lora_edit import pipeline

        path = pipeline.preview(settings, options.output, reporter, options.overwrite)
    typer.echo(path)


def require_run(folder: Path) -> EditSettings:
    """A run's settings. Raises `RunError` for what is no run folder, before anything heavy is loaded."""
    from lora_edit.run import Run

    return Run(folder).settings()


def _tell(result: Result, reporter: Notes) -> None:
    for text in result.notes:
        reporter.note(text)


def _emit(result: Result, *, json: bool) -> None:
    if not json:
        typer.echo(result.output)
        return
    record: dict[str, Any] = {
        "output": result.output,
        "run": result.run,
        "num_frames": result.num_frames,
        "size": str(result.size),
        "fps": float(result.fps),
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
        "notes": result.notes,
    }
    emit_json(record)
