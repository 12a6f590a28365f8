"""Settings of the generation room."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GenerationSettings(BaseModel):
    """How the edited clip is sampled."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = Field(30, ge=1, description="Euler steps")
    guidance_scale: float = Field(5.0, ge=0, description="classifier-free guidance; 1 = off")
    shift: float = Field(5.0, gt=0, description="flow-matching time shift")
    overlap: int = Field(5, ge=1, description="frames that consecutive windows of a long clip share")
    lora_strength: float = Field(1.0, ge=0, le=4, description="how strongly the LoRA acts")
    negative_prompt: str = Field("", description="what the result should not show")
