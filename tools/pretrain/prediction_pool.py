"""What the mixture predicts of every pooled clip: `python tools/pretrain/prediction_pool.py --pool P --output Q`.

The transformer learns to refine these predictions. Half of them are made without reading the hidden source, as the training samples
of a LoRA are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from pool import Array, Entry, explainer, read_entry

from lora_edit.propagation.mixture import LEAST_ERROR, mix


def predict_entry(entry: Entry, may_read: bool) -> tuple[Array, Array]:
    """Predicted frames `[T, H, W, 3]` uint8 and expected errors `[T, H, W]` (uint8, half levels)."""
    explain_frame = explainer(entry)
    frames, errors = [entry.truth[0].astype(np.float32)], [np.full(entry.region.shape[1:], LEAST_ERROR, np.float32)]
    for t in range(1, len(entry.source)):
        out = explain_frame(t, may_read)
        shares, error = mix(out.evidence, out.allowed)
        frames.append(np.einsum("khw,khwc->hwc", shares, out.pictures))
        errors.append(error)
    return np.round(np.clip(frames, 0, 255)).astype(np.uint8), np.round(np.clip(np.stack(errors) * 2, 0, 255)).astype(np.uint8)


def main() -> None:
    """Predict whatever is in the pool and not yet in the output, one share of the work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), help="this part of so many")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    for path in sorted(args.pool.glob("??????.npz")):
        seed, target = int(path.stem), args.output / path.name
        if seed % args.share[1] != args.share[0] or target.exists():
            continue
        entry = read_entry(path)
        predicted, error = predict_entry(entry, may_read=seed % 4 >= 2)
        part = target.with_suffix(".part.npz")
        region = np.packbits(entry.region, axis=-1)
        np.savez(part, kind=np.array(entry.kind), truth=entry.truth, predicted=predicted, error=error, region=region)
        os.replace(part, target)


if __name__ == "__main__":
    main()
