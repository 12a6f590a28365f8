"""The search for the watermark in a file. Apart from `verification.py`, which needs neither torch nor a decoder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_edit.errors import VideoError
from lora_edit.provenance.watermark import MAX_FALSE_POSITIVE_PROBABILITY, MIN_MARKED_PIXELS, detect_watermark
from lora_edit.video.read import iterate_frames


def search_watermark(path: Path) -> dict[str, Any]:
    """Search the frames of a file or a folder for the watermark, which needs no manifest and no source.

    Returns the fields of `WatermarkDetection`, and under `summary` one plain line.
    """
    try:
        detection = detect_watermark(iterate_frames(path))
    except VideoError:
        return {"found": False, "summary": "not looked for: the file holds no frames that can be read"}
    rate = f"false-positive rate {MAX_FALSE_POSITIVE_PROBABILITY:g} per file"
    if detection.found:
        summary = f"the watermark of lora-edit was found ({rate}): a part of the picture was edited with it"
    else:
        summary = f"the watermark of lora-edit was not found; small regions carry none ({MIN_MARKED_PIXELS} pixels), and it can be removed"
    return asdict(detection) | {"summary": summary}
