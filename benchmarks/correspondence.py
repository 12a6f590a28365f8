"""Accuracy of dense correspondence with the key frame, compared with chained optical flow.

`PYTHONPATH=src python benchmarks/correspondence.py --photos DIR`

Clips of `moving_scenes.py`, 25 frames of 256 x 256. Even seeds are for tuning, odd ones for judging. Metrics inside the object, and inside
its box with 6 pixels around: end-point error in pixels where frame 0 shows the pixel; the share within 1.5 % of the frame's shorter side;
F-score of occlusion (confidence below a half) and Brier score of the confidence in the box; intersection over union of the object's mask
in frame 0, moved to each frame, with the true one. Writes a table to --output, or prints it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from moving_scenes import KINDS, OBJECT, Photos, Truth, scenes

from lora_edit.types import BoolArray, Float32Array
from lora_edit.video.correspondence import compute_correspondences
from lora_edit.video.flow import chain_flow_in_order, sample_image

WITHIN = 0.015
AROUND = 6
SURE = 0.3
"""Minimum confidence of a pixel of the moved mask."""

COLUMNS = ("object mean", "median", "within", "box mean", "median", "within", "occlusion F", "Brier", "IoU mean", "IoU last", "ms/frame")


def box_of(mask: BoolArray, around: int) -> BoolArray:
    """Compute the mask's bounding box `[H, W]` with a margin; empty for an empty mask."""
    box = np.zeros_like(mask)
    y, x = np.nonzero(mask)
    if len(y):
        box[max(0, y.min() - around) : y.max() + around + 1, max(0, x.min() - around) : x.max() + around + 1] = True
    return box


def found_by(method: str, truth: Truth) -> Iterator[tuple[Float32Array, Float32Array | None]]:
    """Estimate positions and confidence of every frame: by `chained` flow, or with the region `mask`, `box` or `no`."""
    if method == "chained":
        for places in chain_flow_in_order(truth.frames, range(len(truth.frames))):
            yield places, None
        return
    objects = truth.layer == OBJECT
    masks = {"mask": objects, "box": np.stack([box_of(mask, 4) for mask in objects]), "no": None}[method]
    for each in compute_correspondences(truth.frames, 0, None if masks is None else torch.from_numpy(masks)):
        yield each.positions, each.confidence


def measure(truth: Truth, method: str) -> list[float]:
    """Measure one clip; returns a row in the order of `COLUMNS`."""
    start = time.process_time()
    found = list(found_by(method, truth))
    milliseconds = 1000 * (time.process_time() - start) / len(found)
    limit, first = WITHIN * min(truth.layer.shape[1:]), (truth.layer[0] == OBJECT).astype(np.float32)
    inside, around, briers, overlaps, hits = [], [], [], [], np.zeros(3)
    for number, (positions, confidence) in enumerate(found[1:], 1):
        error, visible = np.linalg.norm(positions - truth.positions[number], axis=-1), truth.visible[number]
        thing = truth.layer[number] == OBJECT
        box, sure = box_of(thing, AROUND), np.ones_like(error) if confidence is None else confidence
        inside.append(error[thing & visible])
        around.append(error[box & visible])
        briers.append(np.square(sure - (visible & (error <= limit)))[box])
        hits += [(part & box).sum() for part in ((sure < 0.5) & ~visible, (sure < 0.5) & visible, (sure >= 0.5) & ~visible)]
        if thing.any():
            moved = (sample_image(first, positions) > 0.5) & (sure > SURE)
            overlaps.append((moved & thing).sum() / (moved | thing).sum())
    row = [value for errors in (inside, around) for value in _errors(np.concatenate(errors), limit)]
    occlusion = 2 * hits[0] / max(1, 2 * hits[0] + hits[1] + hits[2])
    return [*row, occlusion, float(np.concatenate(briers).mean()), float(np.mean(overlaps)), float(overlaps[-1]), milliseconds]


def _errors(errors: Float32Array, limit: float) -> list[float]:
    return [float(errors.mean()), float(np.median(errors)), float((errors <= limit).mean())]


def table(rows: dict[tuple[str, str], list[float]]) -> str:
    """Format the rows by kind and method as Markdown."""
    lines = [f"| scene | method | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for (kind, method), row in rows.items():
        digits = (2, 2, 3, 2, 2, 3, 3, 3, 3, 3, 0)
        lines.append(f"| {kind} | {method} | " + " | ".join(f"{value:.{d}f}" for value, d in zip(row, digits, strict=True)) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every kind, method and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--half", choices=("tuning", "judging"), default="judging")
    parser.add_argument("--seeds", type=int, default=4, help="of each half and kind")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--methods", nargs="*", default=["chained", "mask"])
    parser.add_argument("--output", type=Path)
    args = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    seeds = range(0 if args.half == "tuning" else 1, 2 * args.seeds, 2)
    photos, rows = Photos(args.photos), dict[tuple[str, str], list[float]]()
    for kind in args.kinds:
        drawn = scenes(photos, kind, seeds)
        for method in args.methods:
            rows[kind, method] = np.mean([measure(truth, method) for truth in drawn], axis=0).tolist()
    for method in args.methods:
        rows["all", method] = np.mean([rows[kind, method] for kind in args.kinds], axis=0).tolist()
    if args.output:
        args.output.write_text(table(rows), encoding="utf-8")
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
