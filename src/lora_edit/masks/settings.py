"""Settings of the masks module."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lora_edit.setting_fields import Flag

MaskShape = Literal["box", "tight", "noisy", "as-is"]
RegionShape = Literal["auto", "box", "tight", "noisy", "as-is"]


class MaskSettings(BaseModel):
    """How the given mask becomes the edit region."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    shape: RegionShape = Field(
        "box",
        description="loose rectangle (default, paper B.2), tight, 7x7 noisy, as it is, or auto: by what was given and what the edit does",
    )
    expand: Annotated[float, Flag("--expand", "SHARE", "Growth of the region")] = Field(
        0.1, ge=0, le=2, description="share of its width and height by which a box grows in all"
    )
    smooth: int = Field(5, ge=1, description="frames over which a box's path is smoothed; 1 = off")
    segmenter: Annotated[str, Flag("--segmenter", "embedded|sam2:FOLDER", "Segmenter of --point and --segment")] = Field(
        "embedded", description="embedded, or sam2:FOLDER with a SAM 2, EdgeTAM or SAM 3 model (docs/masks.md)"
    )
    check: bool = Field(True, description="stop before training when the region leaves out most of the edit, or was lost on the way")
    snap: bool = Field(True, description="grow the region outward to the model's token grid and over its latent frame groups")
