"""Seconds and memory of a model at its real size, with random weights: one training step and one sampling step.

`PYTHONPATH=src python benchmarks/full_size.py --model wan2.1-i2v-480p --frames 49 --size 832x480 --output-dir FOLDER`. The transformer is
built from the package's configuration, directly on the device; latents and embeddings are random: no encoder, no download.
Everything else is the package's own code. Without a GPU, or with --plan, it prints the requirements of a run and ends.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import tempfile
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
    get_device_name,
    get_peak_host_memory_bytes,
    get_peak_memory_bytes,
    measure_matmul_rate,
    pick_compute_dtype,
    pick_device,
    reset_peak_memory,
    synchronize_device,
)
from lora_edit.errors import ModelError
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.checkpoints.locate import locate_model
from lora_edit.models.family import EncodedSample, Family
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.meta_model import build_meta_model, has_meta_model
from lora_edit.models.runtime.offload_plan import OffloadPlan, apply_offload_plan
from lora_edit.models.runtime.step_cost import count_step_cost
from lora_edit.seeds import create_generator
from lora_edit.training.loop import Stage, fit
from lora_edit.training.lora import add_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings

META = torch.device("meta")
TINY = {
    "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2, "image_dim": 16,
    "added_kv_proj_dim": 24, "num_single_layers": 2, "num_refiner_layers": 1, "rope_axes_dim": [4, 4, 4], "text_embed_dim": 16,
    "pooled_projection_dim": 16, "caption_channels": 16, "cross_attention_dim": 24,
}  # fmt: skip
"""Widths and depths with which a CPU runs a step in a second."""
TINY_TEXT = 512
NOTHING_MOVED = OffloadPlan()
SEED = 0


@dataclass(frozen=True)
class Task:
    """The task: a model's record, the size of the clip's latents, and the placement of the model's weights and states."""

    facts: ModelRecord
    frames: int
    height: int
    width: int
    rank: int
    place: OffloadPlan = NOTHING_MOVED

    @property
    def latent(self) -> tuple[int, int, int]:
        """F, h, w."""
        geometry = self.facts.geometry
        return (
            (self.frames - 1) // geometry.temporal_compression + 1,
            self.height // geometry.spatial_compression,
            self.width // geometry.spatial_compression,
        )

    @property
    def tokens(self) -> int:
        """Number of tokens of the transformer's blocks."""
        frames, height, width = self.latent
        patch = self.facts.geometry.token_size // self.facts.geometry.spatial_compression
        return frames * height * width // patch**2


@dataclass(frozen=True)
class Need:
    """Requirements of a run, counted on torch's meta device (`models/runtime/step_cost.py`): floating-point operations, and bytes."""

    weights_bytes: int
    lora_parameters: int
    lora_bytes: int
    hidden_bytes: int
    step_bytes: int
    training_operations: float
    sampling_operations: float

    @property
    def device_bytes(self) -> int:
        """Total bytes on the device: weights, LoRA with gradients and optimizer, and a step's tensors, hidden states included."""
        return self.weights_bytes + self.lora_bytes + self.step_bytes


# --- building -----------------------------------------------------------------------------------------------------------------


def random_family(task: Task, device: torch.device, dtype: torch.dtype) -> tuple[Family, EncodedSample]:
    """Build the model, and a motion sample with half of its cells to be generated. Random values are drawn on the device; on `META` there
    are none."""
    family: Any
    family, encoded = build_meta_model(task.facts, task.latent, dtype)
    if device == META:
        return family, encoded
    transformer = family.transformer
    fill(transformer.to_empty(device=device), device)
    if next(transformer.rope.buffers(), None) is not None:
        # `to_empty` leaves the rotary table empty too, which no initialisation would fill.
        rope = transformer.rope
        transformer.rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len).to(device)
    transformer.enable_gradient_checkpointing()
    family.device_manager = DeviceManager(device)
    family.parts = replace(family.parts, device_manager=family.device_manager)
    return family, random_sample(encoded, device)


@torch.no_grad()
def fill(module: torch.nn.Module, device: torch.device) -> None:
    """Fill a module with random weights at a scale that keeps activations finite; norms keep their initial values. Draws on the device."""
    generator = torch.Generator(device).manual_seed(SEED)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "gamma" not in name:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def random_sample(encoded: EncodedSample, device: torch.device, name: str = "sample") -> EncodedSample:
    """Build a random sample as `encode_sample` returns for a motion sample."""
    generator = create_generator(SEED, name)

    def drawn(blank: torch.Tensor) -> torch.Tensor:
        # What has values already is packed text, whose layout they tell.
        return blank.to(device) if blank.device != META else torch.randn(blank.shape, generator=generator).to(device, blank.dtype)

    made = {key: drawn(value) for key, value in vars(encoded).items() if value is not None}
    return EncodedSample(**made | {"hole": (made["hole"] > 0).float(), "target": made["target"].float()})


# --- counting -----------------------------------------------------------------------------------------------------------------


def need(task: Task) -> Need:
    """Count a step as it would run in bfloat16, without weights."""
    family, sample = random_family(task, META, torch.bfloat16)
    expert = family.experts()[0]
    add_lora(expert, LoraSettings(rank=task.rank), SEED)
    latents, time = torch.zeros(1, family.z_dim, *task.latent, device=META), torch.zeros(1, device=META)
    cost = count_step_cost(expert.transformer, lambda: expert.predict_velocity(latents, time, sample))
    return Need(
        weights_bytes=sum(cost.block_bytes) + cost.rest_bytes,
        lora_parameters=cost.num_trainable,
        lora_bytes=4 * 4 * cost.num_trainable,  # float32: itself, its gradient, AdamW's two moments
        hidden_bytes=len(cost.block_bytes) * cost.hidden_state_bytes,
        step_bytes=cost.step_peak_bytes,
        training_operations=cost.step_flops,
        sampling_operations=2 * cost.forward_flops,  # guidance takes two passes
    )


# --- measuring ----------------------------------------------------------------------------------------------------------------


@dataclass
class Laps:
    """Seconds between calls; the first, a warm-up, is left out."""

    device: torch.device
    at: list[float]

    def lap(self) -> None:
        """Record one lap."""
        synchronize_device(self.device)
        self.at.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """Seconds of each step but the first."""
        return [later - now for now, later in zip(self.at[1:-1], self.at[2:], strict=True)]


@contextmanager
def watched(device: torch.device) -> Iterator[Laps]:
    """Record laps, and the peak memory from now on."""
    reset_peak_memory(device)
    laps = Laps(device, [])
    laps.lap()
    yield laps


def measure(task: Task, device: torch.device, dtype: torch.dtype, steps: int, matrix: int) -> dict[str, Any]:
    """Measure both steps on the device with the functions of an edit, `fit` and `denoise`."""
    rate = measure_matmul_rate(device, dtype, matrix)
    family, sample = random_family(task, device, dtype)
    apply_offload_plan(family, task.place)
    expert = family.experts()[0]
    parameters = add_lora(expert, LoraSettings(rank=task.rank), SEED)
    expert.to_device()
    out: dict[str, Any] = {"matrix_rate": rate}
    with watched(device) as laps:
        stage = Stage("motion", [sample], [1.0], steps + 1)
        (out["losses"],) = fit(expert, parameters, [stage], TrainingSettings(), SEED, None, "", lambda *_: laps.lap())
    out |= {"training_seconds": laps.seconds, "training_peak_bytes": get_peak_memory_bytes(device)}
    negative = replace(sample, prompt_embeds=sample.prompt_embeds.clone())
    with watched(device) as laps:
        settings = GenerationSettings(steps=steps + 1)
        latents = denoise(family, sample, settings, create_generator(SEED, "noise"), negative=negative, on_step=lambda *_: laps.lap())
    assert latents.isfinite().all(), "sampling broke: the weights' scale is at fault"
    return out | {
        "sampling_seconds": laps.seconds,
        "sampling_peak_bytes": get_peak_memory_bytes(device),
        "host_peak_bytes": get_peak_host_memory_bytes(),
    }


# --- reporting ----------------------------------------------------------------------------------------------------------------


def record_of(task: Task, counted: Need, command: str) -> dict[str, Any]:
    """Build the record of the task, its counts and the machine."""
    return {
        "model": task.facts.name,
        "frames": task.frames,
        "size": f"{task.width}x{task.height}",
        "tokens": task.tokens,
        "lora_rank": task.rank,
        "place": asdict(task.place),
        "need": asdict(counted) | {"device_bytes": counted.device_bytes},
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("torch", "diffusers", "peft")} | {"python": platform.python_version()},
    }


def finished(record: dict[str, Any], measured: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Add the measurements, and the reached shares of the matrix rate, to the record."""
    shares = {}
    for kind in ("training", "sampling"):
        rate = record["need"][f"{kind}_operations"] / median(measured[f"{kind}_seconds"])
        shares[f"{kind}_share"] = rate / measured["matrix_rate"]
    return record | {"device": get_device_name(device), "dtype": str(dtype).removeprefix("torch."), "measured": measured | shares}


def page(record: dict[str, Any]) -> str:
    """Format the record as Markdown."""
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
        (
            "device memory, estimated, all of it there",
            f"{gigabytes(wanted['device_bytes'])} with {gigabytes(wanted['hidden_bytes'])} of hidden states",
        ),
    ]
    place = record["place"]
    if place["blocks_to_swap"] or place["offload_activations"] or place["weight_format"] != "full":
        states = ", hidden states too" if place["offload_activations"] else ""
        rows.append(("main memory", f"{place['blocks_to_swap']} blocks wait there{states}; frozen weights: {place['weight_format']}"))
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
    """Format bytes in decimal gigabytes."""
    return f"{size / 1e9:.3g} GB"


# --- asking -------------------------------------------------------------------------------------------------------------------


def task_of(args: argparse.Namespace, fail: Callable[[str], Any]) -> Task:
    """Build the task of the options; calls `fail` with the reason for invalid ones."""
    try:
        facts = locate_model(args.model)[0]
    except ModelError as error:
        fail(str(error))
    if not has_meta_model(facts):
        fail(f"{args.model}: this benchmark builds the large models that can be counted; choose another")
    frames, size = args.frames, args.size
    if args.scale == "tiny":
        facts, frames, size = (
            shrunk(facts),
            facts.geometry.temporal_compression + 1,
            f"{3 * facts.geometry.token_size}x{2 * facts.geometry.token_size}",
        )
    width, _, height = size.partition("x")
    geometry = facts.geometry
    if not (width.isdecimal() and height.isdecimal()) or int(width) % geometry.token_size or int(height) % geometry.token_size:
        fail(f"--size {size}: give WIDTHxHEIGHT in multiples of {geometry.token_size}")
    if frames < 1 or (frames - 1) % geometry.temporal_compression:
        fail(f"--frames {frames}: give a multiple of {geometry.temporal_compression} plus 1")
    return Task(facts, frames, int(height), int(width), args.rank, OffloadPlan(args.swap, args.base, args.park))


def shrunk(facts: ModelRecord) -> ModelRecord:
    """Write the model's configuration, reduced so that a CPU runs it in a second, into a file."""
    config = facts.read_transformer_config()
    small = {key: value for key, value in TINY.items() if config.get(key) is not None}
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(config | small, file)
    return replace(facts, config=file.name, text_length=TINY_TEXT)


def main(arguments: Sequence[str]) -> None:
    """Parse, count, measure if there is a GPU, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="wan2.1-i2v-480p", help="a name from `lora-edit models`")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--size", default="832x480", help="WIDTHxHEIGHT")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that warms up")
    parser.add_argument("--rank", type=int, default=16, help="of the LoRA")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny: the same on a model that a CPU runs in a second")
    parser.add_argument("--swap", type=int, default=0, help="blocks that wait in main memory")
    parser.add_argument("--base", choices=("full", "int8", "fp8", "nf4"), default="full", help="how frozen weights are kept")
    parser.add_argument("--park", action="store_true", help="hidden states wait in main memory")
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
        dtype = pick_compute_dtype(device)
        measured = measure(task, device, dtype, args.steps, 8192 if args.scale == "full" else 256)
        record = finished(record, measured, device, dtype)
    text = json.dumps(record, indent=1)
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        moved = f"-swap{args.swap}-{args.base}{'-park' * args.park}" if task.place != NOTHING_MOVED else ""
        stem = args.output_dir / f"full-size-{task.facts.name}-{task.frames}-{task.width}x{task.height}{moved}"
        stem.with_name(stem.name + ".json").write_text(text + "\n", "utf-8")
        stem.with_name(stem.name + ".md").write_text(page(record), "utf-8")
    print(text if args.json else page(record))


if __name__ == "__main__":
    main(sys.argv[1:])
