"""The watermark of a result: embedded in the edited pixels of the frames that are delivered (`provenance/watermark.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lora_edit.canvas import compute_blend_weights
from lora_edit.config import EditSettings
from lora_edit.inputs import Clip
from lora_edit.provenance.watermark import MIN_MARKED_PIXELS, detect_watermark, embed_watermark, measure_marked_area
from lora_edit.types import Video


@dataclass(frozen=True)
class WatermarkRecord:
    """Whether a result carries the watermark; `pixels` is its area per frame, `reason` why it does not, for the user."""

    embedded: bool
    pixels: int
    reason: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """A remark where the mark was wanted but is not in."""
        return (f"no watermark: {self.reason}",) if self.pixels and not self.embedded else ()

    def to_json(self) -> dict[str, Any]:
        """Return the record for the manifests."""
        return asdict(self)


def mark_result(clip: Clip, video: Video, settings: EditSettings) -> WatermarkRecord:
    """Embed the watermark in the composited `video`, in place, where the settings ask for it and it is found again in the result.

    Only pixels that compositing changed are marked: those of the source stay the source's. Anchors stay as they were given.
    """
    if not settings.provenance.watermark:
        return WatermarkRecord(False, 0, "switched off (provenance.watermark=false)")
    pixels = round(measure_marked_area(_compute_weights(clip, video, settings)))
    if pixels < MIN_MARKED_PIXELS:
        reason = f"{pixels} edited pixels per frame are too few to find it again; it takes {MIN_MARKED_PIXELS}"
        return WatermarkRecord(False, pixels, reason)
    marked = (embed_watermark(*each) for each in zip(video.frames, _compute_weights(clip, video, settings), strict=True))
    if not detect_watermark(marked).found:
        reason = f"it is not found again in these {pixels} edited pixels per frame: they are too few for their texture"
        return WatermarkRecord(False, pixels, reason)
    for frame, weights in zip(video.frames, _compute_weights(clip, video, settings), strict=True):
        frame.copy_(embed_watermark(frame, weights))
    return WatermarkRecord(True, pixels)


def _compute_weights(clip: Clip, video: Video, settings: EditSettings) -> Iterator[torch.Tensor]:
    """Yield the weights of the mark `[H, W]` for each frame of the result."""
    for index, (source, frame) in enumerate(zip(clip.video.frames, video.frames, strict=True)):
        is_changed = (frame != source).any(-1)
        yield compute_blend_weights(clip, index, settings.compositing) * is_changed * (index not in clip.anchors)


def build_watermark_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Describe a `WatermarkRecord.to_json` for people, as labels and texts; nothing for runs of earlier versions."""
    if not record:
        return []
    return [
        ("watermark", f"in the edited region, {record['pixels']} pixels per frame" if record["embedded"] else f"none: {record['reason']}")
    ]
