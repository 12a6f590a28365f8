"""Defaults of the masks module that other places repeat."""

from __future__ import annotations

from typing import get_type_hints

from lora_edit.cli.options import RegionOptions
from lora_edit.masks.settings import MaskSettings


def test_help_of_expand_states_the_default() -> None:
    """The command's help repeats the number, because importing the settings would slow down `--help`."""
    (option,) = get_type_hints(RegionOptions, include_extras=True)["expand"].__metadata__
    assert option.help == f"Growth of the region; default {MaskSettings().expand}."
