"""The `lora-edit` command. Subcommands import heavy libraries when they run, so that `--help` and input errors take no time."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from lora_edit.cli import edit_commands, frame_commands, inspect_commands, mask_command, study_command, ui_command, verify_command
from lora_edit.cli.error_handling import CommandGroup
from lora_edit.threads import set_passive_wait_policy

app = typer.Typer(
    name="lora-edit",
    cls=CommandGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(value: bool) -> None:
    """Print the version and exit."""
    if value:
        from importlib.metadata import version

        typer.echo(f"lora-edit {version('lora-edit')}")
        raise typer.Exit()


@app.callback()
def lora_edit(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version)] = False,
) -> None:
    """Edit the first frame of a clip; a LoRA trained on that clip propagates the edit to all other frames.

    Results go to stdout; progress, notes and errors to stderr. Exit codes: 0 success, 2 invalid input, 1 internal error or a result
    that `generate --check` does not reproduce, 130 interrupted.
    """


app.command("edit")(edit_commands.edit)
app.command("mask")(mask_command.mask)
app.command("frame")(frame_commands.frame)
app.command("edit-frame")(frame_commands.edit_frame)
app.command("new")(edit_commands.new)
app.command("train")(edit_commands.train)
app.command("generate")(edit_commands.generate)
app.command("preview")(edit_commands.preview)
app.command("evaluate")(inspect_commands.evaluate)
app.command("study")(study_command.study)
app.command("models")(inspect_commands.models)
app.command("import")(inspect_commands.import_lora)
app.command("export")(inspect_commands.export)
app.command("verify")(verify_command.verify)
app.command("ui")(ui_command.ui)


def main() -> None:
    """Run the command line; entry point of the console script."""
    # Warnings of libraries are for developers: users see notes and errors only, unless `-W` or PYTHONWARNINGS enables warnings.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    set_passive_wait_policy()  # before a subcommand loads torch or OpenCV
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    app(prog_name="lora-edit")


if __name__ == "__main__":
    main()
