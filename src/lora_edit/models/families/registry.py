"""The models of this version: the records of all families, in the order in which they are listed.

Sizes of downloads are approximate: parameters times bytes. A new family adds its folder, whose `record.py` lists `MODELS`, and its name
here.
"""

from __future__ import annotations

from importlib import import_module
from itertools import chain

from lora_edit.models.record import ModelRecord

FAMILIES = (
    "embedded",
    "wan",
    "wan_ti2v",
    "ltx",
    "ltx2",
    "hunyuan",
)
"""Folders of `lora_edit.models.families`. Records are light: importing them loads no library."""

KNOWN_MODELS: tuple[ModelRecord, ...] = tuple(
    chain.from_iterable(import_module(f"{__package__}.{name}.record").MODELS for name in FAMILIES)
)
