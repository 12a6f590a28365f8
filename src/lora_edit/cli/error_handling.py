"""Error handling of the command: every error becomes one line on stderr and an exit code that scripts rely on.

2: invalid input, a full or read-only disk, too little memory. 1: internal error, whose traceback goes to the log of the run, or a result
that `generate --check` does not reproduce. 130: interrupted; the run can be resumed.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from lora_edit.cli.output import replace_control_characters
from lora_edit.errors import InputError, NonFiniteError, RegionError, VideoError, explain_system_error

INTERRUPTED_MESSAGE = "interrupted; run the same command again to resume"

MAX_ERROR = 1000
"""Characters of an error's line; names and values in it can be of any length."""


@dataclass
class CommandState:
    """State of one call of the command: its run folder `run` and the path `output` of its result. Both are None until known."""

    run: Path | None = None
    output: Path | None = None


class CommandGroup(TyperGroup):
    """Command group that turns every exception into one line on stderr and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Parse the command line and run the subcommand. Usage errors of all kinds exit with code 2."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except Exception as error:
            if not isinstance(error, get_usage_error_class()):
                raise
            print_error(format_usage_error(error))
            code = 2
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand. Its exceptions become exit codes."""
        ctx.obj = CommandState()
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError, get_usage_error_class()):
            raise
        except KeyboardInterrupt as error:
            typer.echo(INTERRUPTED_MESSAGE, err=True)
            raise typer.Exit(130) from error
        except InputError as error:
            print_error(f"{error}{save_region_image(error, ctx.obj)}")
            raise typer.Exit(2) from error
        except NonFiniteError as error:  # by a setting or a LoRA that the model does not tolerate
            print_error(str(error))
            raise typer.Exit(2) from error
        except Exception as error:
            raise typer.Exit(report_error(error, ctx.obj)) from error


def print_error(text: str) -> None:
    """Print `text` to stderr as one line: line breaks become spaces, control characters are replaced, a long text is cut in the middle."""
    line = replace_control_characters(" ".join(text.split()))
    if len(line) > MAX_ERROR:
        line = f"{line[: MAX_ERROR // 2]} ... {line[-MAX_ERROR // 2 :]}"
    typer.echo(f"error: {line}", err=True)


def save_region_image(error: InputError, state: CommandState) -> str:
    """Write the image of a `RegionError` beside the output or the run folder. Returns the end of the message, which names the file.

    Returns an empty string for other errors and where the image cannot be written.
    """
    path = state.output or state.run
    if not isinstance(error, RegionError) or path is None:
        return ""
    from lora_edit.video.sheet import save_image

    file = path.with_name(f"{path.stem}-region.png")
    try:
        save_image(file, error.image)
    except VideoError:  # the error of the region matters more
        return ""
    return f"; {file} shows the region and the change"


def report_error(error: Exception, state: CommandState) -> int:
    """Print an exception other than `InputError`. Returns the exit code."""
    from pydantic import ValidationError

    if explanation := explain_system_error(error):
        print_error(explanation)
        return 2
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        print_error(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()} (given: {first['input']!r})")
        return 2
    log = write_traceback(error, state)
    message = " ".join(str(error).split())
    print_error(f"{type(error).__name__}: {message[:300]} ({f'the traceback is in {log}' if log else 'no log could be written'})")
    return 1


def write_traceback(error: Exception, state: CommandState) -> Path | None:
    """Append the traceback to `log.txt` in the run folder, or to a temporary file if there is no run folder.

    Returns the path; None where neither can be written.
    """
    text = "".join(traceback.format_exception(error))
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    if state.run is not None and state.run.is_dir():
        try:
            with (state.run / "log.txt").open("a", encoding="utf-8") as file:
                file.write(f"{stamp} failed\n{text}")
            return state.run / "log.txt"
        except OSError:
            pass  # a full or read-only disk may be the cause of the error
    try:
        descriptor, name = tempfile.mkstemp(prefix="lora-edit-", suffix=".log")
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{stamp} failed\n{text}")
    except OSError:
        return None
    return Path(name)


def get_usage_error_class() -> type[Exception]:
    """Return the class of Typer's usage errors, whose import path depends on Typer's version."""
    usage_error = typer.BadParameter.__bases__[0]
    assert issubclass(usage_error, Exception)
    return usage_error


def format_usage_error(error: Any) -> str:
    """Format a usage error: the fault, and the command that prints the help."""
    command = error.ctx.command_path if error.ctx else "lora-edit"
    message = error.format_message().rstrip(".").replace(": Value error, ", ": ")  # pydantic's prefix
    return f"{message}; see `{command} --help`"
