"""A small study for tests, in a separate module because worker processes import studies by name."""

from __future__ import annotations

from dataclasses import replace

from lora_edit.studies.experiments import SNAPPING
from lora_edit.types import Size

SMALL = replace(SNAPPING, size=Size(32, 32), frame_counts=(5,))
TARGET = "studies.small_study:SMALL"
