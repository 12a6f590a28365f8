"""JSON record of a clip's metadata, without its frames, as stored in run folders."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from av import VideoFormat
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt

from lora_edit.types import Chapter, ColourTags, FieldOrder, Video


def video_to_record(video: Video) -> dict[str, Any]:
    """Convert a clip to a record without its frames and notes; of alpha, only whether there is any."""
    return {
        "fps": str(video.fps),
        "times": list(video.times),
        "source": None if video.source is None else str(Path(video.source).resolve()),
        "start_time": video.start_time,
        "has_sound": video.has_sound,
        "first": video.start_frame,
        "alpha": video.alpha is not None,
        "last_duration": video.last_duration,
        "shifts": list(video.shifts),
        "pixel_aspect": str(video.pixel_aspect),
        "tags": None if video.tags is None else asdict(video.tags),
        "field_order": video.field_order,
        "kept_format": video.matching_pix_fmt,
        "chapters": [asdict(chapter) for chapter in video.chapters],
    }


class _Tags(BaseModel):
    matrix: int
    primaries: int
    transfer: int
    read_as: int
    full: bool


class _Chapter(BaseModel):
    title: str
    begin: FiniteFloat
    end: FiniteFloat


class _Record(BaseModel):
    """What `video_to_record` writes. Records of earlier versions lack the newer fields, which have defaults here."""

    fps: Fraction = Field(gt=0)
    times: tuple[FiniteFloat, ...]
    source: str | None
    start_time: FiniteFloat
    has_sound: bool
    first: NonNegativeInt = 0
    alpha: bool = False
    last_duration: FiniteFloat | None = None
    shifts: tuple[FiniteFloat, ...] = Field((0.0,), min_length=1)
    pixel_aspect: Fraction = Field(Fraction(1), gt=0)
    tags: _Tags | None = None
    field_order: FieldOrder = "progressive"
    kept_format: str | None = None
    chapters: tuple[_Chapter, ...] = ()


def video_from_record(record: dict[str, Any], frames: torch.Tensor, alpha: torch.Tensor | None) -> Video:
    """Restore a clip from the record of `video_to_record` and its frames.

    The clip has no audio if its source is missing. Raises `ValueError`, such as pydantic's, for a damaged record or one of other frames.
    """
    values = _Record.model_validate(record)
    if len(values.times) != len(frames) or any(earlier >= later for earlier, later in pairwise(values.times)):
        raise ValueError(f"the times of the {len(frames)} frames are wrong")
    if values.kept_format is not None:
        VideoFormat(values.kept_format)  # raises `ValueError` for an unknown one
    source = None if values.source is None else Path(values.source)
    return Video(
        frames=frames,
        fps=values.fps,
        times=values.times,
        alpha=alpha,
        source=source,
        start_time=values.start_time,
        has_sound=values.has_sound and source is not None and source.is_file(),
        start_frame=values.first,
        last_duration=values.last_duration,
        shifts=values.shifts,
        pixel_aspect=values.pixel_aspect,
        tags=None if values.tags is None else ColourTags(**values.tags.model_dump()),
        field_order=values.field_order,
        matching_pix_fmt=values.kept_format,
        chapters=tuple(Chapter(**each.model_dump()) for each in values.chapters),
    )
