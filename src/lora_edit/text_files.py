"""Reading of text and JSON files that may be damaged, huge, or no files at all."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from lora_edit.errors import InputError
from lora_edit.limits import MAX_TEXT_BYTES


def read_text_file(path: Path) -> str:
    """Read a UTF-8 file. Raises `InputError` for a pipe, a device or a file above `MAX_TEXT_BYTES`; `OSError` and `UnicodeDecodeError`."""
    return read_bytes_file(path).decode("utf-8")


def read_bytes_file(path: Path) -> bytes:
    """Read a file. Raises `InputError` for a pipe, a device or a file above `MAX_TEXT_BYTES`; `OSError`."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a pipe or device, which may never end; save it to a file first")
    if status.st_size > MAX_TEXT_BYTES:
        raise InputError(f"{path}: has {status.st_size:,} bytes, {MAX_TEXT_BYTES:,} at most; give a text file")
    return path.read_bytes()


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises `ValueError` for anything else, also for values that are nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json_object(path: Path, error_class: type[InputError], remedy: str) -> dict[str, Any]:
    """Read a JSON object from a file. Raises `error_class`, with `remedy` at the end of its message, for any other content."""
    try:
        record = parse_json(read_bytes_file(path))
    except (OSError, ValueError) as error:
        raise error_class(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); {remedy}") from error
    if not isinstance(record, dict):
        raise error_class(f"{path}: holds no JSON object; {remedy}")
    return record
