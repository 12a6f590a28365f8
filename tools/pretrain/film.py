"""Stretches of real film for pretraining: Big Buck Bunny (Blender Foundation, CC-BY 3.0), without the shots that judge results.

`fetch_data.py` decodes the film once into an array on disk; here it is cut at its shot borders and sampled.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

Array = np.ndarray
HELD_OUT = ((3000, 4500), (8000, 9500))
"""Frames that scenes and real clips are judged on; nothing here returns them."""
FIRST, LAST = 200, 11700
"""Before and after lie titles."""


@cache
def film(folder: Path) -> tuple[Array, tuple[tuple[int, int], ...]]:
    """The frames `[N, 180, 320, 3]` uint8 (mapped from disk) and the shots as (start, end), those held out left out."""
    frames = np.load(folder / "bbb_320x180.npy", mmap_mode="r")
    cuts = [c for c in np.load(folder / "bbb_cuts.npy").tolist() if FIRST < c < LAST]
    edges = sorted({FIRST, LAST, *cuts, *(edge for span in HELD_OUT for edge in span)})
    shots = [(a + 1, b - 1) for a, b in pairwise(edges) if b - a > 12]
    return frames, tuple(shot for shot in shots if not any(a <= shot[0] < b for a, b in HELD_OUT))


def draw_film(rng: np.random.Generator, folder: Path, num_frames: int, side: int) -> Array:
    """A square crop of one shot, `[T, side, side, 3]` float32 in [0, 1]; longer shots are drawn more often, still ones less."""
    frames, shots = film(folder)
    lengths = np.array([b - a for a, b in shots], float)
    for _ in range(8):
        start, end = shots[rng.choice(len(shots), p=lengths / lengths.sum())]
        step = max(1, min(int(rng.integers(1, 4)), (end - start - 1) // (num_frames - 1)))
        count = min(num_frames, (end - start - 1) // step + 1)
        first = int(rng.integers(start, end - (count - 1) * step))
        index = first + step * np.arange(count)
        index = np.concatenate([index, index[::-1]])[:num_frames] if count < num_frames else index
        index = np.resize(index, num_frames)
        size = int(rng.uniform(0.4, 1.0) * 180)
        top, left = int(rng.integers(0, 180 - size + 1)), int(rng.integers(0, 320 - size + 1))
        clip = [np.asarray(frames[i, top : top + size, left : left + size]) for i in index]
        steps = [np.abs(a.astype(np.float32) - b).mean() for a, b in pairwise(clip)]
        if np.mean(steps) > 0.4 and max(steps) < 40:
            break
    method = cv2.INTER_AREA if size > side else cv2.INTER_CUBIC
    out = np.stack([cv2.resize(f, (side, side), interpolation=method) for f in clip]).astype(np.float32) / 255
    if rng.random() < 0.5:
        out = out[:, :, ::-1]
    return np.ascontiguousarray(out[::-1] if rng.random() < 0.3 else out)
