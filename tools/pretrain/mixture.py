"""Train the mixture of explanations: `PYTHONPATH=src python tools/pretrain/mixture.py --pool P --minutes 25 --output FILE`.

Evidence and explanations of a few frames of every pooled clip are computed once and kept in memory; the network learns shares that make the
mixture come near the true edit, and the error that is left. Every eighth clip is kept back and tells when to stop.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from pool import Entry, drifted, explainer, mark_otherwise, read_entry
from safetensors.torch import load_file, save_file
from training_kit import Average, Clock

from lora_edit.propagation.mixture import MixtureNetwork

FRAMES = 4
"""Frames of a clip that are learned from."""

NEAR = 10.0
"""Levels of error within which explanations count as equally good."""
OFTEN = {"removal": 2.5, "added thing": 2.5, "addition": 2.0, "replacement": 1.5, "label": 1.5, "worn": 1.5}
"""How much more often rows of some kinds are drawn: they are few, or hard."""
CROP = 64
"""Pixels a side of what a step sees of a frame."""

Rows = tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def explain_entry(path: Path) -> list[Rows]:
    """Kind, evidence, allowed, pictures, truth and region of some frames."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([7, int(path.stem)])
    entry: Entry = mark_otherwise(rng, read_entry(path))
    explain_frame = explainer(entry, drifted(rng, entry.truth[0]))
    rows = []
    for number, t in enumerate(rng.choice(np.arange(1, len(entry.source)), FRAMES, replace=False)):
        if entry.region[t].sum() < 30:
            continue
        out = explain_frame(int(t), number > 0)
        pictures = np.round(out.pictures).astype(np.uint8)
        rows.append(
            (
                entry.kind if number else "moved only",
                out.evidence.astype(np.float16),
                out.allowed_mask,
                pictures,
                entry.truth[t],
                entry.region[t],
            )
        )
    return rows


def explain_all(paths: list[Path], workers: int) -> Iterator[list[Rows]]:
    """Every entry's rows."""
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(explain_entry, paths, chunksize=4)


def losses(network: MixtureNetwork, rows: list[Rows]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of a batch, per row: mean squared error in the region (levels squared), the negative log likelihood of what is left, and how far the
    shares are from those that the explanations' own errors call for.

    Without the last an explanation that is rarely the best loses its share early and for good.
    """
    evidence = torch.from_numpy(np.stack([r[1] for r in rows])).float()
    allowed = torch.from_numpy(np.stack([r[2] for r in rows]))
    pictures = torch.from_numpy(np.stack([r[3] for r in rows])).float()
    truth = torch.from_numpy(np.stack([r[4] for r in rows])).float()
    region = torch.from_numpy(np.stack([r[5] for r in rows])).float()
    with torch.autocast("cpu", torch.bfloat16):
        shares, error = network(evidence, allowed)
    mixed = torch.einsum("bkhw,bkhwc->bhwc", shares, pictures)
    squared = (mixed - truth).square().mean(-1)
    area = region.sum((1, 2))
    per_row = (squared * region).sum((1, 2)) / area
    variance = error.square()
    surprise = ((squared.detach() / variance + variance.log()) * region).sum((1, 2)) / area
    own = (pictures - truth[:, None]).square().mean(-1).masked_fill(~allowed[:, :, None, None], 1e9)
    wanted = (-own / (2 * NEAR**2)).softmax(1)
    choice = -((wanted * (shares + 1e-5).log()).sum(1) * region).sum((1, 2)) / area
    return per_row, surprise, choice


@torch.no_grad()
def judge(network: MixtureNetwork, rows: list[Rows]) -> dict[str, float]:
    """Region PSNR by kind, and its mean over rows."""
    found: dict[str, list[float]] = defaultdict(list)
    for start in range(0, len(rows), 16):
        batch = rows[start : start + 16]
        per_row, _, _ = losses(network, batch)
        for row, value in zip(batch, per_row.tolist(), strict=True):
            found[row[0]].append(10 * np.log10(255**2 / max(value, 0.1)))
    return {
        "mean": float(np.mean([v for each in found.values() for v in each])),
        **{k: round(float(np.mean(v)), 2) for k, v in sorted(found.items())},
    }


def baselines(rows: list[Rows]) -> dict[str, float]:
    """Mean region PSNR of each explanation alone, and of the best of each row."""
    table = []
    for _, _, allowed, pictures, truth, region in rows:
        squared = ((pictures.astype(np.float32) - truth) ** 2).mean(-1)[:, region].mean(-1)
        table.append(10 * np.log10(255**2 / np.maximum(np.where(allowed, squared, 255**2), 0.1)))
    return {"each": np.mean(table, 0).round(2).tolist(), "best": float(np.max(table, 1).mean())}


def main() -> None:
    """Train until the time is spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--start", type=Path, help="begin with these weights, wherever the sizes are the same")
    args = parser.parse_args()
    paths = sorted(p for p in args.pool.glob("??????.npz"))
    train, kept = [], []
    for path, rows in zip(paths, explain_all(paths, args.workers), strict=True):
        (kept if int(path.stem) % 8 == 7 else train).extend(rows)
    print(len(train), len(kept), json.dumps(baselines(kept)), flush=True)
    counts = np.array([OFTEN.get(row[0], 1.0) for row in train])
    chances = counts / counts.sum()
    torch.manual_seed(0)
    network = MixtureNetwork().to(memory_format=torch.channels_last)
    if args.start:
        earlier, own = load_file(args.start), network.state_dict()
        network.load_state_dict({name: value for name, value in earlier.items() if value.shape == own[name].shape}, strict=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    average, clock, rng, step, shown = Average(network, 0.995), Clock(args.minutes), np.random.default_rng(1), 0, time.monotonic()
    while clock.share < 1:
        batch = [train[i] for i in rng.choice(len(train), size=16, p=chances)]
        flip = [bool(b) for b in rng.random(2) < 0.5]
        batch = [crop(rng, tuple(_flip(part, flip) for part in row)) for row in batch]  # type: ignore[arg-type]
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(args.rate, warm=0.05)
        per_row, surprise, choice = losses(network, batch)
        loss = (per_row + 4).log().mean() + 0.3 * surprise.mean() + 0.5 * (1 - 0.7 * clock.share) * choice.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        average.update(network)
        step += 1
        if time.monotonic() - shown > 90 or clock.share >= 1:
            shown = time.monotonic()
            judged = MixtureNetwork()
            judged.load_state_dict(average.values)
            print(json.dumps({"step": step, "minutes": round(clock.spent / 60, 1), **judge(judged, kept)}), flush=True)
            save_file({name: value.contiguous() for name, value in average.values.items()}, args.output)


def crop(rng: np.random.Generator, row: Rows) -> Rows:
    """A part of `CROP` pixels a side around some pixel of the region."""
    kind, evidence, allowed, pictures, truth, region = row
    y, x = np.nonzero(region)
    at = int(rng.integers(len(y)))
    top, left = (int(np.clip(c - rng.integers(CROP), 0, n - CROP)) for c, n in zip((y[at], x[at]), region.shape, strict=True))
    part = (slice(top, top + CROP), slice(left, left + CROP))
    return kind, evidence[:, *part], allowed, pictures[:, *part], truth[part], region[part]


def _flip(part: object, flip: list[bool]) -> object:
    """Mirror `[..., H, W]` or `[..., H, W, 3]` arrays."""
    if not isinstance(part, np.ndarray) or part.ndim < 2:
        return part
    axes = (-3, -2) if part.shape[-1] == 3 else (-2, -1)
    for axis, wanted in zip(axes, flip, strict=True):
        part = np.flip(part, axis) if wanted else part
    return np.ascontiguousarray(part)


if __name__ == "__main__":
    main()
