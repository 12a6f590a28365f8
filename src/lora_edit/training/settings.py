"""Settings of the training room."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
    debias: Literal["none", "anchor", "offset-noise"] = Field("none", description="other ways to keep the clip's look out of the LoRA")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    recolour: float = Field(0.0, ge=0, le=1, description="share of motion samples whose edit region is recoloured at random (ours)")
    retexture: float = Field(0.0, ge=0, le=1, description="share of those that also get a texture moved along the source's flow (ours)")
    recolour_variants: int = Field(8, ge=1, description="how many recoloured copies of the clip are made")
    checkpoint_every: int = Field(10, ge=1, description="steps between checkpoints")


class LoraSettings(BaseModel):
    """Size and place of the LoRA."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rank: int = Field(16, ge=1, le=512, description="rank of each pair of matrices")
    alpha: float | None = Field(None, gt=0, description="scale is alpha / rank; the rank when left out")
    targets: Literal["attention+ffn", "attention", "query+key"] = Field("attention+ffn", description="which linear layers are adapted")
