"""How a command ends when it does not end well: one line for the person, and the exit code that scripts rely on.

2: the input is at fault.  1: we are; the traceback goes to the run's log.  130: interrupted; the run can be resumed.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from lora_edit.errors import InputError, RegionError, VideoError

INTERRUPTED_MESSAGE = "interrupted; run the same command again to resume"

# What the machine refuses for reasons that its owner can change.
FILESYSTEM_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EDQUOT})


@dataclass
class CommandState:
    """One call of the command; `run` is the run folder that it works on, `output` where its result goes, once these are known."""

    run: Path | None = None
    output: Path | None = None


class CommandGroup(TyperGroup):
    """The verbs, with every failure turned into one line and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Parse and run. Misuse of the command line ends here, whatever its kind."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except Exception as error:
            if not isinstance(error, get_usage_error_class()):
                raise
            print_error(format_usage_error(error))
            code = 2
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. Failures of the work end here."""
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
        except Exception as error:
            raise typer.Exit(report_error(error, ctx.obj)) from error


def print_error(text: str) -> None:
    """One line on stderr, whatever line breaks the text has."""
    typer.echo(f"error: {' '.join(text.split())}", err=True)


def save_region_image(error: InputError, state: CommandState) -> str:
    """Where the picture of a region that misses the edit was written, as the end of the message: beside the output or the run folder."""
    place = state.output or state.run
    if not isinstance(error, RegionError) or place is None:
        return ""
    from lora_edit.video.sheet import save_image

    file = place.with_name(f"{place.stem}-region.png")
    try:
        save_image(file, error.image)
    except VideoError:  # the region is the fault that matters
        return ""
    return f"; region and change are drawn in {file}"


def report_error(error: Exception, state: CommandState) -> int:
    """Tell of an error that is no `InputError`, and return the exit code."""
    from pydantic import ValidationError

    if isinstance(error, OSError) and error.errno in FILESYSTEM_ERRNOS:
        place = f"{error.filename}: " if error.filename else ""
        print_error(f"{place}{os.strerror(error.errno or 0).lower()}; choose a place that can be written and has room")
        return 2
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        print_error(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()} (given: {first['input']!r})")
        return 2
    log = write_traceback(error, state)
    words = " ".join(str(error).split())
    print_error(f"{type(error).__name__}: {words[:300]} (the traceback is in {log})")
    return 1


def write_traceback(error: Exception, state: CommandState) -> Path:
    """Append the traceback to the run's `log.txt`, or to a new file where there is no run folder; returns the file."""
    text = "".join(traceback.format_exception(error))
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    if state.run is not None and state.run.is_dir():
        try:
            with (state.run / "log.txt").open("a", encoding="utf-8") as file:
                file.write(f"{stamp} failed\n{text}")
            return state.run / "log.txt"
        except OSError:
            pass  # a full or read-only disk may be what failed in the first place
    descriptor, name = tempfile.mkstemp(prefix="lora-edit-", suffix=".log")
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{stamp} failed\n{text}")
    return Path(name)


def get_usage_error_class() -> type[Exception]:
    """The class of what Typer raises for a command line that cannot be read; its import path differs between Typer's versions."""
    kind = typer.BadParameter.__bases__[0]
    assert issubclass(kind, Exception)
    return kind


def format_usage_error(error: Any) -> str:
    """What is wrong with the command line, and where its help is."""
    command = error.ctx.command_path if error.ctx else "lora-edit"
    return f"{error.format_message().rstrip('.')}; see `{command} --help`"
