"""Cost of a training step on this machine: `PYTHONPATH=src python benchmarks/training_step.py --output-dir docs/benchmarks`.

Four measurements, all with random weights: comparison with a plain loop of diffusers and PEFT on the same model; growth with the
number of tokens, and the reached share of the machine's matrix rate; the cost of swapped blocks, offloaded states and 8-bit weights; and
main memory over many steps. Writes a page and a plot.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from peft import LoraConfig

from lora_edit.devices import get_device_name, measure_matmul_rate, pick_compute_dtype, pick_device, synchronize_device
from lora_edit.models.families.base import FamilyParts
from lora_edit.models.families.embedded.record import TINY
from lora_edit.models.families.wan.conditioning import WAN_TARGETS, WanFamily
from lora_edit.models.family import EncodedSample
from lora_edit.models.record import Geometry
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.offload_plan import OffloadPlan, apply_offload_plan
from lora_edit.models.runtime.precision import cast_and_freeze
from lora_edit.models.runtime.step_cost import count_step_cost
from lora_edit.training.loop import Stage, fit
from lora_edit.training.lora import add_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings

LATENTS, RANK = 16, 16
Latent = tuple[int, int, int]
LENGTHS = ((3, 16, 28), (3, 24, 40), (5, 24, 40), (7, 24, 40), (5, 36, 60), (7, 36, 60), (13, 36, 60))
"""Latent frames, rows and columns of clips: 9 to 49 frames, 224x128 to 480x288."""


@dataclass(frozen=True)
class Model:
    """A Wan transformer of some width and depth, with a sample for it."""

    width: int
    blocks: int
    text: int = 32

    def family(self, device: torch.device, dtype: torch.dtype) -> WanFamily:
        """Random weights, the same each time."""
        torch.manual_seed(0)
        with device:
            transformer = WanTransformer3DModel(
                num_attention_heads=self.width // 64, attention_head_dim=64, in_channels=2 * LATENTS + 4, out_channels=LATENTS, text_dim=64,
                freq_dim=64, ffn_dim=4 * self.width, num_layers=self.blocks, rope_max_seq_len=64,
            )  # fmt: skip
        transformer.enable_gradient_checkpointing()
        cast_and_freeze(transformer.requires_grad_(False), dtype)
        record = replace(TINY, name="random", geometry=Geometry(8, 4, 16, 49, 1))
        parts = FamilyParts(record, transformer, Codec(), lambda _: torch.zeros(()), None, DeviceManager(device), dtype)
        return WanFamily(parts)

    def sample(self, latent: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> EncodedSample:
        """A clip of noise."""
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        condition, target = drawn(1, LATENTS + 4, *latent), drawn(1, LATENTS, *latent).float()
        return EncodedSample(condition, torch.ones(1, 1, *latent, device=device), drawn(1, self.text, 64), target)


class Codec:
    """A placeholder for an autoencoder; it never encodes."""

    z_dim = LATENTS

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Raise; never called."""
        raise NotImplementedError

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Raise; never called."""
        raise NotImplementedError


# --- two loops ----------------------------------------------------------------------------------------------------------------


def plain_steps(family: WanFamily, sample: EncodedSample, steps: int) -> list[float]:
    """Measure the seconds of each step of a loop like diffusers' training examples: plain PEFT, AdamW, checkpointed blocks."""
    transformer: Any = family.transformer
    device, dtype = sample.condition.device, family.parts.dtype
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=WAN_TARGETS["attention+ffn"]))
    trained = [each for each in transformer.parameters() if each.requires_grad]
    for each in trained:
        each.data = each.data.float()
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    transformer.train()
    seconds = []
    assert sample.target is not None
    for _ in range(steps):
        synchronize_device(device)
        started = time.perf_counter()
        noise = torch.randn_like(sample.target)
        time_drawn = torch.rand(1, device=device)
        noisy = (1 - time_drawn) * sample.target + time_drawn * noise
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            shown = torch.cat([noisy.to(dtype), sample.condition], 1)
            out = transformer(shown, time_drawn * 1000, sample.prompt_embeds, return_dict=False)[0]
        loss = F.mse_loss(out.float(), noise - sample.target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
        synchronize_device(device)
        seconds.append(time.perf_counter() - started)
    transformer.delete_adapters("default")
    return seconds


def our_steps(family: WanFamily, sample: EncodedSample, steps: int, each: Callable[[], None] = lambda: None) -> list[float]:
    """Measure the seconds of each step of an edit's training."""
    parameters = add_lora(family, LoraSettings(rank=RANK), 0)
    device, at = sample.condition.device, [time.perf_counter()]

    def on_step(*_: object) -> None:
        synchronize_device(device)
        at.append(time.perf_counter())
        each()

    fit(family, parameters, [Stage("motion", [sample], [1.0], steps)], TrainingSettings(), 0, None, "", on_step)
    return list(np.diff(at))


# --- four questions -----------------------------------------------------------------------------------------------------------


def against_plain(model: Model, device: torch.device, dtype: torch.dtype, rounds: int, steps: int) -> dict[str, Any]:
    """Compute medians of many steps of both loops in turns, so that other load affects both."""
    sample, taken = model.sample(LENGTHS[2], device, dtype), {"plain": [], "ours": []}  # type: dict[str, list[float]]
    ratios = []
    loops = [("plain", plain_steps), ("ours", our_steps)]
    for number in range(rounds):
        # Who comes second is slower by some percent, whichever it is.
        found = {name: loop(model.family(device, dtype), sample, steps)[1:] for name, loop in loops[:: (-1) ** number]}
        ratios.append(median(found["ours"]) / median(found["plain"]))
        for name, seconds in found.items():
            taken[name] += seconds
    return {
        **{name: median(seconds) for name, seconds in taken.items()},
        "ratio": median(ratios),
        "ratios": ratios,
        "steps": len(taken["ours"]),
    }


def by_tokens(model: Model, lengths: Sequence[Latent], device: torch.device, dtype: torch.dtype, steps: int) -> list[dict[str, float]]:
    """Measure seconds of a step, its operations, and the share of the matrix rate, by the number of tokens."""
    rows = []
    for latent in lengths:
        seconds = median(our_steps(model.family(device, dtype), model.sample(latent, device, dtype), steps + 1)[1:])
        meta = torch.device("meta")
        family, sample = model.family(meta, dtype), model.sample(latent, meta, dtype)
        add_lora(family, LoraSettings(rank=RANK), 0)
        assert sample.target is not None
        cost = count_step_cost(family.transformer, partial(family.predict_velocity, sample.target, torch.zeros(1, device=meta), sample))
        frames, rows_, columns = latent
        tokens = frames * rows_ * columns // 4
        share = cost.step_flops / seconds / measure_matmul_rate(device, dtype)
        rows.append(
            {"frames": 4 * frames - 3, "width": 8 * columns, "height": 8 * rows_, "tokens": tokens, "seconds": seconds, "share": share}
        )
        print(f"{rows[-1]}", file=sys.stderr)
    return rows


def fitted(rows: Sequence[dict[str, float]]) -> tuple[np.ndarray, float]:
    """Fit a, b and c of a + b n + c n^2 seconds, by least squares of the relative error; also returns the largest relative error."""
    tokens, seconds = (np.array([row[name] for row in rows]) for name in ("tokens", "seconds"))
    terms = np.stack([np.ones_like(tokens, dtype=float), tokens, tokens.astype(float) ** 2], -1)
    answer = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(rows)), rcond=None)[0]
    return answer, float(np.abs(terms @ answer / seconds - 1).max())


def by_placement(model: Model, device: torch.device, dtype: torch.dtype, steps: int) -> list[dict[str, Any]]:
    """Measure seconds of a step with more and more of the model in main memory, relative to all of it on the device, in turns."""
    places = [OffloadPlan(), OffloadPlan(model.blocks // 2), OffloadPlan(model.blocks), OffloadPlan(model.blocks, offload_activations=True)]
    places += [OffloadPlan(weight_format="int8"), OffloadPlan(weight_format="fp8"), OffloadPlan(model.blocks, "int8")]
    sample, taken = model.sample(LENGTHS[2], device, dtype), [[] for _ in places]  # type: list[list[float]]
    for _ in range(3):
        for place, seconds in zip(places, taken, strict=True):
            family = model.family(device, dtype)
            apply_offload_plan(family, place)
            seconds += our_steps(family, sample, steps + 1)[1:]
    whole = median(taken[0])
    return [{**vars(place), "ratio": median(seconds) / whole} for place, seconds in zip(places, taken, strict=True)]


def memory_over(steps: int) -> list[int]:
    """Measure bytes of main memory of the process, after every tenth step, with half of the blocks swapped."""
    device, model, held = torch.device("cpu"), Model(64, 4), []  # type: torch.device, Model, list[int]
    family = model.family(device, torch.float32)
    apply_offload_plan(family, OffloadPlan(2, "int8", True))
    process = psutil.Process()
    our_steps(family, model.sample((2, 8, 8), device, torch.float32), steps, lambda: held.append(process.memory_info().rss))
    return held[9::10]


# --- reporting ----------------------------------------------------------------------------------------------------------------


def draw(found: dict[str, Any], path: Path) -> None:
    """Plot seconds by tokens with the fit, and memory by steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows, (constant, linear, square) = found["tokens"], found["fit"]
    at = np.linspace(0, 1.05 * max(row["tokens"] for row in rows), 100)
    left.plot(at, constant + linear * at + square * at**2, color="grey", label="fit: a + b n + c n²")
    left.plot([row["tokens"] for row in rows], [row["seconds"] for row in rows], "o", label="measured")
    left.set(xlabel="tokens n", ylabel="seconds a step", ylim=(0, None), title="A training step by its tokens")
    left.legend()
    held = np.array(found["memory"]) / 1e6
    right.plot(10 * np.arange(1, len(held) + 1), held)
    right.set(xlabel="step", ylabel="MB of main memory", ylim=(0, 1.2 * held.max()), title="Memory over a run")
    figure.savefig(path, dpi=100)


def page(found: dict[str, Any]) -> str:
    """Format the results as Markdown."""
    plain, held, (a, b, c) = found["plain"], found["memory"], found["fit"]
    lines = [
        "# A training step",
        "",
        f"`{found['command']}` on {found['machine']}, {found['date']}. Random weights, "
        f"{found['model']['blocks']} blocks of width {found['model']['width']}, LoRA of rank {RANK} on attention and feed-forward.",
        "",
        "## Against a plain loop of diffusers and PEFT",
        "",
        "The same model, checkpointed blocks, AdamW, one clip; ours also resumes, repeats itself to the byte and takes masks.",
        "",
        "| | median of a step, s |",
        "|---|---|",
        f"| plain diffusers and PEFT | {plain['plain']:.3f} |",
        f"| ours | {plain['ours']:.3f} |",
        "",
        f"Ratio **{plain['ratio']:.3f}**, the median of {len(plain['ratios'])} turns "
        f"({', '.join(f'{ratio:.3f}' for ratio in plain['ratios'])}), {plain['steps']} steps of each.",
        "",
        "## By frames and size",
        "",
        f"![Seconds by tokens, and memory by steps]({found['plot']})",
        "",
        "| frames | size | tokens | s a step | of the matrix rate |",
        "|---|---|---|---|---|",
        *(
            f"| {row['frames']} | {row['width']}x{row['height']} | {row['tokens']} | {row['seconds']:.3f} | {row['share']:.0%} |"
            for row in found["tokens"]
        ),
        "",
        f"Fit: {a:.3g} + {b:.3g} n + {c:.3g} n² seconds for n tokens, off by {found['fit_error']:.0%} at most. A region of a third of the "
        f"frame, at the frame's own scale, takes {found['third']:.0%} of the step that the whole frame takes.",
        "",
        "## With less on the device",
        "",
        "| blocks in main memory | frozen weights | hidden states | time against all there |",
        "|---|---|---|---|",
        *(
            f"| {row['blocks_to_swap']} | {row['weight_format']} | {'main memory' if row['offload_activations'] else 'device'} | "
            f"{row['ratio']:.2f} |"
            for row in found["places"]
        ),
        "",
        "On a CPU the two memories are one: this is what copying and the arithmetic of 8 bits cost, with nothing to hide them behind.",
        "",
        "## Main memory over a run",
        "",
        f"{held[min(4, len(held) - 1)] / 1e6:.0f} MB after 50 steps, {held[-1] / 1e6:.0f} MB after {10 * len(held)}, with swapped blocks, "
        "8-bit weights and offloaded states.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Run the four measurements and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5, help="turns between the two loops")
    parser.add_argument("--steps", type=int, default=8, help="steps a turn")
    parser.add_argument("--memory-steps", type=int, default=500)
    parser.add_argument("--lengths", type=int, default=len(LENGTHS), help="so many of the clips' lengths, the shortest first")
    parser.add_argument("--output-dir", type=Path, default=Path("benchmark-output"))
    args = parser.parse_args(arguments)
    device = pick_device()
    dtype, model = pick_compute_dtype(device), Model(args.width, args.blocks)
    found: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/training_step.py", *arguments]),
        "machine": f"{get_device_name(device)}, {torch.get_num_threads()} threads, {platform.system()}, torch {version('torch')}",
        "date": datetime.now(UTC).date().isoformat(),
        "model": vars(model),
        "memory": memory_over(args.memory_steps),
        "plain": against_plain(model, device, dtype, args.rounds, args.steps),
        "places": by_placement(model, device, dtype, args.steps),
        "tokens": by_tokens(model, LENGTHS[: args.lengths], device, dtype, max(2, args.steps // 2)),
        "plot": "training-step.png",
    }
    answer, found["fit_error"] = fitted(found["tokens"])
    found["fit"] = answer.tolist()
    most = max(row["tokens"] for row in found["tokens"])
    cost = [answer[0] + answer[1] * n + answer[2] * n**2 for n in (most / 3, most)]
    found["third"] = cost[0] / cost[1]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    draw(found, args.output_dir / found["plot"])
    (args.output_dir / "training-step.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (args.output_dir / "training-step.md").write_text(page(found), "utf-8")
    print(page(found))


if __name__ == "__main__":
    main(sys.argv[1:])
