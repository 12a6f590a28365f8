"""From scores on cases without truth to a page: what can be measured, the cases, and nothing that is claimed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_edit.evaluation.clip_score import CHECKPOINT
from lora_edit.studies.table import Scores, compute_interval

SIMILARITY_METRICS = ("clip_score", "input_similarity")

COLUMNS = {
    "clip_score": "CLIP score",
    "input_similarity": "input similarity",
    "background_psnr": "background, dB",
    "background_ssim": "background SSIM",
    "flicker": "flicker",
    "leak": "leak",
    "first_psnr": "second frame, dB",
}
"""Metric -> heading."""

DIGITS = {"background_psnr": 2, "first_psnr": 2, "flicker": 2}

READING_NOTES = (
    "No true edit is known, so nothing here says which row is right, and no claim is judged.",
    "`no edit` and `first frame, frozen` take no work and win some column each; a row is worth something where it beats both at once.",
    "CLIP score: likeness of every frame to the edited first frame. Input similarity: to the source's frame of the same number.",
    "Background: everything outside the region in the model's own output, before the source's pixels return, against the source.",
    "Flicker: what changes in the finished region beyond motion, in levels of 255. Less than the source's own (`no edit`) is no gain.",
    "Leak: how far the finished region's colours went back to the source's; 0 is the edit's look, 1 the source's.",
    "Second frame: its finished region against the edited first frame, moved there by the source's optical flow. Every clip opens with the "
    "edited first frame; this says whether it goes on as that. A flow warp is exact by its making.",
)


@dataclass(frozen=True)
class Facts:
    """What a page says of a case: `region` is its mean share of the frame, `later` how many edited later frames it has."""

    frames: int
    size: str
    region: float
    later: int


def render_page(
    title: str, scores: Scores, seeds: int, cases: Mapping[str, Facts], paper: Mapping[str, str], command: str, pictures: Mapping[str, str]
) -> str:
    """The page. `scores` has `seeds` values for each case, in the order of `cases`; `paper` gives what the paper reports per row.

    Intervals are over cases, each with the mean of its seeds: two seeds of one clip are not two clips.
    """
    judged = {label: {metric: average_seeds(values, seeds) for metric, values in row.items()} for label, row in scores.items()}
    known = {metric for row in judged.values() for metric, values in row.items() if any(not math.isnan(value) for value in values)}
    shown = [metric for metric in COLUMNS if metric in known or metric in SIMILARITY_METRICS]
    counts = {label: max(_count_known(values) for values in row.values()) for label, row in judged.items()}
    some = min(counts.values()) < len(cases)
    heads = ["", *(["cases"] if some else []), *(COLUMNS[metric] for metric in shown), *(["paper"] if paper else [])]
    spread = f"{len(cases)} cases" + (f", each the mean of {seeds} seeds" if seeds > 1 else "")
    lines = [f"# {title}: cases without truth", "", f"`{command}`", "", f"Mean and 95 % interval over {spread}.", "", *_format_head(heads)]
    for label, row in judged.items():
        cells = [_format_cell(row.get(metric, ()), DIGITS.get(metric, 3)) if metric in known else "not measured" for metric in shown]
        lines.append(_format_row([label, *([str(counts[label])] if some else []), *cells, *([paper.get(label, "")] if paper else [])]))
    lines += ["", *(f"- {text}" for text in (*READING_NOTES, *_build_remarks(known, some)))]
    lines += ["", "## Cases", "", *_format_head(["", "frames", "size", "region", "edited later frames"])]
    lines += [_format_row([name, str(each.frames), each.size, f"{each.region:.0%}", str(each.later)]) for name, each in cases.items()]
    for caption, file in pictures.items():
        lines += ["", f"![{caption}]({file})", "", f"*{caption}.*"]
    return "\n".join(lines) + "\n"


def average_seeds(values: Sequence[float], seeds: int) -> list[float]:
    """The mean of each case's `seeds` values; infinite where all that are known are, not a number where none is."""
    means = []
    for begin in range(0, len(values), seeds):
        known = [value for value in values[begin : begin + seeds] if not math.isnan(value)]
        finite = [value for value in known if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else (math.inf if known else math.nan))
    return means


def _build_remarks(known: set[str], rows_lack_cases: bool) -> list[str]:
    """What a reader of this table has to know besides."""
    found = []
    if not known >= set(SIMILARITY_METRICS):
        found.append(
            f"CLIP score and input similarity were not measured: `{CHECKPOINT}` is not on this machine, and studies download nothing. "
            f"After `hf download {CHECKPOINT} config.json model.safetensors` the same command measures them, and tries the cases again."
        )
    if "background_psnr" not in known:
        found.append("The region is the whole frame in every case, so that there is no background.")
    if rows_lack_cases:
        found.append("Rows of fewer cases are those that need edited later frames; compare them over the same cases, in the CSV file.")
    return found


def _count_known(values: Sequence[float]) -> int:
    return sum(not math.isnan(value) for value in values)


def _format_cell(values: Sequence[float], digits: int) -> str:
    """Mean and interval; `exact` where no pixel differs, which has no mean in decibels."""
    mean, half = compute_interval(values)
    exact = sum(value == math.inf for value in values)
    if not math.isfinite(mean):
        return "exact" if exact else ""
    text = f"{mean:.{digits}f} ± {half:.{digits}f}" if math.isfinite(half) else f"{mean:.{digits}f}"
    return f"{text} ({exact} more exact)" if exact else text


def _format_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _format_head(cells: Sequence[str]) -> list[str]:
    return [_format_row(cells), "|" + "---|" * len(cells)]
