"""Marks of the settings: a flag and a field of the page come from the settings' own annotations."""

from __future__ import annotations

import subprocess
import sys

from lora_edit.config import list_marked_settings
from lora_edit.masks.settings import MaskSettings
from lora_edit.setting_fields import Flag, PageField


def test_flag_is_declared_by_its_setting() -> None:
    flags = list_marked_settings(Flag)
    assert {name: (flag.flag, default) for name, (flag, default) in flags.items()} == {
        "masks.expand": ("--expand", MaskSettings().expand),
        "masks.segmenter": ("--segmenter", "embedded"),
        "provenance.sign": ("--no-sign", True),
        "provenance.certificate": ("--sign-cert", None),
        "provenance.key": ("--sign-key", None),
    }


def test_page_fields_keep_their_order() -> None:
    assert list(list_marked_settings(PageField)) == [
        "training.motion_steps", "training.appearance_steps", "training.learning_rate", "lora.rank", "generation.steps",
        "generation.guidance_scale",
    ]  # fmt: skip


def test_command_shows_the_flag_and_its_default() -> None:
    shown = subprocess.run([sys.executable, "-m", "lora_edit", "edit", "--help"], capture_output=True, text=True, check=True).stdout
    assert "--expand" in shown and "Growth of the region" in shown and "0.1" in shown
