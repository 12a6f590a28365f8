"""Settings of the compositing room."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CompositingSettings(BaseModel):
    """How the generated region returns into the source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    enabled: bool = Field(True, description="outside the feathered region every pixel is the source's")
    feather: float = Field(0.02, ge=0, le=0.5, description="width of the blend inside the region's edge, share of the frame's shorter side")
    match_colour: bool = Field(True, description="remove the autoencoder's colour shift, measured where the answer is known")
    detail: bool = Field(
        False, description="in the region, detail above the model's resolution, from the explained edit where the model agrees (ours)"
    )
    crop: bool = Field(True, description="let the model work on a window around the edit instead of the whole frame")
    zoom: bool = Field(
        True, description="enlarge that window to the model's full resolution; without, it stays at the frame's own scale, for less work"
    )
    context: float = Field(0.35, ge=0, description="how much surrounding that window includes, share of the region's size per side")
