"""What the mixture predicts of every pooled clip: `python tools/pretrain/prediction_pool.py --pool P --output Q`.

The transformer learns to refine these predictions. Half of them are made without reading the hidden source, as the training samples
of a LoRA are. Frame 0 moved along the flow and with the region's box is kept as well: the plainer hints that `method.hint` offers.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from pool import Array, Entry, explainer, read_entry

from lora_edit.conditioning.first_frame_hint import compute_region_boxes, move_with_box
from lora_edit.propagation.mixture import MIN_ERROR, predict_shares
from lora_edit.video.flow import sample_image
from lora_edit.video.ranges import to_frames, to_signed


def predict_entry(entry: Entry, may_read: bool) -> tuple[Array, Array]:
    """Predicted frames `[T, H, W, 3]` uint8 and expected errors `[T, H, W]` (uint8, half levels)."""
    explain_frame = explainer(entry)
    frames, errors = [entry.truth[0].astype(np.float32)], [np.full(entry.region.shape[1:], MIN_ERROR, np.float32)]
    for t in range(1, len(entry.source)):
        out = explain_frame(t, may_read)
        shares, error = predict_shares(out)
        frames.append(np.einsum("khw,khwc->hwc", shares, out.pictures))
        errors.append(error)
    return np.round(np.clip(frames, 0, 255)).astype(np.uint8), np.round(np.clip(np.stack(errors) * 2, 0, 255)).astype(np.uint8)


def plain_hints(entry: Entry) -> tuple[Array, Array]:
    """The edited frame 0 moved along chained flow, and with the region's box, `[T, H, W, 3]` uint8 each."""
    first = entry.truth[0].astype(np.float32)
    along = np.stack([sample_image(first, motion.chained_positions) for motion in entry.motions])
    boxes = compute_region_boxes(torch.from_numpy(entry.region))
    boxed = to_frames(move_with_box(to_signed(torch.from_numpy(entry.truth[:1]))[:, 0], boxes))
    return np.round(np.clip(along, 0, 255)).astype(np.uint8), boxed.numpy()


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
        along, boxed = plain_hints(entry)
        part = target.with_suffix(".part.npz")
        region = np.packbits(entry.region, axis=-1)
        kept = {"predicted": predicted, "error": error, "flow": along, "box": boxed}
        np.savez(part, kind=np.array(entry.kind), truth=entry.truth, region=region, **kept)
        os.replace(part, target)


if __name__ == "__main__":
    main()
