"""Settings of the video module."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Codec = Literal["h264", "h264-420", "h264-444", "prores", "ffv1"]


class VideoSettings(BaseModel):
    """Settings for the edited range of the source and for writing the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    start: int = Field(0, ge=0, description="first source frame of the range")
    frames: int | None = Field(None, ge=1, description="number of source frames; to the end of the clip by default")
    fps: float | None = Field(
        None,
        ge=0.1,
        le=1000,
        allow_inf_nan=False,
        description="play the range at this rate instead of the source's; drops sound and chapters",
    )
    codec: Codec = Field(
        "h264",
        description="h264 (the source's chroma format; 4:2:0 for folders of pictures), h264-420 (supported by every player), h264-444, "
        "prores or ffv1; the frames are always saved losslessly too",
    )
