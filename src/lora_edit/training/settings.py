"""Settings of the training room."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationInfo, field_validator


class TrainingSettings(BaseModel):
    """How the LoRA is fitted to one clip (paper 4.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    motion_steps: int = Field(100, ge=0, description="steps on the masked source (paper 3.3.1)")
    appearance_steps: int = Field(100, ge=0, description="further steps once later frames are edited (paper 3.3.2)")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW learning rate")
    schedule: Literal["constant", "linear"] = Field("constant", description="learning rate over a stage: as it is, or falling to zero")
    batch_size: int = Field(1, ge=1, description="noise draws per step")
    window: int = Field(0, ge=0, description="frames per training window (appendix C uses 9); 0 = all that the model takes")
    motion_share: float = Field(0.1, ge=0, le=1, description="share of appearance steps that still see the source clip")
    time_sampling: Literal["uniform", "logit-normal"] = Field("uniform", description="distribution of t in [0, 1]")
    shift: float = Field(1.0, gt=0, description="above 1, t is drawn nearer to noise: t' = s t / (1 + (s - 1) t)")
    appearance_shift: float | None = Field(None, gt=0, description="shift of the appearance steps; as shift when left out")
    early_stop: bool = Field(False, description="a stage ends when the loss on a few draws held out of it stops falling (ours)")
    debias: Literal["none", "anchor", "offset-noise"] = Field("none", description="other ways to keep the clip's look out of the LoRA")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    recolour: float = Field(0.0, ge=0, le=1, description="share of motion samples whose edit region is recoloured at random (ours)")
    retexture: float = Field(0.0, ge=0, le=1, description="share of those that also get a texture moved along the source's flow (ours)")
    recolour_variants: int = Field(8, ge=1, description="how many recoloured copies of the clip are made")
    base: Literal["full", "int8", "fp8", "nf4"] = Field(
        "full", description="how the frozen weights of the blocks are kept: 8 bits take half of their room, nf4 a quarter"
    )
    blocks_to_swap: NonNegativeInt | Literal["auto"] = Field(
        "auto", description="blocks that wait in main memory and are copied when needed; auto = the fewest that let it fit"
    )
    offload_activations: bool | Literal["auto"] = Field(
        "auto", description="keep the hidden states between blocks in main memory; auto = where swapping all blocks is not enough"
    )
    checkpoint_every: int = Field(10, ge=1, description="steps between checkpoints")

    @field_validator("early_stop")
    @classmethod
    def _reject_linear_early_stop(cls, value: bool, info: ValidationInfo) -> bool:
        # A falling rate is spread over steps that are known before, and the loss falls for as long as the rate does.
        if value and info.data.get("schedule") == "linear":
            raise ValueError("a rate that falls to zero over a stage needs its length; set training.schedule to constant too")
        return value

    def reset_runtime_fields(self) -> TrainingSettings:
        """Without what changes only where things lie and how often they are saved, and no byte of the LoRA."""
        same = {name: field.default for name, field in type(self).model_fields.items() if name in RUNTIME_FIELDS}
        return self.model_copy(update=same)

    def reset_stage_fields(self) -> TrainingSettings:
        """The recipe without what the stages say themselves: their steps, their samples' weights and their own shift."""
        same = {name: field.default for name, field in type(self).model_fields.items() if name in STAGE_FIELDS}
        return self.reset_runtime_fields().model_copy(update=same)


STAGE_FIELDS = frozenset(
    {"motion_steps", "appearance_steps", "motion_share", "appearance_shift", "recolour", "retexture", "recolour_variants"}
)
RUNTIME_FIELDS = frozenset({"blocks_to_swap", "offload_activations", "checkpoint_every"})


class LoraSettings(BaseModel):
    """Size and place of the LoRA."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rank: int = Field(16, ge=1, le=512, description="rank of each pair of matrices")
    alpha: float | None = Field(None, gt=0, description="scale is alpha / rank; the rank when left out")
    targets: Literal["attention+ffn", "attention", "query+key"] = Field("attention+ffn", description="which linear layers are adapted")
