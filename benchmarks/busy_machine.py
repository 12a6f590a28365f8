"""Seconds of an edit by the embedded model on a busy machine: with none, one and two busy loops beside it.

    PYTHONPATH=src python benchmarks/busy_machine.py [--loops 0 1 2] [--rounds 3]

The ways to choose and to bind threads take turns, so that other load affects all of them alike. Prints the medians of the seconds of
training and generation as a table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBRARY = "from lora_edit.cli.main import app; app(prog_name='lora-edit')"
COMMAND = "from lora_edit.cli.main import main; main()"
"""The command; and the same without its entry point, which sets the wait policy of threads."""

WAYS = {
    "a thread for each core, spinning": (LIBRARY, ["--threads", str(os.cpu_count())]),
    "a thread for each core, sleeping": (COMMAND, ["--threads", str(os.cpu_count())]),
    "as many threads as cores are free, sleeping": (COMMAND, []),
}
CLIP = Path(__file__).parents[1] / "examples" / "clip"
EDIT = [str(CLIP / "source.mp4"), "--first-frame", str(CLIP / "first_frame.png"), "--box", "128,8,212,156", "--frames", "9"]
QUICK = ("training.motion_steps=5", "training.recolour_variants=1")


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Run that many processes that only compute."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def edit_seconds(code: str, options: list[str]) -> float:
    """Measure the seconds of training and generation of one edit."""
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")}
    with tempfile.TemporaryDirectory() as folder:
        settings = [word for text in QUICK for word in ("--set", text)]
        words = ["edit", *EDIT, *settings, *options, "--json", "--output", str(Path(folder) / "edit.mp4")]
        done = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=True)
    return float(sum(json.loads(done.stdout)["seconds"].values()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loops", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.rounds):
        for count in args.loops:
            for way, (code, options) in WAYS.items():
                with busy_loops(count):
                    seconds.setdefault((way, count), []).append(edit_seconds(code, options))
                print(f"{way}, {count} beside it: {seconds[way, count][-1]:.1f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print("| threads | " + " | ".join(f"{count} busy loops" for count in args.loops) + " |")
    print("|---|" + "---|" * len(args.loops))
    for way in WAYS:
        print(f"| {way} | " + " | ".join(f"{statistics.median(seconds[way, count]):.1f} s" for count in args.loops) + " |")


if __name__ == "__main__":
    main()
