"""The user study's part of `study`: a page for participants, and the count of what they answered."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from lora_edit.cli.progress import open_reporter
from lora_edit.errors import SettingsError

USER_STUDY_NAME = "users"
USER_STUDY_PANEL = "Study `users`: asks people"
USER_STUDY_OPTIONS = {"cases", "tally"}

Cases = Annotated[
    Path | None,
    typer.Option(
        "--cases",
        metavar="PATH",
        help="Try your own clips, without a true edit, instead of drawn scenes: a list cases.jsonl (docs/evaluation.md). Study `users`: "
        "a folder with one subfolder per clip, each with source.mp4, first_frame.png and a METHOD.mp4 per method compared.",
    ),
]
Answers = Annotated[
    list[Path] | None,
    typer.Option(
        "--tally",
        metavar="PATH",
        help="Count answers against the key in --output: a participant's JSON file, or a folder of them; can be given several times.",
        rich_help_panel=USER_STUDY_PANEL,
    ),
]


def run_user_study(cases: Path | None, answers: list[Path] | None, output: Path | None, other_options: list[str]) -> Path:
    """Make the page of a user study or count its answers; returns the page or the table. `others` are options that mean nothing here."""
    from lora_edit.studies.registry import USER_STUDY_TARGETS as TARGETS

    if other_options:
        raise SettingsError(
            f"--{other_options[0].replace('assignments', 'set').replace('_', '-')}: means nothing to `study {USER_STUDY_NAME}`; "
            f"leave it out"
        )
    if (cases is None) == (not answers):
        raise SettingsError(
            f"`study {USER_STUDY_NAME}` needs one of --cases FOLDER, to make the page, and --tally PATH, to count the answers"
        )
    if output is None:
        raise SettingsError("where the study is kept is missing; give --output FOLDER")
    module, _, function = TARGETS[0 if cases else 1].partition(":")
    with open_reporter() as reporter:
        made: Path = getattr(import_module(module), function)(cases or answers, output, reporter)
        if cases:
            reporter.note(f"hand out the folder {made.parent}; keep {output / 'key.json'} to yourself, it says whose result is whose")
    return made
