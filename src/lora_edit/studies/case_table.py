"""The page of a study on cases without truth: the measured values and the cases. It judges no claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_edit.evaluation.clip_score import CHECKPOINT
from lora_edit.evaluation.registry import METRICS
from lora_edit.studies.extra_metrics import EXTRA_METRICS
from lora_edit.studies.table import Scores, compute_interval

SIMILARITY_METRICS = ("clip_score", "input_similarity")

COLUMNS = {
    "clip_score": METRICS["clip_score"].heading,
    "input_similarity": METRICS["input_similarity"].heading,
    "background_psnr": METRICS["background_psnr"].heading,
    "background_ssim": METRICS["background_ssim"].heading,
    "flicker": METRICS["flicker"].heading,
    "leak": METRICS["leak"].heading,
    "first_psnr": "second frame, dB",
    **{key: METRICS[key].heading for key in EXTRA_METRICS},
}
"""Metric -> heading."""

DEFAULT_DIGITS = 2
"""Decimals of metrics that only studies measure."""

READING_NOTES = (
    "The true edit is unknown, so the table does not show which row is right, and no claim is judged.",
    "`no edit` and `first frame, frozen` are trivial and each win some columns; a row is useful where it beats both at once.",
    "CLIP score: similarity of every frame to the edited first frame. Input similarity: to the source's frame of the same number.",
    "Background: everything outside the region in the model's own output, before compositing restores the source's pixels, against the "
    "source.",
    "Flicker: the change in the finished region beyond motion, in levels of 255. Less than the source's own (`no edit`) is no gain.",
    "Leak: how far the colours of the finished region moved back to the source's; 0 is the appearance of the edit, 1 that of the source.",
    "Second frame: its finished region against the edited first frame, warped by the source's optical flow. Every clip starts with the "
    "edited first frame; this measures whether the clip continues from it. A flow warp is exact by construction.",
    *(f"{METRICS[key].label}: {METRICS[key].explanation}." for key in EXTRA_METRICS),
)


@dataclass(frozen=True)
class Facts:
    """The facts of a case on the page: `region` is its mean share of the frame, `later` the number of edited later frames."""

    frames: int
    size: str
    region: float
    later: int


def render_page(
    title: str, scores: Scores, seeds: int, cases: Mapping[str, Facts], paper: Mapping[str, str], command: str, pictures: Mapping[str, str]
) -> str:
    """Render the page. `scores` has `seeds` values for each case, in the order of `cases`; `paper` has the paper's figures per row.

    Intervals are over cases, each with the mean of its seeds, as two seeds of one clip are not independent clips.
    """
    means = {label: {metric: average_seeds(values, seeds) for metric, values in row.items()} for label, row in scores.items()}
    known = {metric for row in means.values() for metric, values in row.items() if any(not math.isnan(value) for value in values)}
    columns = [metric for metric in COLUMNS if metric in known or metric in SIMILARITY_METRICS]
    counts = {label: max(_count_known(values) for values in row.values()) for label, row in means.items()}
    has_gaps = min(counts.values()) < len(cases)
    heads = ["", *(["cases"] if has_gaps else []), *(COLUMNS[metric] for metric in columns), *(["paper"] if paper else [])]
    sample = f"{len(cases)} cases" + (f", each the mean of {seeds} seeds" if seeds > 1 else "")
    lines = [f"# {title}: cases without truth", "", f"`{command}`", "", f"Mean and 95 % interval over {sample}.", "", *_format_head(heads)]
    for label, row in means.items():
        cells = [_format_cell(row.get(metric, ()), _get_digits(metric)) if metric in known else "not measured" for metric in columns]
        lines.append(_format_row([label, *([str(counts[label])] if has_gaps else []), *cells, *([paper.get(label, "")] if paper else [])]))
    lines += ["", *(f"- {text}" for text in (*READING_NOTES, *_build_remarks(known, has_gaps)))]
    lines += ["", "## Cases", "", *_format_head(["", "frames", "size", "region", "edited later frames"])]
    lines += [_format_row([name, str(each.frames), each.size, f"{each.region:.0%}", str(each.later)]) for name, each in cases.items()]
    for caption, file in pictures.items():
        lines += ["", f"![{caption}]({file})", "", f"*{caption}.*"]
    return "\n".join(lines) + "\n"


def average_seeds(values: Sequence[float], seeds: int) -> list[float]:
    """Average the `seeds` values of each case; infinite when all known values are, NaN when none is known."""
    means = []
    for begin in range(0, len(values), seeds):
        known = [value for value in values[begin : begin + seeds] if not math.isnan(value)]
        finite = [value for value in known if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else (math.inf if known else math.nan))
    return means


def _build_remarks(known: set[str], rows_lack_cases: bool) -> list[str]:
    """Build the remarks that depend on the values in the table."""
    remarks = []
    if not known >= set(SIMILARITY_METRICS):
        remarks.append(
            f"CLIP score and input similarity were not measured: `{CHECKPOINT}` is not on this machine, and studies download nothing. "
            f"After `hf download {CHECKPOINT} config.json model.safetensors` the same command measures them and repeats the cases."
        )
    if "background_psnr" not in known:
        remarks.append("The region is the whole frame in every case, so there is no background.")
    if rows_lack_cases:
        remarks.append("Rows with fewer cases need edited later frames; compare them over the same cases, in the CSV file.")
    return remarks


def _count_known(values: Sequence[float]) -> int:
    return sum(not math.isnan(value) for value in values)


def _get_digits(metric: str) -> int:
    return METRICS[metric].digits if metric in METRICS else DEFAULT_DIGITS


def _format_cell(values: Sequence[float], digits: int) -> str:
    """Format mean and interval; `exact` where no pixel differs, which has no mean in decibels."""
    mean, half = compute_interval(values)
    num_exact = sum(value == math.inf for value in values)
    if not math.isfinite(mean):
        return "exact" if num_exact else ""
    text = f"{mean:.{digits}f} ± {half:.{digits}f}" if math.isfinite(half) else f"{mean:.{digits}f}"
    return f"{text} ({num_exact} more exact)" if num_exact else text


def _format_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _format_head(cells: Sequence[str]) -> list[str]:
    return [_format_row(cells), "|" + "---|" * len(cells)]
