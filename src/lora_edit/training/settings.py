"""Settings of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationInfo, field_validator

from lora_edit.setting_fields import PageField


class TrainingSettings(BaseModel):
    """Training of the LoRA on one clip (paper 4.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    motion_steps: Annotated[int, PageField("Training steps", "More steps learn the motion better and take longer", 0, 100_000)] = Field(
        100, ge=0, description="steps on the masked source (paper 3.3.1)"
    )
    appearance_steps: Annotated[int, PageField("Steps on edited later frames", "Used only with edited later frames", 0, 100_000)] = Field(
        100, ge=0, description="further steps once later frames are edited (paper 3.3.2)"
    )
    learning_rate: Annotated[float, PageField("Learning rate", "Size of an optimizer step", 1e-7, 1.0)] = Field(
        1e-4, gt=0, description="AdamW learning rate"
    )
    schedule: Literal["constant", "linear"] = Field(
        "constant", description="learning rate over a stage: constant, or falling linearly to zero"
    )
    batch_size: int = Field(1, ge=1, description="noise draws per step")
    window: int = Field(0, ge=0, description="frames per training window (appendix C uses 9); 0 = the model's maximum")
    motion_share: float = Field(0.1, ge=0, le=1, description="share of appearance steps that train on the source clip")
    time_sampling: Literal["uniform", "logit-normal"] = Field("uniform", description="distribution of t in [0, 1]")
    shift: float = Field(1.0, gt=0, description="above 1, t is shifted toward noise: t' = s t / (1 + (s - 1) t)")
    appearance_shift: float | None = Field(None, gt=0, description="shift of the appearance steps; default: shift")
    early_stop: bool = Field(False, description="a stage ends when the loss on a few draws held out of it stops falling (ours)")
    debias: Literal["none", "anchor", "offset-noise"] = Field(
        "none", description="other methods that debias the LoRA from the clip's appearance"
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    recolour: float = Field(0.0, ge=0, le=1, description="share of motion samples whose edit region is recoloured at random (ours)")
    retexture: float = Field(0.0, ge=0, le=1, description="share of those that also get a texture moved along the source's flow (ours)")
    recolour_variants: int = Field(8, ge=1, description="number of recoloured copies of the clip")
    base: Literal["full", "int8", "fp8", "nf4"] = Field(
        "full", description="format of the blocks' frozen weights: 8 bits take half of their memory, nf4 a quarter"
    )
    blocks_to_swap: NonNegativeInt | Literal["auto"] = Field(
        "auto", description="blocks in main memory that are copied to the device when needed; auto = the fewest that let the model fit"
    )
    offload_activations: bool | Literal["auto"] = Field(
        "auto", description="store the hidden states between blocks in main memory; auto = if swapping all blocks is not enough"
    )
    checkpoint_every: int = Field(10, ge=1, description="steps between checkpoints")

    @field_validator("early_stop")
    @classmethod
    def _reject_linear_early_stop(cls, value: bool, info: ValidationInfo) -> bool:
        # A linear schedule needs a known number of steps, and the loss falls for as long as the rate does.
        if value and info.data.get("schedule") == "linear":
            raise ValueError("a rate that falls to zero over a stage needs its length; set training.schedule to constant too")
        return value

    def reset_runtime_fields(self) -> TrainingSettings:
        """Return a copy without the settings that change memory placement and checkpoints only, and no byte of the LoRA."""
        defaults = {name: field.default for name, field in type(self).model_fields.items() if name in RUNTIME_FIELDS}
        return self.model_copy(update=defaults)

    def reset_stage_fields(self) -> TrainingSettings:
        """Return a copy without the settings that the stages contain: their steps, sample weights and shift."""
        defaults = {name: field.default for name, field in type(self).model_fields.items() if name in STAGE_FIELDS}
        return self.reset_runtime_fields().model_copy(update=defaults)


STAGE_FIELDS = frozenset(
    {"motion_steps", "appearance_steps", "motion_share", "appearance_shift", "recolour", "retexture", "recolour_variants"}
)
RUNTIME_FIELDS = frozenset({"blocks_to_swap", "offload_activations", "checkpoint_every"})


class LoraSettings(BaseModel):
    """Size and target layers of the LoRA."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rank: Annotated[int, PageField("LoRA rank", "Capacity of the LoRA", 1, 1024)] = Field(
        16, ge=1, le=512, description="rank of each pair of matrices"
    )
    alpha: float | None = Field(None, gt=0, description="scale is alpha / rank; default: the rank")
    targets: Literal["attention+ffn", "attention", "query+key"] = Field("attention+ffn", description="which linear layers are adapted")
    # Not in `repr`, which is part of the training key: there the file's contents count, not its path.
    init: Path | None = Field(None, repr=False, description="LoRA file from which training starts; default: a new LoRA")

    @field_validator("init")
    @classmethod
    def make_absolute(cls, file: Path | None) -> Path | None:
        """Make the path absolute: later commands on the run may have another working directory."""
        return None if file is None else file.absolute()
