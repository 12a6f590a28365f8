"""Settings of conditioning."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Conditioning = Literal["mask-aware", "first-frame", "all-zeros", "all-ones", "feature-level"]


class MethodSettings(BaseModel):
    """Variant of the method; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    conditioning: Conditioning = Field("mask-aware", description="mask-aware is the method; the others are the paper's baselines")
    appearance_mask: Literal["scheduled", "first-frame", "after-first"] = Field(
        "scheduled", description="appendix B.3; after-first (ours): after the edited first frame, conditioned as in generation"
    )
    hint: Literal["none", "box", "flow", "explained"] = Field(
        "none",
        description="content of the hidden pixels (ours): nothing, frame 0 moved with the box or the flow, or the predicted edit",
    )
    hint_confidence: bool = Field(True, description="give the model the hint's expected error")
