"""Pretrain the embedded image-to-video model: `PYTHONPATH=src python tools/pretrain/transformer.py --minutes 75 --output DIR`.

A small `WanTransformer3DModel` with Wan's 1 + 4 + 4 ... grouping and condition layout [noise | 4 mask | V_cond latents]. Clips come from a
pool of rendered scenes that a worker keeps refreshing; each draw crops, resizes, flips, recolours and re-times them.
Hidden matrices are trained with Muon (orthogonalised momentum), everything else with AdamW. Stops by wall clock, resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from training_kit import Average, Clock, save_checkpoint

from lora_edit.hints import ASSUMED_ERROR
from lora_edit.masks.shapes import snap_to_cells, union_latent_frames
from lora_edit.models.families.condition_packing import pack_error, pack_mask
from lora_edit.models.families.embedded.conditioning import compute_cell_std, precondition
from lora_edit.models.families.embedded.encoders import LappedCodec
from lora_edit.models.families.embedded.loading import PREDICTION_STD_FILE, set_single_token_attention
from lora_edit.propagation.mixture import MAX_ERROR, MIN_ERROR

LENGTH, SIDE = 17, 128
"""Of the pooled clips."""
SHIFT = 4.0
"""Of the drawn times, toward noise."""
SHAPES = [
    (10, 17, 64, 64),
    (10, 17, 64, 64),
    (7, 17, 80, 80),
    (12, 9, 80, 80),
    (5, 17, 112, 80),
    (5, 17, 80, 112),
    (6, 9, 112, 112),
    (3, 17, 128, 128),
    (24, 1, 96, 96),
]
"""Batch size, frames, height and width, equally likely: about 3,500 latent cells each."""

Z_DIM = 192
CONFIG = {
    "patch_size": (1, 1, 1), "num_attention_heads": 5, "attention_head_dim": 32, "in_channels": Z_DIM + 4 + Z_DIM + 4,
    "out_channels": Z_DIM, "text_dim": 16, "freq_dim": 64, "ffn_dim": 512, "num_layers": 8, "rope_max_seq_len": 256,
}  # fmt: skip
NO_PREDICTION = 0.08
"""Share of the samples whose hole is grey instead: what the paper gives."""
PLAINER = {"flow": 0.1, "box": 0.06, "predicted": 0.06}
"""Shares of the samples whose hint comes without an error to expect: frame 0 moved along the flow or with the box, or the prediction."""


@dataclass(frozen=True)
class Clip:
    """The true clip and its prediction `[T, H, W, 3]` uint8, the error to expect `[T, H, W]` (half levels), the region `[T, H, W]` bool.

    Beside the prediction, the edited frame 0 moved along the `flow` and with the region's `box`.
    """

    truth: np.ndarray
    predicted: np.ndarray
    error: np.ndarray
    region: np.ndarray
    flow: np.ndarray
    box: np.ndarray


def read_clip(path: Path) -> Clip:
    """One file of the prediction pool."""
    with np.load(path) as file:
        region = np.unpackbits(file["region"], axis=-1, count=file["truth"].shape[2]).astype(bool)
        return Clip(file["truth"], file["predicted"], file["error"], region, file["flow"], file["box"])


def draw_hint(rng: np.random.Generator, clip: Clip) -> Clip:
    """The clip with the hint that this sample gets as its prediction."""
    chance = rng.random()
    for name, share in PLAINER.items():
        if chance < share:
            return replace(clip, predicted=getattr(clip, name), error=np.full_like(clip.error, round(2 * 127.5 * ASSUMED_ERROR)))
        chance -= share
    return clip


def vary(rng: np.random.Generator, clip: Clip, frames: int, height: int, width: int) -> Clip:
    """A new clip from a pooled one: frame 0 and a later stretch, crop, size, mirror, colours."""
    start = int(rng.integers(1, LENGTH - frames + 2)) if rng.random() < 0.4 else 1
    index = np.concatenate([[0], np.arange(start, start + frames - 1)]).astype(int)
    if frames == 1:
        index = np.array([int(rng.integers(1, LENGTH))])
    share = rng.uniform(0.6, 1.0)
    ratio = SIDE / max(height, width)
    crop_h, crop_w = int(height * ratio * share), int(width * ratio * share)
    top, left = int(rng.integers(0, SIDE - crop_h + 1)), int(rng.integers(0, SIDE - crop_w + 1))
    mirror, colours, inverted = rng.random() < 0.5, rng.random() < 0.4, rng.random() < 0.1
    order = rng.permutation(3) if colours else np.arange(3)

    def cut(video: np.ndarray, method: int = cv2.INTER_AREA) -> np.ndarray:
        part = [cv2.resize(np.ascontiguousarray(video[i, top : top + crop_h, left : left + crop_w]), (width, height), interpolation=method)
                for i in index]  # fmt: skip
        return np.stack(part)[:, :, :: -1 if mirror else 1]

    truth, predicted = (cut(each)[..., order] for each in (clip.truth, clip.predicted))
    if inverted:
        truth, predicted = 255 - truth, 255 - predicted
    return Clip(truth, predicted, cut(clip.error), cut(clip.region.astype(np.uint8) * 255) > 40, predicted, predicted)


class Pool:
    """The pooled clips in memory; those that come while training runs are taken in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clips = folder, {}  # type: Path, dict[str, Clip]
        self.refresh()

    def refresh(self) -> None:
        """Read what is new."""
        for path in sorted(self.folder.glob("??????.npz")):
            if path.name not in self.clips and int(path.stem) % 16 != 15:  # one in sixteen is kept back
                self.clips[path.name] = read_clip(path)
        self.names = sorted(self.clips)

    def batch(self, rng: np.random.Generator, shape: tuple[int, int, int, int] | None = None) -> tuple[torch.Tensor, ...]:
        """Pixels [B, 3, T, H, W] in [-1, 1], M_cond [B, 1, T, H, W], V_cond [B, 3, T, H, W] and expected error [B, 1, T, H, W]."""
        count, frames, height, width = shape or SHAPES[rng.integers(len(SHAPES))]
        chosen = [self.clips[self.names[i]] for i in rng.integers(len(self.names), size=count)]
        parts = [make_sample(rng, vary(rng, draw_hint(rng, clip), frames, height, width)) for clip in chosen]
        return tuple(torch.stack(each) for each in zip(*parts, strict=True))


def make_sample(rng: np.random.Generator, clip: Clip) -> tuple[torch.Tensor, ...]:
    """Pixels, M_cond, V_cond and error of one clip."""
    pixels, predicted = (
        torch.from_numpy(np.ascontiguousarray(v)).permute(3, 0, 1, 2).float() / 127.5 - 1 for v in (clip.truth, clip.predicted)
    )
    given = draw_given(rng, torch.from_numpy(np.ascontiguousarray(clip.region)))
    error = torch.from_numpy(np.ascontiguousarray(clip.error)).float()[None] / 255
    if rng.random() < NO_PREDICTION:
        predicted, error = torch.zeros_like(predicted), torch.full_like(error, MAX_ERROR / 127.5)
    known = given > 0.5
    return pixels, given, torch.where(known, pixels, predicted), torch.where(known, MIN_ERROR / 127.5, error)


def draw_given(rng: np.random.Generator, region: torch.Tensor) -> torch.Tensor:
    """M_cond [1, T, H, W]: frame 0, all outside the region (mostly snapped to cells as in use), at times later frames too."""
    mask = union_latent_frames(snap_to_cells(region, (8, 8))) if rng.random() < 0.8 else region
    given = ~mask
    if len(given) > 1:
        given[0] = True
        kind = rng.random()
        if kind < 0.06:
            given[-4 if kind < 0.03 else -1 :] = True
        elif kind < 0.14:
            given[1:5] = True
        elif kind < 0.2:
            given[1:] = False
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
    """t in (0, 1], [B]: half of them 1, where the preset's one step starts, the others uniform and shifted toward noise."""
    even = torch.from_numpy(rng.random(count)).float()
    start = torch.from_numpy(rng.random(count)) < 0.5
    return torch.where(start, 1.0, SHIFT * even / (1 + (SHIFT - 1) * even))


def measure_std(codec: LappedCodec, pool: Pool, batches: int = 80) -> torch.Tensor:
    """How far latents lie from their prediction per unit of expected error, in cells to generate, per channel [z]."""
    rng, total, cells = np.random.default_rng(3), torch.zeros(codec.z_dim), torch.zeros(())
    for _ in range(batches):
        pixels, m_cond, v_cond, error = pool.batch(rng)
        hole = 1 - pack_mask(m_cond).amin(1, keepdim=True)
        unit = pack_error(error).square().mean(1, keepdim=True)
        total += ((codec.encode(pixels) - codec.encode(v_cond)).square() / unit * hole).clamp(max=200).sum((0, 2, 3, 4))
        cells += hole.sum()
    return (total / cells).sqrt()


def loss_of(model: torch.nn.Module, codec: LappedCodec, std: torch.Tensor, batch: tuple[torch.Tensor, ...], t: torch.Tensor,
            generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Weighted velocity loss; on cells to generate the plain loss, and that of the prediction as it is. The velocity is noise - data."""
    pixels, m_cond, v_cond, error = batch
    with torch.no_grad():
        target = codec.encode(pixels)
        mask, start, doubt = pack_mask(m_cond), codec.encode(v_cond), pack_error(error)
    noise = torch.randn(target.shape, generator=generator)
    blend = t.view(-1, 1, 1, 1, 1)
    noisy = (1 - blend) * target + blend * noise
    expected, factor, shown = precondition(noisy, start, t, compute_cell_std(doubt, std))
    text = pixels.new_zeros(len(t), 1, CONFIG["text_dim"])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.cat([shown, mask, start, doubt], 1), t * 1000, text, return_dict=False)[0]
    left = expected - (noise - target)
    error_now = (left + factor * out.float()).square().sum(1, keepdim=True)
    hole = 1 - mask.amin(1, keepdim=True)
    weight = 0.1 + hole
    # Per clip the logarithm counts, as decibels do: else the few clips whose prediction fails would be all that is learned from.
    per_clip = (error_now * weight).sum((1, 2, 3, 4)) / weight.sum((1, 2, 3, 4))
    cells = hole.sum().clamp(min=1)
    return (per_clip + 0.3).log().mean(), (error_now * hole).sum() / cells, (left.square().sum(1, keepdim=True) * hole).sum() / cells


@torch.no_grad()
def judge(model: torch.nn.Module, codec: LappedCodec, std: torch.Tensor, folder: Path) -> dict[str, float]:
    """PSNR in the region of clips kept back: the prediction, and one denoising step of the model from it."""
    rng, found = np.random.default_rng(9), []
    for path in sorted(folder.glob("??????.npz"))[:600]:
        if int(path.stem) % 16 != 15 or len(found) >= 24:
            continue
        clip = read_clip(path)
        pixels, m_cond, v_cond, error = (each[None] for each in make_sample(np.random.default_rng(int(path.stem)), clip))
        if error.max() >= MAX_ERROR / 127.5 or not (m_cond < 0.5).any():
            continue
        mask, start, doubt = pack_mask(m_cond), codec.encode(v_cond), pack_error(error)
        noise = torch.from_numpy(rng.standard_normal(start.shape)).float()
        one = torch.ones(1)
        expected, factor, shown = precondition(noise, start, one, compute_cell_std(doubt, std))
        with torch.autocast("cpu", torch.bfloat16):
            out = model(torch.cat([shown, mask, start, doubt], 1), one * 1000, torch.zeros(1, 1, CONFIG["text_dim"]), return_dict=False)[0]
        drawn = codec.decode(noise - expected - factor * out.float())
        hole = (m_cond < 0.5).expand_as(pixels)
        found.append(
            [10 * np.log10(4 / max(float((each - pixels)[hole].square().mean()), 1e-5)) for each in (v_cond, codec.decode(start), drawn)]
        )
    if not found:
        return {}
    predicted, coded, refined = np.mean(found, 0)
    return {"predicted_db": round(float(predicted), 2), "coded_db": round(float(coded), 2), "model_db": round(float(refined), 2)}


def main() -> None:
    """Train until the time is spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True, help="folder of predictions; may grow while training runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--blocks", type=Path, help="begin with the blocks of this transformer folder; other sizes in and out are fine")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler; a fifth faster")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    checkpoint = args.output / "transformer.pt"
    state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    pool = Pool(args.pool)
    print("clips", len(pool.names), flush=True)
    if (args.output / "vae").exists():
        codec = LappedCodec.from_pretrained(args.output / "vae")
    else:
        rng = np.random.default_rng(2)
        pixels = torch.cat([pool.batch(rng, (8, 9, 80, 80))[0] for _ in range(100)])
        codec = LappedCodec.fit(pixels, z_dim=Z_DIM, power=0.7)
        codec.save_pretrained(args.output / "vae")
    if not (args.output / PREDICTION_STD_FILE).exists():
        save_file({"std": measure_std(codec, pool)}, args.output / PREDICTION_STD_FILE)
    std = load_file(args.output / PREDICTION_STD_FILE)["std"]
    torch.manual_seed(0)
    model = set_single_token_attention(WanTransformer3DModel(**CONFIG))
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
        batch = pool.batch(rng)
        muon.param_groups[0]["lr"], adam.param_groups[0]["lr"] = clock.rate(args.rate), clock.rate(2e-3)
        loss, plain, before = loss_of(model, codec, std, batch, draw_times(rng, len(batch[0])), generator)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        average.update(model)
        step += 1
        if step % 200 == 0:
            pool.refresh()
        history.append((plain.item(), before.item()))
        if step % 25 == 0:
            now, linear = np.mean(history[-25:], 0)
            line = {
                "step": step,
                "minutes": round(clock.spent / 60, 2),
                "hole_loss": round(float(now), 4),
                "linear": round(float(linear), 4),
            }
            print(json.dumps(line), flush=True)
        if time.monotonic() - saved > 180 or clock.share >= 1:
            saved = time.monotonic()
            save_checkpoint(checkpoint, {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(),
                                         "average": average.values, "step": step, "spent": clock.spent})  # fmt: skip
            final = WanTransformer3DModel(**CONFIG)
            final.load_state_dict(average.values)
            final.save_pretrained(args.output / "transformer")
            print(json.dumps({"step": step, **judge(set_single_token_attention(final).eval(), codec, std, args.pool)}), flush=True)


if __name__ == "__main__":
    main()
