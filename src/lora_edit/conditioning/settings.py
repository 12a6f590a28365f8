"""Settings of the conditioning room."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Conditioning = Literal["mask-aware", "first-frame", "all-zeros", "all-ones", "feature-level"]


class MethodSettings(BaseModel):
    """Which variant of the method runs; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    conditioning: Conditioning = Field("mask-aware", description="mask-aware is the method; the others are the paper's baselines")
    appearance_mask: Literal["scheduled", "first-frame", "after-first"] = Field(
        "scheduled", description="appendix B.3; after-first (ours): behind the edited first frame, as generation asks for it"
    )
    hint: Literal["none", "box", "flow", "explained"] = Field(
        "none",
        description="what stands where pixels are withheld (ours): nothing, frame 0 moved with the box or the flow, the explained edit",
    )
    hint_confidence: bool = Field(True, description="tell the model how far to trust the hint")
