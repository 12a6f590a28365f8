"""The user study of `study`: a page for participants, and the tally of their answers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from lora_edit.cli.progress import open_reporter
from lora_edit.errors import SettingsError

USER_STUDY_NAME = "users"
USER_STUDY_PANEL = "Study `users`"
USER_STUDY_OPTIONS = {"cases", "tally"}
KEY_FILE = "key.json"
"""Key of a user study, in its output folder; same as `studies.users.answer_key.KEY_FILE`."""

Cases = Annotated[
    Path | None,
    typer.Option(
        "--cases",
        metavar="PATH",
        help="Use your own clips, without a true edit, instead of random scenes: a list cases.jsonl (docs/evaluation.md). Study `users`: "
        "a folder with one subfolder per clip, each with source.mp4, first_frame.png and a METHOD.mp4 for each method.",
    ),
]
Answers = Annotated[
    list[Path] | None,
    typer.Option(
        "--tally",
        metavar="PATH",
        help="Tally answers with the key in --output: the JSON file of a participant, or a folder of such files; repeatable.",
        rich_help_panel=USER_STUDY_PANEL,
    ),
]


def run_user_study(cases: Path | None, answers: list[Path] | None, output: Path | None, other_options: list[str]) -> Path:
    """Build the page of a user study, or tally its answers. Returns the path of the page or of the table.

    `other_options` are options that the user study lacks; the first of them raises `SettingsError`.
    """
    from lora_edit.studies.registry import USER_STUDY_TARGETS

    if other_options:
        raise SettingsError(
            f"--{other_options[0].replace('assignments', 'set').replace('_', '-')}: is not an option of `study {USER_STUDY_NAME}`; "
            f"leave it out"
        )
    if (cases is None) == (not answers):
        raise SettingsError(
            f"`study {USER_STUDY_NAME}` needs one of --cases FOLDER, to build the page, and --tally PATH, to tally the answers"
        )
    if output is None:
        raise SettingsError("the folder of the study is missing; give --output FOLDER")
    if cases and not cases.is_dir():
        raise SettingsError(f"--cases {cases}: no such folder; give a folder with one subfolder per clip")
    if answers and not (output / KEY_FILE).is_file():
        raise SettingsError(f"{output / KEY_FILE}: no such file; give the --output folder of `study {USER_STUDY_NAME} --cases`")
    module, _, function = USER_STUDY_TARGETS[0 if cases else 1].partition(":")
    with open_reporter() as reporter:
        path: Path = getattr(import_module(module), function)(cases or answers, output, reporter)
        if cases:
            reporter.note(f"give the folder {path.parent} to participants; keep {output / KEY_FILE} private, as it names the methods")
    return path
