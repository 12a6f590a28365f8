"""The verb that repeats the paper's experiments."""

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

# By name, because no room imports the studies: they are experiments on the package, not a part that others build on.
REGISTRY_MODULE = "lora_edit.studies.registry"

DEFAULT_SCENES = 4
"""Scenes that a study draws unless told otherwise."""


class SceneHalf(StrEnum):
    """Which scenes of a folder."""

    SEEN = "seen"
    UNSEEN = "unseen"
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of `study`."""

    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The study; see --list.", show_default=False)] = None
    list_names: Annotated[bool, typer.Option("--list", help="List the studies.")] = False
    scenes: Annotated[
        int | None, typer.Option("--scenes", metavar="N", help="How many scenes: 4 unless given, or all of --scenes-from.", min=1)
    ] = None
    scenes_from: Annotated[
        Path | None, typer.Option("--scenes-from", metavar="FOLDER", help="Scenes of this folder (scenes.jsonl) instead of drawn ones.")
    ] = None
    half: Annotated[SceneHalf | None, typer.Option("--half", help="Of --scenes-from; seen unless given.")] = None
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="How many seeds; each draws its own scenes.", min=1)] = 1
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="See `lora-edit models`.")] = "tiny"
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="ROOM.SETTING=VALUE", help="A setting of every row, as in `edit`.")
    ] = None
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="How many at a time, each in a process of its own.", min=1)] = 1
    vace: Annotated[
        str | None, typer.Option("--vace", metavar="FOLDER|HUB-ID", help="A VACE to compare with in `methods`.", show_default=False)
    ] = None
    threads: Threads = None
    cases: Cases = None
    tally: Answers = None
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="Where results and table are kept.", rich_help_panel=RESULT_PANEL)
    ] = None


@make_typer_command(StudyOptions)
def study(state: CommandState, options: StudyOptions) -> None:
    """Run one of the paper's experiments. Prints the path of its table."""
    studies = load_studies()
    about: dict[str, str] = getattr(import_module(REGISTRY_MODULE), "DESCRIPTIONS", {})
    if options.list_names:
        for name in (*studies, USER_STUDY_NAME):
            typer.echo(f"{name:<20} {about.get(name, '')}".rstrip())
        return
    known = ", ".join((*studies, USER_STUDY_NAME))
    if options.name is None:
        raise SettingsError(f"NAME is missing; this version has the studies {known}")
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
        raise SettingsError(f"study {options.name!r} is unknown; this version has {known}")
    if options.tally:
        raise SettingsError(f"--tally belongs to `study {USER_STUDY_NAME}`; leave it out")
    check_scenes(options)
    if options.output is None:
        raise SettingsError("where results go is missing; give --output FOLDER")
    require_model(options.model)
    if options.vace:
        if options.name != "methods":
            raise SettingsError("--vace belongs to `study methods`; leave it out")
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
    """Raises `SettingsError` for options that say differently where scenes come from."""
    for flag, value in {"--scenes": options.scenes, "--scenes-from": options.scenes_from}.items():
        if options.cases and value is not None:
            raise SettingsError(f"{flag} and --cases are both given; leave one of them out")
    if options.half and not options.scenes_from:
        raise SettingsError("--half belongs to --scenes-from; leave it out")


def select_scenes(options: StudyOptions) -> object:
    """How many scenes are drawn, or those of a folder, as the studies' runner takes them."""
    if options.scenes_from is None:
        return options.scenes or DEFAULT_SCENES
    module, _, name = import_module(REGISTRY_MODULE).SCENE_FOLDER.partition(":")
    return getattr(import_module(module), name)(options.scenes_from, (options.half or SceneHalf.SEEN).value, options.scenes)


def list_changed_options(options: StudyOptions) -> list[str]:
    """The options, other than NAME and --output, that are not at their defaults."""
    named = [(each.name, getattr(options, each.name), each.default) for each in fields(options)]
    return [name for name, value, default in named if name not in ("name", "output") and value not in (default, [])]


def load_studies() -> dict[str, str]:
    """Study name -> `module:function`. Raises `SettingsError` when this installation has none."""
    try:
        studies: dict[str, str] = import_module(REGISTRY_MODULE).STUDIES
    except ModuleNotFoundError as error:
        if error.name != REGISTRY_MODULE:
            raise
        raise SettingsError("studies are not in this version; nothing to run") from error
    return studies
