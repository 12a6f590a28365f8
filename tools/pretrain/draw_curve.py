"""Draw the training curve from a log of `transformer.py`: `python tools/pretrain/draw_curve.py --log LOG --output PNG`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def read_log(path: Path) -> dict[int, tuple[float, float]]:
    """Step to (minutes, loss in the hole); where a resumed run repeated steps, what it said last."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.startswith('{"step"')]
    return {line["step"]: (line["minutes"], line["hole_loss"]) for line in lines}


def main() -> None:
    """One line over minutes, on a logarithmic scale of loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    minutes, losses = zip(*sorted(read_log(args.log).values()), strict=True)
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axes.plot(minutes, losses, marker=".", linewidth=1)
    axes.set(xlabel="minutes on two CPU cores", ylabel="velocity loss in the hole", yscale="log")
    axes.set_yticks([16, 18, 20, 24, 28, 32], labels=["16", "18", "20", "24", "28", "32"])
    axes.minorticks_off()
    axes.grid(alpha=0.3, which="both")
    figure.savefig(args.output, dpi=120)


if __name__ == "__main__":
    main()
