"""Train the network that cleans the block codec's output: `PYTHONPATH=src python tools/pretrain/cleaner.py --minutes 10 --output DIR`.

Its input is the plain inverse transform of latents with a little noise, as a diffusion model leaves it; its target is the clip.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from training_kit import Average, Clock
from transformer import draw_many, vary

from lora_edit.models.block_codec import BlockCodec

SHAPES = [(4, 9, 64, 64), (2, 17, 64, 64), (8, 1, 80, 80), (6, 5, 64, 64)]


def batch(rng: np.random.Generator, scenes: list) -> torch.Tensor:  # type: ignore[type-arg]
    """Clips [B, 3, T, H, W] in [-1, 1]."""
    count, frames, height, width = SHAPES[rng.integers(len(SHAPES))]
    clips = [vary(rng, scenes[rng.integers(len(scenes))], frames, height, width).frames for _ in range(count)]
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def main() -> None:
    """Fit the cleaner within the time given and save the codec again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=300)
    args = parser.parse_args()
    codec = BlockCodec.from_pretrained(args.output / "vae").train()
    scenes = draw_many(909, args.clips)
    rng, generator = np.random.default_rng(4), torch.Generator().manual_seed(4)
    optimiser = torch.optim.AdamW(codec.cleaner.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=1e-4)
    average, clock, step, shown = Average(codec.cleaner, 0.995), Clock(args.minutes), 0, time.monotonic()
    gains: list[float] = []
    while clock.share < 1:
        pixels = batch(rng, scenes)
        with torch.no_grad():
            latents = codec.encode(pixels)
            latents += torch.rand((len(latents), 1, 1, 1, 1), generator=generator) * 0.2 * torch.randn(latents.shape, generator=generator)
            rough = codec.decode(latents, clean=False)
        for group in optimiser.param_groups:
            group["lr"] = clock.rate(2e-3)
        out = codec.cleaner(rough)
        loss = F.mse_loss(out, pixels) + 0.1 * F.l1_loss(out, pixels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.cleaner.parameters(), 1.0)
        optimiser.step()
        average.update(codec.cleaner)
        step += 1
        gains.append(10 * float(torch.log10(F.mse_loss(rough, pixels) / F.mse_loss(out.detach(), pixels))))
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            print(
                json.dumps({"step": step, "minutes": round(clock.spent / 60, 2), "gain_db": round(float(np.mean(gains[-50:])), 3)}),
                flush=True,
            )
    codec.cleaner.load_state_dict(average.values)
    codec.save_pretrained(args.output / "vae")


if __name__ == "__main__":
    main()
