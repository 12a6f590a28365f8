"""Draw the training curve from a log of `transformer.py`: `python tools/pretrain/draw_curve.py --log LOG --output PNG`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def read_log(path: Path) -> dict[int, tuple[float, float]]:
    """Step to (minutes, loss in the hole over that of the prediction as it is); where a resumed run repeated steps, what it said last."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.startswith('{"step"')]
    return {line["step"]: (line["minutes"], line["hole_loss"] / line["linear"]) for line in lines if "hole_loss" in line}


def main() -> None:
    """One line over minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    minutes, shares = zip(*sorted(read_log(args.log).values()), strict=True)
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axes.plot(minutes, shares, marker=".", linewidth=1)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set(xlabel="minutes on two CPU cores", ylabel="velocity loss in the hole,\nof that of the prediction")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(args.output, dpi=120)


if __name__ == "__main__":
    main()
