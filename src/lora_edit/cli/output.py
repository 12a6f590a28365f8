"""What goes to stdout: the bare result, or exactly one JSON object."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import typer


def emit_json(record: Mapping[str, Any]) -> None:
    """Print the record as one JSON object."""
    typer.echo(json.dumps(convert_to_json(record), indent=2, allow_nan=False))


def emit_rows(record: Mapping[str, Any]) -> None:
    """Print names and values as aligned lines."""
    width = max(map(len, record), default=0)
    for name, value in record.items():
        typer.echo(f"{name:<{width}}  {replace_control_characters(format_value(value))}")


def emit_columns(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print records side by side as aligned lines, their names above: every key of any of them, a dash where one lacks it."""
    keys = list(dict.fromkeys(key for record in records.values() for key in record))
    table = [
        ["", *records],
        *([key, *(replace_control_characters(format_value(record.get(key))) for record in records.values())] for key in keys),
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        typer.echo("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def format_value(value: Any) -> str:
    """A value in a line of text."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    return str(value)


def replace_control_characters(text: str) -> str:
    """Text from a file of unknown origin without the control characters that could steer a terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def convert_to_json(value: Any) -> Any:
    """The value in JSON's own types; JSON knows neither infinity nor NaN, so these are null."""
    if isinstance(value, Mapping):
        return {str(key): convert_to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [convert_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)
