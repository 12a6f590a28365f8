"""The presets and models that fit each card, estimated without a device: `PYTHONPATH=src python benchmarks/what_fits.py`.

Device memory as `lora-edit new` estimates it, for a clip of given frames and size, and the paper's tables 4 and 5 beside the same settings
of ours. Peaks measured with `benchmarks/full_size.py` are marked, if a folder of its records is given. Writes a page.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import torch

from lora_edit.config import EditSettings, PresetName, resolve_settings
from lora_edit.devices import Machine
from lora_edit.memory_estimate import ResourceEstimate, estimate_resources
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.runtime.meta_model import has_meta_model
from lora_edit.types import Size

CARDS = (8, 12, 16, 24, 48, 80)
"""Memory of the cards in GB; a fiftieth of each is left to the system."""
PRESETS: tuple[PresetName, ...] = get_args(PresetName)
PAPER_SWAPS = {0: 25_097, 16: 16_305, 32: 9_987, 38: 7_617}
"""Swapped blocks and peak MB (paper, table 4: Wan2.1-I2V-14B, nine frames of 832x480)."""
PAPER_STANDARD = 21_522
"""Peak MB at 49 frames (paper, table 5)."""
REFERENCE_PEAKS = {5: 11.1, 13: 12.5, 21: 14.5, 49: 21.5}
"""Frames and peak GB that the reference publishes for its own settings: a base in 8 bits, 32 of 40 blocks swapped, 832x480."""
HOST = 256e9


def machine(gigabytes: float) -> Machine:
    """Describe a card with ample main memory."""
    return Machine(0.98e9 * gigabytes, HOST, 1.6e14, torch.bfloat16)


def settings(model: str, preset: str, *assignments: str) -> EditSettings:
    """Build the settings of an edit."""
    return resolve_settings({"input": {"source": "-", "first_frame": "-"}, "model": model, "preset": preset}, assignments)


def cell(found: ResourceEstimate, card: Machine) -> str:
    """Describe the fit in one to three words."""
    if found.list_shortfalls(card):
        return "no"
    moved = f", {found.offload_plan.blocks_to_swap} of {found.blocks}" if found.offload_plan.blocks_to_swap else ""
    return f"{found.device_bytes / 1e9:.1f} GB{moved}{' and states' if found.offload_plan.offload_activations else ''}"


def fits(size: Size, frames: int) -> list[str]:
    """Format a row for each model and preset, a column for each card."""
    lines = [f"| model | preset | {' | '.join(f'{card} GB' for card in CARDS)} | main memory |", "|---|---|" + "---|" * (len(CARDS) + 1)]
    for facts in KNOWN_MODELS:
        if not has_meta_model(facts):
            continue
        for preset in PRESETS:
            found = [estimate_resources(settings(facts.name, preset), facts, size, frames, False, machine(card)) for card in CARDS]
            cells = [cell(each, machine(card)) for each, card in zip(found, CARDS, strict=True)]
            lines.append(f"| `{facts.name}` | {preset} | {' | '.join(cells)} | {found[-1].host_bytes / 1e9:.0f} GB |")
            print(lines[-1], file=sys.stderr)
    return lines


def beside_the_paper(size: Size, measured: dict[str, float]) -> list[str]:
    """Format table 4, and the first line of table 5."""
    facts = next(facts for facts in KNOWN_MODELS if facts.name == "wan2.1-i2v-480p")
    lines = [
        "| blocks swapped | paper, MB | ours with 8-bit weights, MB | and states in main memory, MB | measured, MB |",
        "|---|---|---|---|---|",
    ]
    for swapped, theirs in {**PAPER_SWAPS, 40: None}.items():
        ours = []
        for states in ("false", "true"):
            asked = settings(facts.name, "low-vram", f"training.blocks_to_swap={swapped}", f"training.offload_activations={states}")
            ours.append(estimate_resources(asked, facts, size, 49, False, machine(80)).train_bytes / 1e6)
        peak = measured.get(f"9-{swapped}-int8")
        lines.append(
            f"| {swapped} | {'' if theirs is None else f'{theirs:,}'} | {ours[0]:,.0f} | {ours[1]:,.0f} | "
            f"{'not yet' if peak is None else f'{peak / 1e6:,.0f}'} |"
        )
    asked = settings(facts.name, "standard", "training.base=int8", "training.blocks_to_swap=40", "training.offload_activations=true")
    least = estimate_resources(asked, facts, size, 49, False, machine(80)).train_bytes / 1e6
    lines += ["", f"At 49 frames the paper's standard way peaks at {PAPER_STANDARD:,} MB (table 5); ours goes down to {least:,.0f} MB."]
    return lines


def beside_the_reference(size: Size) -> list[str]:
    """Format the peaks of the reference's own settings, and ours for the same: hidden states on the device, and in main memory."""
    facts = next(facts for facts in KNOWN_MODELS if facts.name == "wan2.1-i2v-480p")
    lines = ["| frames | reference, GB | ours, GB | with states in main memory, GB |", "|---|---|---|---|"]
    for frames, published in REFERENCE_PEAKS.items():
        ours = []
        for states in ("false", "true"):
            fixed = (
                "training.base=fp8",
                "training.blocks_to_swap=32",
                f"training.offload_activations={states}",
                f"training.window={frames}",
            )
            asked = settings(facts.name, "standard", *fixed)
            ours.append(estimate_resources(asked, facts, size, frames, False, machine(80)).train_bytes / 1e9)
        lines.append(f"| {frames} | {published} | {ours[0]:.1f} | {ours[1]:.1f} |")
    return lines


def measured_peaks(folder: Path | None) -> dict[str, float]:
    """Read training peaks from the records of `full_size.py`, by frames, swapped blocks and number format."""
    records = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("full-size-wan2.1-i2v-480p-*.json"))] if folder else []
    keys: dict[str, float] = {}
    for record in records:
        peak = record.get("measured", {}).get("training_peak_bytes")
        if peak:
            keys[f"{record['frames']}-{record['place']['blocks_to_swap']}-{record['place']['weight_format']}"] = peak
    return keys


def main(arguments: Sequence[str]) -> None:
    """Estimate, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--size", default="832x480", help="WIDTHxHEIGHT of the model's frames")
    parser.add_argument("--measured", type=Path, help="folder with records of benchmarks/full_size.py")
    parser.add_argument("--output-dir", type=Path, default=Path("benchmark-output"))
    args = parser.parse_args(arguments)
    width, _, height = args.size.partition("x")
    size = Size(int(height), int(width))
    text: list[Any] = [
        "# What fits which card",
        "",
        f"`{shlex.join(['python', 'benchmarks/what_fits.py', *arguments])}`, {datetime.now(UTC).date().isoformat()}. Reckoned as "
        f"`lora-edit new` does it, for {args.frames} frames at {args.size}: the most of all stages, with as few blocks in main memory as "
        "let it fit (their number stands behind; *states* are the hidden states between blocks). *No* is refused before anything loads.",
        "",
        *fits(size, args.frames),
        "",
        "Autoencoder and encoders are counted, in tiles where whole frames do not fit. `main memory` is the peak for the largest card: "
        "while the model is read, while the encoders are in memory, or while it trains. No peak was measured: no device was at hand.",
        "",
        "## Beside the paper's tables 4 and 5",
        "",
        "Wan2.1-I2V-14B, one training step on nine frames of 832x480. The paper's base is in 8 bits too. Measured peaks come from "
        "`benchmarks/full_size.py --frames 9 --swap N --base int8`.",
        "",
        *beside_the_paper(replace(size, height=480, width=832), measured_peaks(args.measured)),
        "",
        "## Beside the reference's settings",
        "",
        "Wan2.1-I2V-14B at 832x480 with a base in 8 bits and 32 blocks in main memory: the peak that the reference publishes, and our "
        "estimate of training with the same settings.",
        "",
        *beside_the_reference(replace(size, height=480, width=832)),
        "",
    ]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "what-fits.md").write_text("\n".join(text), "utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main(sys.argv[1:])
