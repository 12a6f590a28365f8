"""Reading what `motion_pool.py` wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from lora_edit.propagation.background_plate import BackgroundPlate
from lora_edit.propagation.candidates import CandidateSet, KeyFrame, build_candidates
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


def mark_otherwise(rng: np.random.Generator, entry: Entry) -> Entry:
    """The entry, whose region follows its thing closely; now and then with one that stays where it is, or with the whole frame."""
    kind, region = rng.random(), entry.region
    if kind < 0.25:
        region = np.broadcast_to(region.any(0), region.shape)
    elif kind < 0.33:
        region = np.ones_like(region)
    return replace(entry, region=region)


def drifted(rng: np.random.Generator, picture: Array) -> Array:
    """A picture `[H, W, 3]` uint8, often as picture editors that draw all of it anew return it: a little different everywhere; float32."""
    out = picture.astype(np.float32)
    if rng.random() < 0.6:
        return out
    soft = cv2.GaussianBlur(out, (0, 0), 1.0)
    noise = cv2.GaussianBlur(rng.normal(0, 1, out.shape).astype(np.float32), (0, 0), float(rng.uniform(0.5, 1.5)))
    out = out + rng.uniform(-0.4, 0.6) * (soft - out) + rng.uniform(1, 5) * noise / noise.std()
    return np.asarray(np.clip(out * rng.normal(1, 0.015, 3) + rng.normal(0, 2, 3), 0, 255), np.float32)


def explainer(entry: Entry, edited: Array | None = None) -> Callable[[int, bool], CandidateSet]:
    """What explains a frame of the entry, by its number and whether the hidden source may be read; from its true frame 0 or `edited`."""
    source = entry.source.astype(np.float32)
    key = KeyFrame(entry.truth[0].astype(np.float32) if edited is None else edited, source[0], entry.region[0])
    plate = BackgroundPlate(entry.source, entry.region, [m.camera_matrix for m in entry.motions])
    removed = plate.measure_removal(key.edited, key.edited_share)

    def explain_frame(t: int, may_read: bool) -> CandidateSet:
        motion, given = entry.motions[t], 1 - entry.region[t].astype(np.float32)
        return build_candidates(key, source[t], given, motion, plate.render(motion.camera_matrix, *given.shape), removed, t / 24, may_read)

    return explain_frame
