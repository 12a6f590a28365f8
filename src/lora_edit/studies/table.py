"""The page of a study on scenes: a table with intervals, the claims judged by it, and a bar chart."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_edit.atomic_files import replace_file
from lora_edit.evaluation.registry import METRICS
from lora_edit.studies.extra_metrics import EXTRA_METRICS

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""Row label -> metric -> one value per scene and seed, in the same order for every row."""

COLUMNS = {
    "region_psnr": METRICS["region_psnr"].heading,
    "object_psnr": "object alone, dB",
    "region_ssim": METRICS["region_ssim"].heading,
    "background_psnr": "background of the model's own output, dB",
    "leak": METRICS["leak"].heading,
    "steps": "training steps",
    **{key: METRICS[key].heading for key in EXTRA_METRICS},
}
"""Metric -> heading. Region metrics compare the finished clip with the truth."""

DEFAULT_DIGITS = 2
"""Decimals of metrics that only studies measure."""

# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom; above 30, the normal distribution's point is used.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09, 2.08,
        2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """The claim that row `better_row` is more than `margin` dB above row `worse_row` in region PSNR, on scenes of `kinds` (all when empty).

    `origin` names the source of the claim.
    """

    better_row: str
    worse_row: str
    origin: str
    margin: float = 0.0
    kinds: tuple[str, ...] = ()


def compute_interval(values: Sequence[float]) -> tuple[float, float]:
    """Compute the mean and the half-width of its 95 % interval (Student's t over scenes and seeds) of the finite values."""
    finite = np.array([v for v in values if math.isfinite(v)])
    if len(finite) < 2:
        return (float(finite[0]) if len(finite) else math.nan), math.nan
    t_value = _T95[len(finite) - 2] if len(finite) - 2 < len(_T95) else 1.96
    return float(finite.mean()), float(t_value * finite.std(ddof=1) / math.sqrt(len(finite)))


def judge_claim(claim: Claim, scores: Scores, kinds: Sequence[str]) -> str:
    """Judge a claim in one line: the paired difference with its interval, and whether the claim holds."""
    indices = [i for i, kind in enumerate(kinds) if not claim.kinds or kind in claim.kinds]
    if not indices or claim.better_row not in scores or claim.worse_row not in scores:
        return f"{claim.origin}: no scene of that kind was run"
    better, worse = (np.array(scores[label]["region_psnr"])[indices] for label in (claim.better_row, claim.worse_row))
    mean, half = compute_interval(list(better - worse))
    if not math.isfinite(half):
        state = "undecided: a single scene gives no interval"
    elif mean - half > claim.margin:
        state = "reproduced"
    else:
        state = "not reproduced" if mean + half < claim.margin else "undecided: the interval contains the margin"
    scope = f", {len(indices)} scenes of {', '.join(claim.kinds)}" if claim.kinds else f", {len(indices)} scenes"
    threshold = f" (required: above {claim.margin:+g})" if claim.margin else ""
    return f"{claim.origin}: *{claim.better_row}* against *{claim.worse_row}* {mean:+.2f} ± {half:.2f} dB{threshold}{scope}: **{state}**"


def render_markdown(
    title: str,
    scores: Scores,
    kinds: Sequence[str],
    claims: Sequence[Claim],
    paper: Mapping[str, str],
    command: str,
    pictures: Mapping[str, str],
) -> str:
    """Render the page: table, the paper's figures beside ours, claims, region PSNR by kind of scene, pictures (caption -> file)."""
    metrics = [m for m in COLUMNS if any(math.isfinite(v) for row in scores.values() for v in row.get(m, ()))]
    heads = ["", *(COLUMNS[m] for m in metrics), *(["paper"] if paper else [])]
    lines = [
        f"# {title}",
        "",
        f"`{command}`",
        "",
        f"Mean and 95 % interval over {len(kinds)} scenes and seeds.",
        "",
        _format_row(heads),
        _format_rule(len(heads)),
    ]
    for label, row in scores.items():
        cells = [_format_cell(*compute_interval(row[m]), _get_digits(m)) if m in row else "" for m in metrics]
        lines.append(_format_row([label, *cells, *([paper.get(label, "")] if paper else [])]))
    if claims:
        lines += ["", "## Claims and results", "", *(f"- {judge_claim(claim, scores, kinds)}" for claim in claims)]
    names = list(dict.fromkeys(kinds))
    lines += ["", "## Region PSNR by kind of scene, dB", "", _format_row(["", *names]), _format_rule(1 + len(names))]
    for label, row in scores.items():
        values = np.array(row["region_psnr"])
        lines.append(_format_row([label, *(f"{values[[k == name for k in kinds]].mean():.1f}" for name in names)]))
    for caption, file in pictures.items():
        lines += ["", f"![{caption}]({file})", "", f"*{caption}.*"]
    return "\n".join(lines) + "\n"


def _get_digits(metric: str) -> int:
    return METRICS[metric].digits if metric in METRICS else DEFAULT_DIGITS


def _format_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _format_rule(count: int) -> str:
    return "|" + "---|" * count


def _format_cell(mean: float, half: float, digits: int) -> str:
    if not math.isfinite(mean):
        return ""
    return f"{mean:.{digits}f} ± {half:.{digits}f}" if math.isfinite(half) else f"{mean:.{digits}f}"


def write_csv(path: Path, scores: Scores, names: Sequence[str]) -> None:
    """Write every value: a line per row and metric, a column per scene and seed."""
    with replace_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "metric", *names])
        for label, row in scores.items():
            for metric, values in row.items():
                writer.writerow([label, metric, *(f"{value:.4f}" for value in values)])


def draw_bars(path: Path, scores: Scores) -> None:
    """Draw the region PSNR of every row with its interval, and every scene as a dot, as a PNG."""
    # Matplotlib is slow to import, and most commands draw nothing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.8 + 0.36 * len(scores)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(scores.values()):
        values = row["region_psnr"]
        mean, half = compute_interval(values)
        axes.barh(position, mean, xerr=half if math.isfinite(half) else None, color="#9db8d9", ecolor="#30507a", capsize=3)
        axes.plot(values, [position] * len(values), ".", color="#30507a", alpha=0.35, markersize=4)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set_xlabel("PSNR in the edit region against the truth, dB")
    axes.grid(axis="x", alpha=0.3)
    with replace_file(path) as partial:
        figure.savefig(str(partial), format="png")
