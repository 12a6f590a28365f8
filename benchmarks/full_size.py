"""Seconds and memory of a model at its real size, with random weights: one training step and one sampling step.

`PYTHONPATH=src python benchmarks/full_size.py --model wan2.1-i2v-480p --frames 49 --size 832x480 --output-dir FOLDER`. The transformer is
built from the catalogue's configuration, straight on the device; latents and embeddings are random: no encoder, no download.
Everything else is the product's own code. Without a GPU, or with --plan, it says what a run would need and ends.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lora_edit.devices import (
    compute_dtype,
    device_name,
    host_memory_bytes,
    matrix_rate,
    peak_memory_bytes,
    pick_device,
    reset_peak_memory,
    synchronise,
)
from lora_edit.errors import ModelError
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.catalog.facts import ModelFacts
from lora_edit.models.catalog.locate import locate
from lora_edit.models.cost import count_step
from lora_edit.models.family import EncodedSample, Family
from lora_edit.models.loading import Components, build_wan
from lora_edit.models.precision import settle
from lora_edit.seeds import named_generator
from lora_edit.training.loop import Stage, fit
from lora_edit.training.lora import add_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings

META = torch.device("meta")
TINY = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2}
"""A Wan that a CPU runs in a second."""
PICTURE_TOKENS = 257
"""Of one picture, by CLIP's ViT-H."""
SEED = 0


@dataclass(frozen=True)
class Task:
    """What is run: a model's facts and transformer configuration, and the clip as its autoencoder would leave it."""

    facts: ModelFacts
    config: dict[str, Any]
    frames: int
    height: int
    width: int
    rank: int

    @property
    def latent(self) -> tuple[int, int, int]:
        """F, h, w."""
        geometry = self.facts.geometry
        return (self.frames - 1) // geometry.group + 1, self.height // geometry.cell, self.width // geometry.cell

    @property
    def tokens(self) -> int:
        """That the transformer's blocks work on."""
        frames, height, width = self.latent
        patch = self.config["patch_size"]
        return frames * height * width // math.prod(patch)


@dataclass(frozen=True)
class Need:
    """What a run takes, counted on torch's meta device (`models/cost.py`): floating-point operations, and bytes."""

    weights_bytes: int
    autoencoder_bytes: int
    lora_parameters: int
    lora_bytes: int
    hidden_bytes: int
    step_bytes: int
    training_operations: float
    sampling_operations: float

    @property
    def device_bytes(self) -> int:
        """All of it at once: weights, LoRA with gradients and optimiser, and what a step holds, hidden states among it."""
        return self.weights_bytes + self.autoencoder_bytes + self.lora_bytes + self.step_bytes


# --- building -----------------------------------------------------------------------------------------------------------------


def random_family(task: Task, device: torch.device, dtype: torch.dtype) -> tuple[Family, torch.nn.Module]:
    """The model, and its autoencoder, with random weights that were never anywhere but on the device; on `META`, with none."""
    import diffusers

    with META:
        transformer = getattr(diffusers, task.config["_class_name"]).from_config(task.config)
    return MAKERS[task.config["_class_name"]].family(task, transformer, device, dtype)


def wan_family(task: Task, transformer: Any, device: torch.device, dtype: torch.dtype) -> tuple[Family, torch.nn.Module]:
    """Wan and its relatives, as `models/loading.py` puts them together."""
    import diffusers

    with META:
        autoencoder = diffusers.AutoencoderKLWan()
    settle(transformer, dtype)
    if device != META:
        fill(transformer.to_empty(device=device), device)
        fill(autoencoder.to_empty(device=device), device)
        # `to_empty` leaves the rotary table empty too, which no initialisation would fill.
        transformer.rope = type(transformer.rope)(*rope_arguments(transformer.rope)).to(device)
    parts = Components((transformer,), autoencoder, torch.nn.Identity(), lambda *_: None)
    # Experts take turns, so one of them is the whole of what is on the device.
    return build_wan(parts, replace(task.facts, parts=task.facts.parts[:1], boundary=None), device, dtype), autoencoder


def rope_arguments(rope: Any) -> tuple[Any, ...]:
    """What the rotary table is made of."""
    return rope.attention_head_dim, rope.patch_size, rope.max_seq_len


@torch.no_grad()
def fill(module: torch.nn.Module, device: torch.device) -> None:
    """Random weights at a scale that keeps activations finite; norms as they begin. Drawn on the device: they do not fit elsewhere."""
    generator = torch.Generator(device).manual_seed(SEED)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "gamma" not in name:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def random_sample(task: Task, device: torch.device, dtype: torch.dtype, name: str = "sample") -> EncodedSample:
    """What `encode_sample` gives for a motion sample, random."""
    return MAKERS[task.config["_class_name"]].sample(task, device, dtype, name)


def wan_sample(task: Task, device: torch.device, dtype: torch.dtype, name: str) -> EncodedSample:
    """Of Wan and its relatives: half of the cells are to be generated."""
    generator, config, latent = named_generator(SEED, name), task.config, task.latent
    z_dim = config["out_channels"]
    group = config["in_channels"] - 2 * z_dim

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    mask = (torch.rand(1, group, *latent, generator=generator) > 0.5).to(device, dtype)
    pictures = 2 if task.facts.last_frame else 1
    return EncodedSample(
        condition=torch.cat([mask, drawn(1, z_dim, *latent)], 1),
        generate=1 - mask.amin(1, keepdim=True).float(),
        prompt_embeds=drawn(1, task.facts.text_length, config["text_dim"]),
        target=drawn(1, z_dim, *latent).float(),
        image_embeds=drawn(pictures, PICTURE_TOKENS, config["image_dim"]) if config["image_dim"] else None,
    )


@dataclass(frozen=True)
class Maker:
    """How models of one transformer class are put together, and what their samples hold."""

    family: Callable[[Task, Any, torch.device, torch.dtype], tuple[Family, torch.nn.Module]]
    sample: Callable[[Task, torch.device, torch.dtype, str], EncodedSample]


WAN = Maker(wan_family, wan_sample)
MAKERS = {"WanTransformer3DModel": WAN, "SkyReelsV2Transformer3DModel": WAN}
"""By transformer class; a further family of models is a further pair of functions."""


# --- counting -----------------------------------------------------------------------------------------------------------------


def need(task: Task) -> Need:
    """Count a step as it would run in bfloat16, without weights."""
    family, autoencoder = random_family(task, META, torch.bfloat16)
    expert = family.experts()[0]
    add_lora(expert, LoraSettings(rank=task.rank), SEED)
    sample = random_sample(task, META, torch.bfloat16)
    latents, time = torch.zeros(1, family.z_dim, *task.latent, device=META), torch.zeros(1, device=META)
    cost = count_step(expert.transformer, lambda: expert.predict_velocity(latents, time, sample))
    return Need(
        weights_bytes=sum(cost.block_bytes) + cost.rest_bytes,
        autoencoder_bytes=sum(each.nbytes for each in autoencoder.parameters()),
        lora_parameters=cost.trained,
        lora_bytes=4 * 4 * cost.trained,  # float32: itself, its gradient, AdamW's two moments
        hidden_bytes=len(cost.block_bytes) * cost.border_bytes,
        step_bytes=cost.step_bytes,
        training_operations=cost.step,
        sampling_operations=2 * cost.forward,  # guidance takes two passes
    )


# --- measuring ----------------------------------------------------------------------------------------------------------------


@dataclass
class Laps:
    """Seconds between calls, the first left out: it warms up."""

    device: torch.device
    at: list[float]

    def lap(self) -> None:
        """One more."""
        synchronise(self.device)
        self.at.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """Of each step but the first."""
        return [later - now for now, later in zip(self.at[1:-1], self.at[2:], strict=True)]


@contextmanager
def watched(device: torch.device) -> Iterator[Laps]:
    """Laps, and peak memory from here on."""
    reset_peak_memory(device)
    laps = Laps(device, [])
    laps.lap()
    yield laps


def measure(task: Task, device: torch.device, dtype: torch.dtype, steps: int, matrix: int) -> dict[str, Any]:
    """Both steps on the device. The LoRA is the product's; `fit` and `denoise` are what an edit runs."""
    rate = matrix_rate(device, dtype, matrix)
    family, _ = random_family(task, device, dtype)
    expert = family.experts()[0]
    parameters = add_lora(expert, LoraSettings(rank=task.rank), SEED)
    sample, negative = (random_sample(task, device, dtype, name) for name in ("sample", "negative"))
    out: dict[str, Any] = {"matrix_rate": rate}
    with watched(device) as laps:
        stage = Stage("motion", [sample], [1.0], steps + 1)
        out["losses"] = fit(expert, parameters, [stage], TrainingSettings(), SEED, None, "", lambda *_: laps.lap())
    out |= {"training_seconds": laps.seconds, "training_peak_bytes": peak_memory_bytes(device)}
    negative = replace(sample, prompt_embeds=negative.prompt_embeds)
    with watched(device) as laps:
        settings = GenerationSettings(steps=steps + 1)
        latents = denoise(family, sample, settings, named_generator(SEED, "noise"), negative=negative, on_step=lambda *_: laps.lap())
    assert latents.isfinite().all(), "sampling broke: the weights' scale is at fault"
    return out | {
        "sampling_seconds": laps.seconds,
        "sampling_peak_bytes": peak_memory_bytes(device),
        "host_peak_bytes": host_memory_bytes(),
    }


# --- reporting ----------------------------------------------------------------------------------------------------------------


def record_of(task: Task, counted: Need, command: str) -> dict[str, Any]:
    """What was asked and counted, and where."""
    return {
        "model": task.facts.name,
        "frames": task.frames,
        "size": f"{task.width}x{task.height}",
        "tokens": task.tokens,
        "lora_rank": task.rank,
        "need": asdict(counted) | {"device_bytes": counted.device_bytes},
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("torch", "diffusers", "peft")} | {"python": platform.python_version()},
    }


def finished(record: dict[str, Any], measured: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The record with what was measured, and the shares of the matrix rate that were reached."""
    shares = {}
    for kind in ("training", "sampling"):
        rate = record["need"][f"{kind}_operations"] / median(measured[f"{kind}_seconds"])
        shares[f"{kind}_share"] = rate / measured["matrix_rate"]
    return record | {"device": device_name(device), "dtype": str(dtype).removeprefix("torch."), "measured": measured | shares}


def page(record: dict[str, Any]) -> str:
    """The record as markdown."""
    wanted, measured = record["need"], record.get("measured")
    rows = [
        ("transformer", f"{gigabytes(wanted['weights_bytes'])} of weights in bfloat16"),
        (
            "LoRA",
            f"rank {record['lora_rank']}, {wanted['lora_parameters'] / 1e6:.1f} million parameters, {gigabytes(wanted['lora_bytes'])}",
        ),
        ("clip", f"{record['frames']} frames of {record['size']}, {record['tokens']} tokens"),
        ("training step", f"{wanted['training_operations']:.2e} floating-point operations"),
        ("sampling step", f"{wanted['sampling_operations']:.2e} floating-point operations, guidance included"),
        ("device memory, estimated", f"{gigabytes(wanted['device_bytes'])} with {gigabytes(wanted['hidden_bytes'])} of hidden states"),
    ]
    if measured:
        rows += [
            ("device", f"{record['device']}, {record['dtype']}"),
            ("matrix rate", f"{measured['matrix_rate']:.2e} operations a second"),
        ]
        for kind in ("training", "sampling"):
            peak = measured[f"{kind}_peak_bytes"]
            rows.append(
                (f"{kind} step, measured", f"{median(measured[f'{kind}_seconds']):.3g} s, {measured[f'{kind}_share']:.0%} of that rate")
            )
            rows.append((f"{kind} memory, measured", "not told by this device" if peak is None else gigabytes(peak)))
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    head = (
        f"# {record['model']}, {record['frames']} frames of {record['size']}\n\nRandom weights: the figures are of time and memory alone."
    )
    table = "\n".join(["| what | |", "|---|---|", *(f"| {what} | {text} |" for what, text in rows)])
    return f"{head}\n\n{table}\n\n`{record['command']}`, {record['date']}, {versions}\n"


def gigabytes(size: float) -> str:
    """Decimal."""
    return f"{size / 1e9:.3g} GB"


# --- asking -------------------------------------------------------------------------------------------------------------------


def task_of(args: argparse.Namespace, fail: Callable[[str], Any]) -> Task:
    """The task that the options name; `fail` is told what is wrong with them."""
    try:
        facts = locate(args.model)[0]
    except ModelError as error:
        fail(str(error))
    config = facts.transformer_config()
    if config.get("_class_name") not in MAKERS or not facts.text_length:
        fail(f"{args.model}: this benchmark builds models of {' and '.join(MAKERS)} with a text encoder; choose another")
    if config["in_channels"] != 2 * config["out_channels"] + facts.geometry.group:
        fail(f"{args.model}: takes its condition another way than Wan's image-to-video models; choose another")
    if args.scale == "tiny":
        config |= TINY | ({"image_dim": 16, "added_kv_proj_dim": 24} if config["image_dim"] else {})
    frames, size = args.frames, args.size
    if args.scale == "tiny":
        frames, size = 5, "48x32"
    width, _, height = size.partition("x")
    geometry = facts.geometry
    if not (width.isdecimal() and height.isdecimal()) or int(width) % geometry.token or int(height) % geometry.token:
        fail(f"--size {size}: give WIDTHxHEIGHT in multiples of {geometry.token}")
    if frames < 1 or (frames - 1) % geometry.group:
        fail(f"--frames {frames}: give a multiple of {geometry.group} plus 1")
    return Task(facts, config, frames, int(height), int(width), args.rank)


def main(arguments: Sequence[str]) -> None:
    """Parse, count, measure where there is something to measure on, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="wan2.1-i2v-480p", help="a name of the catalogue")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--size", default="832x480", help="WIDTHxHEIGHT")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that warms up")
    parser.add_argument("--rank", type=int, default=16, help="of the LoRA")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny: the same on a model that a CPU runs in a second")
    parser.add_argument("--plan", action="store_true", help="say what a run would need, and end")
    parser.add_argument("--json", action="store_true", help="print the record as JSON instead of markdown")
    parser.add_argument("--output-dir", type=Path, help="write both there")
    args = parser.parse_args(arguments)
    task = task_of(args, parser.error)
    device = pick_device()
    record = record_of(task, need(task), shlex.join(["python", "benchmarks/full_size.py", *arguments]))
    bare = device.type == "cpu" and args.scale == "full"
    if bare or args.plan:
        record["note"] = "there is no GPU here, so nothing was measured" if bare else "nothing was measured (--plan)"
        print(f"{record['note']}; a run needs about {gigabytes(record['need']['device_bytes'])} of device memory", file=sys.stderr)
    else:
        dtype = compute_dtype(device)
        measured = measure(task, device, dtype, args.steps, 8192 if args.scale == "full" else 256)
        record = finished(record, measured, device, dtype)
    text = json.dumps(record, indent=1)
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        stem = args.output_dir / f"full-size-{task.facts.name}-{task.frames}-{task.width}x{task.height}"
        stem.with_name(stem.name + ".json").write_text(text + "\n", "utf-8")
        stem.with_name(stem.name + ".md").write_text(page(record), "utf-8")
    print(text if args.json else page(record))


if __name__ == "__main__":
    main(sys.argv[1:])
