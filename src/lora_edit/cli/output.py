"""Output on stdout: the plain result, or exactly one JSON object."""

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
    """Print names and values in two aligned columns."""
    width = max(map(len, record), default=0)
    for name, value in record.items():
        typer.echo(f"{name:<{width}}  {replace_control_characters(format_value(value))}")


def emit_columns(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print records side by side in aligned columns, headed by their names. A dash stands for a key that a record lacks."""
    keys = list(dict.fromkeys(key for record in records.values() for key in record))
    table = [
        ["", *records],
        *([key, *(replace_control_characters(format_value(record.get(key))) for record in records.values())] for key in keys),
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        typer.echo("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def format_value(value: Any) -> str:
    """Format a value for one line of text; None becomes a dash."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    return str(value)


def replace_control_characters(text: str) -> str:
    """Replace control characters, as text of a file from an unknown source could otherwise control the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def convert_to_json(value: Any) -> Any:
    """Convert a value to JSON types. Infinity and NaN, which JSON lacks, become None."""
    if isinstance(value, Mapping):
        return {str(key): convert_to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [convert_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)
