"""The `lora-edit` command: a thin door. Everything heavy is imported by the verb that needs it, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from lora_edit.cli import editing, framing, inspecting, masking, serving, studying
from lora_edit.cli.failures import Verbs
from lora_edit.threads import wait_passively

app = typer.Typer(
    name="lora-edit",
    cls=Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"lora-edit {version('lora-edit')}")
        raise typer.Exit()


@app.callback()
def lora_edit(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version)] = False,
) -> None:
    """Edit the first frame of a clip; a LoRA fitted to that clip carries the edit through the rest.

    Results go to stdout; progress, notes and errors to stderr. Exit codes: 0 done, 2 the input is at fault, 1 our fault, 130 interrupted.
    """


app.command("edit")(editing.edit)
app.command("mask")(masking.mask)
app.command("frame")(framing.frame)
app.command("edit-frame")(framing.edit_frame)
app.command("new")(editing.new)
app.command("train")(editing.train)
app.command("generate")(editing.generate)
app.command("preview")(editing.preview)
app.command("evaluate")(inspecting.evaluate)
app.command("study")(studying.study)
app.command("models")(inspecting.models)
app.command("import")(inspecting.import_lora)
app.command("export")(inspecting.export)
app.command("ui")(serving.ui)


def main() -> None:
    """Entry point of the console script."""
    # Libraries' warnings are for programmers; a person sees our notes and errors only, unless Python was told otherwise.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    wait_passively()  # before a verb loads what computes
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    app(prog_name="lora-edit")


if __name__ == "__main__":
    main()
