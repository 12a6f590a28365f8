"""Clips with their true edits and estimated motion, drawn ahead into a folder: `python tools/pretrain/motion_pool.py --data D --output P`.

Both networks train on these: the mixture of explanations, and the transformer that refines what the mixture predicts.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
from edit_pairs import draw_pair

from lora_edit.propagation.motion import estimate_motion

NUM_FRAMES, SIDE = 17, 128


def draw_entry(seed: int, data: Path) -> dict[str, np.ndarray]:
    """One clip: the pair, and its motion in every frame."""
    pair = draw_pair(np.random.default_rng([21, seed]), data, NUM_FRAMES, SIDE)
    motions = list(estimate_motion(pair.source, pair.truth[0], pair.region))
    return {
        "kind": np.array(pair.kind), "source": pair.source, "truth": pair.truth, "region": np.packbits(pair.region, axis=-1),
        "positions": np.stack([m.positions for m in motions]).astype(np.float16),
        "confidence": np.round(np.stack([m.confidence for m in motions]) * 255).astype(np.uint8),
        "chained": np.stack([m.chained_positions for m in motions]).astype(np.float16),
        "chained_confidence": np.round(np.stack([m.chained_confidence for m in motions]) * 255).astype(np.uint8),
        "matrix": np.stack([m.object_matrix for m in motions]), "camera": np.stack([m.camera_matrix for m in motions]),
        "object_confidence": np.array([m.object_confidence for m in motions], np.float32),
        "support": np.stack([m.support_matrix for m in motions]),
        "support_confidence": np.array([m.support_confidence for m in motions], np.float32),
    }  # fmt: skip


def main() -> None:
    """Draw until `--count` entries are there; several of these may run side by side with other `--first`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    for seed in range(args.first, args.first + args.count):
        path = args.output / f"{seed:06d}.npz"
        if not path.exists():
            np.savez(path.with_suffix(".part.npz"), **draw_entry(seed, args.data))
            os.replace(path.with_suffix(".part.npz"), path)


if __name__ == "__main__":
    main()
