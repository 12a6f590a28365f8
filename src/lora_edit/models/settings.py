"""Settings of captions and encodings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

CAPTIONER = "florence-community/Florence-2-large"


class CaptionSettings(BaseModel):
    """Captions of the frames behind p* (paper 3.1), for models that read prompts; a prompt of your own replaces them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    enabled: bool = Field(True, description="false leaves the prompt at p* alone")
    model: str = Field(CAPTIONER, description="a downloaded Florence-2 in transformers' own layout: a Hub repository or a folder")


class EncodingSettings(BaseModel):
    """Encodings of clips and prompts, kept on this machine for the next run (docs/memory.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kept_gb: float = Field(5.0, ge=0, description="disk space for it, the least recently used removed first; 0 looks up and keeps nothing")
