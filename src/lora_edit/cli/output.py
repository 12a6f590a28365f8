"""What goes to stdout: the bare result, or exactly one JSON object."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import typer


def emit_json(record: Mapping[str, Any]) -> None:
    """Print the record as one JSON object."""
    typer.echo(json.dumps(plain(record), indent=2, allow_nan=False))


def emit_rows(record: Mapping[str, Any]) -> None:
    """Print names and values as aligned lines."""
    width = max(map(len, record), default=0)
    for name, value in record.items():
        typer.echo(f"{name:<{width}}  {printable(readable(value))}")


def emit_columns(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print records side by side as aligned lines, their names above: every key of any of them, a dash where one lacks it."""
    keys = list(dict.fromkeys(key for record in records.values() for key in record))
    table = [["", *records], *([key, *(printable(readable(record.get(key))) for record in records.values())] for key in keys)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        typer.echo("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def readable(value: Any) -> str:
    """A value in a line of text."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(readable, value))
    return str(value)


def printable(text: str) -> str:
    """Text from a file of unknown origin without the control characters that could steer a terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def plain(value: Any) -> Any:
    """The value in JSON's own types; JSON knows neither infinity nor NaN, so these are null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)
