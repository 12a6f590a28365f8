"""Settings of generation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lora_edit.setting_fields import PageField


class StackedLora(BaseModel):
    """Another LoRA in addition to the edit's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: Path
    strength: float = Field(1.0, ge=-4, le=4)

    @field_validator("file")
    @classmethod
    def make_absolute(cls, file: Path) -> Path:
        """Make the path absolute: later commands on the run may have another working directory."""
        return file.absolute()


class GenerationSettings(BaseModel):
    """How the edited clip is sampled."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: Annotated[int, PageField("Sampling steps", "Denoising steps of the result", 1, 1000)] = Field(
        30, ge=1, description="sampling steps"
    )
    sampler: Literal["euler", "unipc"] = Field("euler", description="Euler steps as the reference, or UniPC as Wan's own pipelines")
    guidance_scale: Annotated[float, PageField("Guidance", "1 is off", 0.0, 100.0)] = Field(
        5.0, ge=0, description="classifier-free guidance; 1 = off"
    )
    shift: float = Field(5.0, gt=0, description="flow-matching time shift")
    window: int = Field(
        0, ge=0, description="frames generated at a time; the value of training.window for a LoRA trained with one; 0 = the model's maximum"
    )
    overlap: int = Field(5, ge=1, description="frames that consecutive windows of a long clip share")
    attention: str = Field(
        "native", description="attention backend, by its name in diffusers; torch's own replaces it where its output is not finite"
    )
    cache: float = Field(0.0, ge=0, le=1, description="skip blocks when the first one's output changed by less (FirstBlockCache); 0 = off")
    compile: bool = Field(False, description="compile the model's repeated blocks before sampling, unless some are in main memory")
    lora_strength: float = Field(1.0, ge=0, le=4, description="how strongly the LoRA acts")
    loras: tuple[StackedLora, ...] = Field((), description="other LoRAs, in generation only: `[{file = '...', strength = 1.0}]`")
    negative_prompt: str = Field("", description="what the result should not show")

    def list_lora_paths(self) -> tuple[tuple[Path, float], ...]:
        """Return the files and strengths of `loras`."""
        return tuple((each.file, each.strength) for each in self.loras)
