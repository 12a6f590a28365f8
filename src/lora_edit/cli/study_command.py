"""The subcommand that runs the experiments of the paper: study."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from lora_edit.cli.error_handling import CommandState
from lora_edit.cli.model_cards import require_model
from lora_edit.cli.options import RESULT_PANEL, Threads, make_typer_command
from lora_edit.cli.progress import open_compute_reporter
from lora_edit.cli.user_study import USER_STUDY_NAME, USER_STUDY_OPTIONS, Answers, Cases, run_user_study
from lora_edit.config import parse_assignment
from lora_edit.errors import SettingsError
from lora_edit.models.families.vace.record import check_vace

# A name, as no package imports the studies: they are experiments with this package, and nothing depends on them.
REGISTRY_MODULE = "lora_edit.studies.registry"

DEFAULT_SCENES = 4
"""Default number of scenes."""


class SceneHalf(StrEnum):
    """Which scenes of a folder to use."""

    SEEN = "seen"
    UNSEEN = "unseen"
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of `study`."""

    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The study; see --list.", show_default=False)] = None
    list_names: Annotated[bool, typer.Option("--list", help="List the studies.")] = False
    scenes: Annotated[
        int | None, typer.Option("--scenes", metavar="N", help="Number of scenes; default: 4, or all of --scenes-from.", min=1)
    ] = None
    scenes_from: Annotated[
        Path | None,
        typer.Option("--scenes-from", metavar="FOLDER", help="Use the scenes of this folder (scenes.jsonl) instead of random ones."),
    ] = None
    half: Annotated[SceneHalf | None, typer.Option("--half", help="Which of --scenes-from; default: seen.")] = None
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Number of seeds; each has its own random scenes.", min=1)] = 1
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="See `lora-edit models`.")] = "tiny"
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.SETTING=VALUE", help="A setting for all rows, as in `edit`.")
    ] = None
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Number of parallel processes.", min=1)] = 1
    vace: Annotated[
        str | None, typer.Option("--vace", metavar="FOLDER|HUB-ID", help="A VACE model to compare with in `methods`.", show_default=False)
    ] = None
    threads: Threads = None
    cases: Cases = None
    tally: Answers = None
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="Folder for results and table.", rich_help_panel=RESULT_PANEL)
    ] = None


@make_typer_command(StudyOptions)
def study(state: CommandState, options: StudyOptions) -> None:
    """Run an experiment of the paper. Prints the path of its table."""
    studies = load_studies()
    descriptions: dict[str, str] = getattr(import_module(REGISTRY_MODULE), "DESCRIPTIONS", {})
    if options.list_names:
        for name in (*studies, USER_STUDY_NAME):
            typer.echo(f"{name:<20} {descriptions.get(name, '')}".rstrip())
        return
    names = ", ".join((*studies, USER_STUDY_NAME))
    if options.name is None:
        raise SettingsError(f"NAME is missing; this version has the studies {names}")
    if options.name == USER_STUDY_NAME:
        typer.echo(
            run_user_study(
                options.cases,
                options.tally,
                options.output,
                [flag for flag in list_changed_options(options) if flag not in USER_STUDY_OPTIONS],
            )
        )
        return
    if options.name not in studies:
        raise SettingsError(f"study {options.name!r} is unknown; this version has {names}")
    if options.tally:
        raise SettingsError(f"--tally is an option of `study {USER_STUDY_NAME}` only; leave it out")
    check_scenes(options)
    if options.output is None:
        raise SettingsError("the folder for results is missing; give --output FOLDER")
    require_model(options.model)
    if options.vace:
        if options.name != "methods":
            raise SettingsError("--vace is an option of `study methods` only; leave it out")
        check_vace(options.vace)
    assignments = options.assignments or []
    for text in assignments:
        parse_assignment(text)
    state.run = options.output
    registry = import_module(REGISTRY_MODULE)
    module, _, runner = (registry.CASES_RUNNER if options.cases else registry.RUNNER).partition(":")
    with open_compute_reporter(options.threads) as reporter:
        table = getattr(import_module(module), runner)(
            options.name,
            studies[options.name],
            options.output,
            options.cases or select_scenes(options),
            options.seeds,
            reporter,
            model=options.model,
            workers=options.workers,
            base_assignments=assignments,
            vace=options.vace or "",
        )
    typer.echo(table)


def check_scenes(options: StudyOptions) -> None:
    """Raise `SettingsError` for conflicting or missing sources of scenes."""
    for flag, value in {"--scenes": options.scenes, "--scenes-from": options.scenes_from}.items():
        if options.cases and value is not None:
            raise SettingsError(f"{flag} and --cases are both given; leave one of them out")
    if options.half and not options.scenes_from:
        raise SettingsError("--half needs --scenes-from; leave it out")
    if options.cases and not options.cases.is_file():
        raise SettingsError(f"--cases {options.cases}: no such file; give a text file with one JSON object per line")
    if options.scenes_from and not (options.scenes_from / "scenes.jsonl").is_file():
        raise SettingsError(f"--scenes-from {options.scenes_from}: has no scenes.jsonl; benchmarks/real_scenes.py writes such a folder")


def select_scenes(options: StudyOptions) -> object:
    """Return the number of random scenes, or the scenes of a folder, for the runner of the studies."""
    if options.scenes_from is None:
        return options.scenes or DEFAULT_SCENES
    module, _, name = import_module(REGISTRY_MODULE).SCENE_FOLDER.partition(":")
    return getattr(import_module(module), name)(options.scenes_from, (options.half or SceneHalf.SEEN).value, options.scenes)


def list_changed_options(options: StudyOptions) -> list[str]:
    """List the fields, other than NAME and --output, with values other than their defaults."""
    values = [(each.name, getattr(options, each.name), each.default) for each in fields(options)]
    return [name for name, value, default in values if name not in ("name", "output") and value not in (default, [])]


def load_studies() -> dict[str, str]:
    """Load the table of study name -> `module:STUDY`. Raises `SettingsError` if this installation has no studies."""
    try:
        studies: dict[str, str] = import_module(REGISTRY_MODULE).STUDIES
    except ModuleNotFoundError as error:
        if error.name != REGISTRY_MODULE:
            raise
        raise SettingsError("studies are not in this version; nothing to run") from error
    return studies
