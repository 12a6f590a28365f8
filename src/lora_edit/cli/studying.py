"""The verb that repeats the paper's experiments."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from lora_edit.cli.failures import Session
from lora_edit.cli.options import RESULT, takes
from lora_edit.cli.progress import reporting
from lora_edit.errors import SettingsError

# By name, because no room imports the studies: they are experiments on the package, not a part that others build on.
REGISTRY = "lora_edit.studies.registry"


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of `study`."""

    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The study; see --list.", show_default=False)] = None
    list_names: Annotated[bool, typer.Option("--list", help="List the studies.")] = False
    scenes: Annotated[int, typer.Option("--scenes", metavar="N", help="How many scenes.", min=1)] = 4
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="How many seeds per scene.", min=1)] = 1
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="Where results and table are kept.", rich_help_panel=RESULT)
    ] = None


@takes(StudyOptions)
def study(session: Session, options: StudyOptions) -> None:
    """Run one of the paper's experiments. Prints the path of its table."""
    studies = load_studies()
    if options.list_names:
        for name in studies:
            typer.echo(name)
        return
    known = ", ".join(studies)
    if options.name is None:
        raise SettingsError(f"NAME is missing; this version has the studies {known}")
    if options.name not in studies:
        raise SettingsError(f"study {options.name!r} is unknown; this version has {known}")
    if options.output is None:
        raise SettingsError("where results go is missing; give --output FOLDER")
    session.run = options.output
    module, _, function = studies[options.name].partition(":")
    with reporting() as reporter:
        table = getattr(import_module(module), function)(options.output, options.scenes, options.seeds, reporter)
    typer.echo(table)


def load_studies() -> dict[str, str]:
    """Study name -> `module:function`. Raises `SettingsError` when this installation has none."""
    try:
        studies: dict[str, str] = import_module(REGISTRY).STUDIES
    except ModuleNotFoundError as error:
        if error.name != REGISTRY:
            raise
        raise SettingsError("studies are not in this version; nothing to run") from error
    return studies
