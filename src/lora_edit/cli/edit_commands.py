"""The subcommands that make videos: edit, new, train, generate, preview."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_edit.cli.error_handling import CommandState, print_error
from lora_edit.cli.options import (
    LORA_HELP,
    LORA_METAVAR,
    RESULT_PANEL,
    EditOptions,
    Json,
    NewOptions,
    Overwrite,
    PreviewOptions,
    Threads,
    make_typer_command,
    parse_loras,
)
from lora_edit.cli.output import emit_json
from lora_edit.cli.progress import NotePrinter, format_bytes, format_seconds, open_compute_reporter

if TYPE_CHECKING:
    from lora_edit.config import EditSettings
    from lora_edit.pipeline import Result


@make_typer_command(EditOptions)
def edit(state: CommandState, options: EditOptions) -> None:
    """Edit a clip: check, train, generate, composite, write. Prints the path of the result."""
    from lora_edit.cli.resolve import check_output_path, choose_run_folder, resolve_run_settings
    from lora_edit.run import Run, check_run_folder
    from lora_edit.takes import owns_output

    settings = resolve_run_settings(options)
    folder = choose_run_folder(options.run, options.output)
    overwrite = options.overwrite or owns_output(Run(folder), options.output)
    check_output_path(options.output, settings.input.list_files(), settings.video.codec, overwrite=overwrite)
    check_run_folder(folder, settings)
    state.run, state.output = folder, options.output
    with open_compute_reporter(options.threads) as reporter:
        from lora_edit import pipeline

        result = pipeline.edit(settings, options.output, folder, reporter, options.overwrite)
        _print_notes(result, reporter)
    _emit_result(result, json=options.json)


@make_typer_command(NewOptions)
def new(state: CommandState, options: NewOptions) -> None:
    """Create the run folder and check everything without training. Prints the folder, and the time and memory that the edit needs."""
    from lora_edit.cli.model_cards import describe_missing_download, get_missing_gigabytes
    from lora_edit.cli.resolve import check_output_path, choose_run_folder, resolve_plan_settings
    from lora_edit.run import check_run_folder

    settings = resolve_plan_settings(options)
    missing_gigabytes = get_missing_gigabytes(settings.model)
    folder = choose_run_folder(options.run, options.output)
    if options.output is not None:
        check_output_path(options.output, settings.input.list_files(), settings.video.codec, overwrite=options.overwrite)
    check_run_folder(folder, settings)
    state.output = options.output or folder
    with open_compute_reporter(options.threads) as reporter:
        from lora_edit import pipeline

        if missing_gigabytes:
            reporter.note(
                f"{settings.model} is not downloaded, so this is an estimate only; "
                f"{describe_missing_download(settings.model, missing_gigabytes)}"
            )
        if options.output is not None:
            from lora_edit.video.write import check_output

            check_output(options.output, settings.video.codec, overwrite=options.overwrite)
        clip = pipeline.check(settings, reporter)
        from lora_edit.video.write import describe_output_losses

        losses = () if options.output is None else describe_output_losses(options.output, clip.video, settings.video.codec)
        for text in (*clip.notes, *losses):
            reporter.note(text)
        estimate = pipeline.estimate(settings, clip)
        state.run = pipeline.create_run(settings, folder, reporter, clip).folder
        requirements = {
            "seconds_train": round(estimate.seconds_train, 1),
            "seconds_generate": round(estimate.seconds_generate, 1),
            "memory_bytes": int(estimate.memory_bytes),
            "canvas": str(estimate.canvas_size),
            "windows": estimate.windows,
            "host_bytes": estimate.host_bytes,
            "blocks_to_swap": estimate.offload_plan.blocks_to_swap if estimate.offload_plan else 0,
            "blocks": estimate.blocks,
            "download_bytes": round(1e9 * missing_gigabytes),
        }
        if not options.json:
            host_memory = f" on the device and {format_bytes(estimate.host_bytes)} of main memory" if estimate.host_bytes else ""
            reporter.note(
                f"about {format_seconds(estimate.seconds_train)} to train, {format_seconds(estimate.seconds_generate)} to generate and "
                f"{format_bytes(estimate.memory_bytes)} of memory{host_memory}; "
                f"the model runs at {estimate.canvas_size} in {estimate.windows} window(s){estimate.describe_offloading()}"
            )
    if options.json:
        video = clip.video
        facts = {"run": folder, "num_frames": video.num_frames, "size": str(video.size), "fps": float(video.fps)}
        emit_json({**facts, "estimate": requirements, "notes": clip.notes})
    else:
        typer.echo(folder)


def train(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of `edit` or `new`.", show_default=False)],
    threads: Threads = None,
) -> None:
    """Train the LoRA of a run: motion, then appearance. Resumes interrupted training. Prints the run folder."""
    require_run(run)
    ctx.obj.run = run
    with open_compute_reporter(threads) as reporter:
        from lora_edit import pipeline

        pipeline.train(run, reporter)
    typer.echo(run)


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Options of `generate`."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of `edit` or `new`.", show_default=False)]
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Another seed than that of the run; has little effect on tiny.", min=0)
    ] = None
    first_frame: Annotated[
        Path | None, typer.Option("--first-frame", metavar="IMAGE", help="Another edited first frame than that of the run.")
    ] = None
    lora: Annotated[list[str], typer.Option("--lora", metavar=LORA_METAVAR, help=f"{LORA_HELP} Replaces those of the run.")] = field(
        default_factory=list
    )
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME@PLACE", help="Another checkpoint of the model of the run; also a .gguf file."),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="OUT.mp4", help="Default: the next free name in samples/ of the run.", rich_help_panel=RESULT_PANEL
        ),
    ] = None
    overwrite: Overwrite = False
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compute the run's result again and compare it with the recorded hashes; writes nothing into the run."
        ),
    ] = False
    threads: Threads = None
    json: Json = False


@make_typer_command(GenerateOptions)
def generate(state: CommandState, options: GenerateOptions) -> None:
    """Sample and composite again with the LoRA of a run; finishes its training first. Prints the path of the result."""
    if options.check:
        _check_result(options)
        return
    from lora_edit.cli.model_cards import require_model
    from lora_edit.cli.resolve import check_output_path, make_model_absolute, require_files

    settings = require_run(options.run)
    state.run = options.run
    loras = parse_loras(options.lora) or None
    require_files(options.first_frame, *(file for file, _ in loras or ()))
    if options.output is not None:
        check_output_path(options.output, [options.first_frame], settings.video.codec, overwrite=options.overwrite)
    model = options.model and make_model_absolute(options.model)
    if model:
        require_model(model, for_training=False)
    with open_compute_reporter(options.threads) as reporter:
        from lora_edit import pipeline

        if options.seed is not None and settings.model == "tiny":
            reporter.note(
                "the embedded model gives nearly the same result for every seed; another first frame or a later edited frame changes more"
            )
        result = pipeline.generate(
            options.run, reporter, options.output, options.overwrite, options.seed, options.first_frame, loras, model
        )
        _print_notes(result, reporter)
    _emit_result(result, json=options.json)


def _check_result(options: GenerateOptions) -> None:
    """Compute the run's result again and print whether it is the same. Exits with code 1 if it is not."""
    from lora_edit.cli.resolve import require_no_options

    require_no_options(
        "--check",
        {
            "--seed": options.seed, "--first-frame": options.first_frame, "--lora": options.lora or None, "--model": options.model,
            "--output": options.output, "--overwrite": options.overwrite or None,
        },
    )  # fmt: skip
    require_run(options.run)
    from lora_edit.reproduction import read_num_threads

    with open_compute_reporter(options.threads or read_num_threads(options.run)) as reporter:
        from lora_edit import pipeline

        outcome = pipeline.check_result(options.run, reporter)
        for text in outcome.environment_differences:
            reporter.note(f"{text}, which may change the last bits of the result")
    if options.json:
        emit_json(
            {
                "run": options.run,
                "equal": outcome.is_equal,
                "num_frames": outcome.num_frames,
                "differences": outcome.differences,
                "environment_differences": outcome.environment_differences,
            }
        )
    elif outcome.is_equal:
        typer.echo(f"{options.run}: the LoRA, the generated clip and all {outcome.num_frames} frames are the recorded ones")
    if not outcome.is_equal:
        print_error(f"{options.run}: the result is not reproduced: {'; '.join(outcome.differences)}")
        raise typer.Exit(1)


@make_typer_command(PreviewOptions)
def preview(state: CommandState, options: PreviewOptions) -> None:
    """Predict the edited clip in seconds, without a diffusion model: the prediction that the model gets as its input."""
    from lora_edit.cli.resolve import check_output_path, resolve_preview_settings

    settings = resolve_preview_settings(options)
    check_output_path(options.output, settings.input.list_files(), settings.video.codec, overwrite=options.overwrite)
    state.output = options.output
    with open_compute_reporter(options.threads) as reporter:
        from lora_edit import pipeline

        path = pipeline.preview(settings, options.output, reporter, options.overwrite)
    typer.echo(path)


def require_run(folder: Path) -> EditSettings:
    """Read the settings of a run without loading heavy libraries. Raises `RunError` if `folder` is not a run folder."""
    from lora_edit.run import Run

    return Run(folder).read_settings()


def _print_notes(result: Result, reporter: NotePrinter) -> None:
    for text in result.notes:
        reporter.note(text)


def _emit_result(result: Result, *, json: bool) -> None:
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
