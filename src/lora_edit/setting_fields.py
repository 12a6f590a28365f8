"""Marks of settings that have a flag of their own or a field on the page.

A section's settings class declares both in the annotation, so that such a setting is written in one place:

    expand: Annotated[float, Flag("--expand", "SHARE", "Growth of the region")] = Field(0.1, ge=0)

The command builds its options from `Flag`, the page its fields from `PageField` (`config.list_marked_settings`). Imports no library.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """An option of the commands that read a clip and its region: `flag METAVAR`, with one line of help; the default is added to it.

    A setting that is on or off has an empty metavar: its flag, `--no-SETTING` where the default is on, negates the default. `value_type` is
    the type of the value where the default, None, does not show it.
    """

    flag: str
    metavar: str
    help: str
    value_type: type | None = None


@dataclass(frozen=True)
class PageField:
    """A number field on the page: label, a line of information, and the range that it accepts.

    An integer minimum means that the setting is an integer.
    """

    label: str
    info: str
    minimum: float
    maximum: float
