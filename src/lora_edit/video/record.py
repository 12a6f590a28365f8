"""JSON record of a clip's metadata, without its frames, as stored in run folders."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from lora_edit.types import Chapter, ColourTags, Video


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


def video_from_record(record: dict[str, Any], frames: torch.Tensor, alpha: torch.Tensor | None) -> Video:
    """Restore a clip from the record of `video_to_record` and its frames.

    The clip has no audio if its source is missing. Records of earlier versions lack the newer fields.
    """
    source = None if record["source"] is None else Path(record["source"])
    tags = record.get("tags")
    return Video(
        frames=frames,
        fps=Fraction(record["fps"]),
        times=tuple(record["times"]),
        alpha=alpha,
        source=source,
        start_time=record["start_time"],
        has_sound=bool(record["has_sound"]) and source is not None and source.exists(),
        start_frame=record.get("first", 0),
        last_duration=record.get("last_duration"),
        shifts=tuple(record.get("shifts", (0.0,))),
        pixel_aspect=Fraction(record.get("pixel_aspect", 1)),
        tags=None if tags is None else ColourTags(**tags),
        field_order=record.get("field_order", "progressive"),
        matching_pix_fmt=record.get("kept_format"),
        chapters=tuple(Chapter(**each) for each in record.get("chapters", ())),
    )
