"""Pretrain the embedded image-to-video model: `PYTHONPATH=src python tools/pretrain/transformer.py --minutes 75 --output DIR`.

A small `WanTransformer3DModel` with Wan's 1 + 4 + 4 ... grouping and condition layout [noise | 4 mask | V_cond latents]. Clips come from a
pool of rendered scenes that a worker keeps refreshing; each draw crops, resizes, flips, recolours and re-times them.
Hidden matrices are trained with Muon (orthogonalised momentum), everything else with AdamW. Stops by wall clock, resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from scenes import Scene, edit_boxes, fill_boxes, render
from training_kit import Average, Clock, feed, save_checkpoint

from lora_edit.conditioning.carry import carry
from lora_edit.masks.shapes import hole_union, snap
from lora_edit.models.block_codec import BlockCodec
from lora_edit.models.packing import pack_mask
from lora_edit.models.precondition import precondition
from lora_edit.models.tiny import CARRIED_STD, skip_text_queries

SIDE, LENGTH = 112, 17
SHIFT = 4.0
"""Of the drawn times, toward noise."""
SHAPES = [
    (24, 9, 64, 64),
    (24, 9, 64, 64),
    (24, 9, 64, 64),
    (16, 17, 64, 64),
    (16, 17, 64, 64),
    (8, 17, 80, 80),
    (7, 17, 112, 72),
    (7, 17, 72, 112),
    (6, 17, 96, 96),
    (40, 1, 80, 80),
]
"""Batch size, frames, height and width, equally likely: about 4,500 latent cells each."""

Z_DIM = 192
CONFIG = {
    "patch_size": (1, 1, 1), "num_attention_heads": 5, "attention_head_dim": 32, "in_channels": Z_DIM + 4 + Z_DIM, "out_channels": Z_DIM,
    "text_dim": 16, "freq_dim": 64, "ffn_dim": 512, "num_layers": 8, "rope_max_seq_len": 256,
}  # fmt: skip


def draw_scene(seed: int) -> Scene:
    """One pool entry."""
    cv2.setNumThreads(1)
    return render(np.random.default_rng([11, seed]), LENGTH, SIDE, SIDE, supersample=1)


def draw_many(seed: int, count: int) -> list[Scene]:
    """Several pool entries, for the start."""
    return [draw_scene(seed * 100_000 + i) for i in range(count)]


def vary(rng: np.random.Generator, scene: Scene, frames: int, height: int, width: int) -> Scene:
    """A new clip from a pooled one: frame choice, crop, size, mirror, reversal, colours."""
    step = 1 if frames > 9 else int(rng.integers(1, 3))
    span = (frames - 1) * step + 1
    start = int(rng.integers(0, LENGTH - span + 1))
    index = np.arange(start, start + span, step)
    if frames > 1 and rng.random() < 0.3:
        index[0] = 0
    if frames > 1 and rng.random() < 0.3:
        index = index[::-1]
    scale = rng.uniform(max(height, width) / SIDE * 0.9, 1.0)
    scale = min(1.0, max(scale, max(height, width) / SIDE * 0.75))
    shrink = scale * SIDE / max(height, width)
    crop_h, crop_w = int(height * shrink), int(width * shrink)
    top, left = int(rng.integers(0, SIDE - crop_h + 1)), int(rng.integers(0, SIDE - crop_w + 1))
    cut = scene.frames[index, top : top + crop_h, left : left + crop_w]
    cut = np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in cut])
    boxes = (scene.boxes[:, index] - [left, top, left, top]) * np.array([width / crop_w, height / crop_h] * 2)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    gone = (boxes[..., 2] - boxes[..., 0] < 2) | (boxes[..., 3] - boxes[..., 1] < 2)
    boxes = np.where(gone[..., None], np.nan, boxes)
    if rng.random() < 0.5:
        cut, boxes = cut[:, :, ::-1], np.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], -1)
    if rng.random() < 0.4:
        cut = cut[..., rng.permutation(3)]
    if rng.random() < 0.15:
        cut = 255 - cut
    return Scene(np.ascontiguousarray(cut), boxes)


class Pool:
    """Rendered scenes in memory, refreshed as the worker delivers."""

    def __init__(self, size: int, seed: int) -> None:
        with ProcessPoolExecutor(2) as workers:
            jobs = [workers.submit(draw_many, seed * 100 + i, 50) for i in range(size // 50)]
            self.scenes = [scene for job in jobs for scene in job.result()]
        self.fresh = feed(draw_scene, seed=seed * 1_000_000 + 77, workers=1)
        self.place = 0

    def refresh(self, count: int) -> None:
        """Replace the oldest entries."""
        for _ in range(count):
            self.scenes[self.place] = next(self.fresh)
            self.place = (self.place + 1) % len(self.scenes)

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pixels [B, 3, T, H, W] in [-1, 1], M_cond [B, 1, T, H, W] and V_cond [B, 3, T, H, W]."""
        count, frames, height, width = SHAPES[rng.integers(len(SHAPES))]
        clips, masks, contents = [], [], []
        for _ in range(count):
            scene = vary(rng, self.scenes[rng.integers(len(self.scenes))], frames, height, width)
            pixels = torch.from_numpy(scene.frames).permute(3, 0, 1, 2).float() / 127.5 - 1
            boxes = edit_boxes(rng, scene)
            given = draw_given(rng, boxes, height, width)
            content = torch.where(given > 0.5, pixels, 0.0)
            if rng.random() < 0.92:
                content = carry(content, given, torch.from_numpy(boxes))
            clips.append(pixels)
            masks.append(given)
            contents.append(content)
        return torch.stack(clips), torch.stack(masks), torch.stack(contents)


def draw_given(rng: np.random.Generator, boxes: np.ndarray, height: int, width: int) -> torch.Tensor:
    """M_cond [1, T, H, W]: frame 0, all outside the boxes (mostly snapped to cells as in use), at times later frames too."""
    mask = torch.from_numpy(fill_boxes(boxes, height, width))
    if rng.random() < 0.75:
        mask = hole_union(snap(mask, (8, 8)))
    given = ~mask
    if len(given) > 1:
        given[0] = True
        kind = rng.random()
        if kind < 0.08:
            given[-4 if kind < 0.04 else -1 :] = True
        elif kind < 0.2:
            given[1:5] = True
    return given[None].float()


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by five Newton-Schulz steps in fp32 (K. Jordan, 2024); for hidden weight matrices."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for same in shapes.values():
                grads = []
                for p in same:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    grads.append(p.grad.lerp(buffer, group["momentum"]))
                updates = _orthogonal(torch.stack(grads))
                for p, update in zip(same, updates, strict=True):
                    p.mul_(1 - group["lr"] * 0.02)
                    p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    flip = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if flip else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if flip else x


def draw_times(rng: np.random.Generator, count: int) -> torch.Tensor:
    """t in (0, 1), [B]: uniform, shifted toward noise, where what is to be drawn is decided."""
    even = torch.from_numpy(rng.random(count)).float()
    return SHIFT * even / (1 + (SHIFT - 1) * even)


def measure_std(codec: BlockCodec, pool: Pool, batches: int = 60) -> torch.Tensor:
    """How far the clip is from its carried condition in cells to generate, per latent channel [z]."""
    rng, total, cells = np.random.default_rng(3), torch.zeros(codec.z_dim), torch.zeros(())
    for _ in range(batches):
        pixels, m_cond, v_cond = pool.batch(rng)
        hole = 1 - pack_mask(m_cond).amin(1, keepdim=True)
        total += ((codec.encode(pixels) - codec.encode(v_cond)).square() * hole).sum((0, 2, 3, 4))
        cells += hole.sum()
    return (total / cells).sqrt()


def loss_of(model: torch.nn.Module, codec: BlockCodec, std: torch.Tensor, pixels: torch.Tensor, m_cond: torch.Tensor, v_cond: torch.Tensor,
            rng: np.random.Generator, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Weighted velocity loss, and the plain loss on cells to generate. The velocity is noise - data."""
    with torch.no_grad():
        target = codec.encode(pixels)
        mask, start = pack_mask(m_cond), codec.encode(v_cond)
    noise = torch.randn(target.shape, generator=generator)
    t = draw_times(rng, len(target))
    blend = t.view(-1, 1, 1, 1, 1)
    noisy = (1 - blend) * target + blend * noise
    expected, factor, shown = precondition(noisy, start, t, std)
    text = pixels.new_zeros(len(t), 1, CONFIG["text_dim"])
    out = model(torch.cat([shown, mask, start], 1), t * 1000, text, return_dict=False)[0]
    error = (expected + factor * out - (noise - target)).square().sum(1, keepdim=True)
    hole = 1 - mask.amin(1, keepdim=True)
    weight = 0.15 + hole
    return (error * weight).sum() / weight.sum(), (error * hole).sum() / hole.sum().clamp(min=1)


def main() -> None:
    """Train until the time is spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pool", type=int, default=2400)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--blocks", type=Path, help="begin with the blocks of this transformer folder; other sizes in and out are fine")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler; a fifth faster")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    checkpoint = args.output / "transformer.pt"
    state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    pool = Pool(args.pool, seed=1 + (state["step"] if state else 0))
    print("pool ready", flush=True)
    if (args.output / "vae").exists():
        codec = BlockCodec.from_pretrained(args.output / "vae")
    else:
        pixels = torch.stack(
            [torch.from_numpy(vary(np.random.default_rng(i), pool.scenes[i], 9, 64, 64).frames).permute(3, 0, 1, 2) for i in range(1200)]
        )
        codec = BlockCodec.fit(pixels.float() / 127.5 - 1, z_dim=Z_DIM, power=0.7)
        codec.save_pretrained(args.output / "vae")
    if not (args.output / CARRIED_STD).exists():
        save_file({"std": measure_std(codec, pool)}, args.output / CARRIED_STD)
    std = load_file(args.output / CARRIED_STD)["std"]
    torch.manual_seed(0)
    model = skip_text_queries(WanTransformer3DModel(**CONFIG))
    torch.nn.init.zeros_(model.proj_out.weight)
    if args.blocks:
        earlier = WanTransformer3DModel.from_pretrained(args.blocks, dtype=torch.float32).state_dict()
        model.load_state_dict({n: v for n, v in earlier.items() if n.startswith(("blocks.", "condition_embedder."))}, strict=False)
    hidden = [p for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2]
    chosen = {id(p) for p in hidden}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon, adam = Muon(hidden, lr=args.rate), torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    average, step, spent = Average(model, 0.998), 0, 0.0
    if state:
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        average.values, average.steps, step, spent = state["average"], state["step"], state["step"], state["spent"]
    if args.compile:
        torch._dynamo.config.recompile_limit = 8 * len(SHAPES)
        for block in model.blocks:
            block.compile(dynamic=False)
    clock, saved, history = Clock(args.minutes, spent), time.monotonic(), []
    rng, generator = np.random.default_rng([5, step]), torch.Generator().manual_seed(step)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    while clock.share < 1:
        pixels, m_cond, v_cond = pool.batch(rng)
        muon.param_groups[0]["lr"], adam.param_groups[0]["lr"] = clock.rate(args.rate), clock.rate(2e-3)
        loss, plain = loss_of(model, codec, std, pixels, m_cond, v_cond, rng, generator)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        average.update(model)
        step += 1
        if step % 3 == 0:
            pool.refresh(2)
        history.append(plain.item())
        if step % 50 == 0:
            print(
                json.dumps({"step": step, "minutes": round(clock.spent / 60, 2), "hole_loss": round(float(np.mean(history[-50:])), 4)}),
                flush=True,
            )
        if time.monotonic() - saved > 180 or clock.share >= 1:
            saved = time.monotonic()
            save_checkpoint(checkpoint, {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(),
                                         "average": average.values, "step": step, "spent": clock.spent})  # fmt: skip
            final = WanTransformer3DModel(**CONFIG)
            final.load_state_dict(average.values)
            final.save_pretrained(args.output / "transformer")


if __name__ == "__main__":
    main()
