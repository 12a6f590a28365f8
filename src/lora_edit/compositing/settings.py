"""Settings of compositing."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CompositingSettings(BaseModel):
    """How the generated region is composited into the source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    enabled: bool = Field(True, description="outside the feathered region every pixel is the source's")
    feather: float = Field(0.02, ge=0, le=0.5, description="width of the blend inside the region's edge, share of the frame's shorter side")
    match_colour: bool = Field(True, description="remove the autoencoder's colour shift, measured on pixels with a known result")
    detail: bool = Field(
        False, description="in the region, detail above the model's resolution, from the predicted edit where the model agrees (ours)"
    )
    crop: bool = Field(True, description="run the model on a crop around the edit instead of the whole frame")
    zoom: bool = Field(
        True, description="enlarge that crop to the model's full resolution; if false, it keeps the frame's scale, which costs less"
    )
    context: float = Field(0.35, ge=0, description="margin of that crop around the region, share of the region's size per side")
