"""Minutes of an edit by model and card, reckoned without a device: `PYTHONPATH=src python benchmarks/minutes_by_card.py`.

Training and sampling as `lora-edit new` estimates them, with each model's standard settings, for the whole frame and without edited later
frames. Writes a page.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from lora_edit.config import resolve_settings
from lora_edit.devices import Machine
from lora_edit.memory_estimate import estimate_resources, supports_estimate
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.record import ModelRecord
from lora_edit.types import Size

CARDS = {
    "RTX 3090, 24 GB": (24, 0.71e14),
    "RTX 4090, 24 GB": (24, 1.65e14),
    "RTX 5090, 32 GB": (32, 2.09e14),
    "L40S, 48 GB": (48, 3.62e14),
    "H100, 80 GB": (80, 9.89e14),
}
"""Memory in GB, of which a fiftieth is left to the system, and operations per second in dense bfloat16 (data sheets)."""
HOST_BYTES = 256e9


def build_row(record: ModelRecord, size: Size, frames: int, preset: str) -> str:
    """Format the row of a model: tokens, memory on the largest card, and minutes by card."""
    tables = {"input": {"source": "-", "first_frame": "-"}, "model": record.name, "preset": preset}
    settings, geometry = resolve_settings(tables), record.geometry
    tokens = (
        ((frames - 1) // geometry.temporal_compression + 1) * (size.height // geometry.token_size) * (size.width // geometry.token_size)
    )
    cells, memory = [], ""
    for gigabytes, rate in CARDS.values():
        machine = Machine(0.98e9 * gigabytes, HOST_BYTES, rate, torch.bfloat16)
        estimate = estimate_resources(settings, record, size, frames, False, machine)
        memory = f"{estimate.device_bytes / 1e9:.1f} GB"
        minutes = (estimate.seconds_train + estimate.seconds_generate) / 60
        cells.append("no" if estimate.list_shortfalls(machine) else f"{minutes:.1f}")
    return f"| `{record.name}` | {tokens:,} | {memory} | {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """Estimate, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--size", default="832x480", help="WIDTHxHEIGHT of the model's frames")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--model", action="append", help="only this model; may be given several times")
    parser.add_argument("--output-dir", type=Path, default=Path("benchmark-output"))
    args = parser.parse_args(arguments)
    width, _, height = args.size.partition("x")
    command = shlex.join(["python", "benchmarks/minutes_by_card.py", *arguments])
    lines = [
        "# Minutes by card",
        "",
        f"`{command}`, {datetime.now(UTC).date().isoformat()}. Minutes of training and sampling for {args.frames} frames at {args.size} "
        f"with the preset {args.preset}, reckoned from the model's operations at half of the card's peak rate; nothing was measured. "
        "Memory is that on the largest card. *No* does not fit.",
        "",
        f"| model | tokens | memory | {' | '.join(CARDS)} |",
        "|---|---|---|" + "---|" * len(CARDS),
    ]
    for record in KNOWN_MODELS:
        if supports_estimate(record) and (not args.model or record.name in args.model):
            lines.append(build_row(record, Size(int(height), int(width)), args.frames, args.preset))
            print(lines[-1], file=sys.stderr)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "minutes-by-card.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
