"""Reading what `motion_pool.py` wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_edit.propagation.explanations import Explained, KeyFrame, explain
from lora_edit.propagation.motion import Motion
from lora_edit.propagation.plate import Plate

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
    names = (
        "positions",
        "confidence",
        "chained",
        "chained_confidence",
        "matrix",
        "object_confidence",
        "camera",
        "support",
        "support_confidence",
    )
    scaled = {
        name: kept[name].astype(np.float32) / (255 if name.endswith("confidence") and kept[name].dtype == np.uint8 else 1) for name in names
    }
    motions = tuple(Motion(*(scaled[name][t] for name in names)) for t in range(len(kept["source"])))
    region = np.unpackbits(kept["region"], axis=-1, count=width).astype(bool)
    return Entry(str(kept["kind"]), kept["source"], kept["truth"], region, motions)


def explainer(entry: Entry) -> Callable[[int, bool], Explained]:
    """What explains a frame of the entry, by its number and whether the hidden source may be read."""
    source = entry.source.astype(np.float32)
    key = KeyFrame(entry.truth[0].astype(np.float32), source[0], entry.region[0])
    plate = Plate(entry.source, entry.region, [m.camera for m in entry.motions])
    removed = plate.behind(key.edited, key.edited_share)

    def explain_frame(t: int, may_read: bool) -> Explained:
        motion, given = entry.motions[t], 1 - entry.region[t].astype(np.float32)
        return explain(key, source[t], given, motion, plate.at(motion.camera, *given.shape), removed, t / 24, may_read)

    return explain_frame
