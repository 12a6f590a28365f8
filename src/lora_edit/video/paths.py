"""Check of a path given by the user; imports no library, so that it can run before heavy imports."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lora_edit.errors import VideoError


def stat_path(path: Path) -> os.stat_result:
    """Get the status of a file or folder. Raises `VideoError` where it is missing or access is denied."""
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file or folder; check the path") from error
    except ValueError as error:  # a zero byte
        raise VideoError(f"{str(path)!r}: is no path; check it") from error
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); allow reading it, or copy it to another place") from error


def protect_inputs(output: Path, inputs: Iterable[Path]) -> None:
    """Raise `VideoError` when `output` is one of the input files, so that nothing of the input is overwritten."""
    for path in inputs:
        if path.exists() and output.exists() and output.samefile(path):
            raise VideoError(f"{output}: is part of the input; choose another --output")
