"""Reading what `motion_pool.py` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_edit.propagation.motion import Motion

Array = np.ndarray


@dataclass(frozen=True)
class Entry:
    """A pooled clip: `source` and `truth` `[T, H, W, 3]` uint8, `region` `[T, H, W]` bool, and its motion to frame 0."""

    kind: str
    source: Array
    truth: Array
    region: Array
    motions: tuple[Motion, ...]


def read_entry(path: Path) -> Entry:
    """One file of the pool."""
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    width = kept["source"].shape[2]
    names = ("positions", "confidence", "chained", "chained_confidence", "matrix", "object_confidence", "camera")
    scaled = {
        name: kept[name].astype(np.float32) / (255 if name.endswith("confidence") and kept[name].dtype == np.uint8 else 1) for name in names
    }
    motions = tuple(Motion(*(scaled[name][t] for name in names)) for t in range(len(kept["source"])))
    region = np.unpackbits(kept["region"], axis=-1, count=width).astype(bool)
    return Entry(str(kept["kind"]), kept["source"], kept["truth"], region, motions)
