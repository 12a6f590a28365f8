"""The report of a run: one HTML file beside the run's videos and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePath
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from lora_edit.atomic_files import write_text
from lora_edit.errors import RunError
from lora_edit.evaluation.registry import METRICS

MEDIA_KINDS = {".mp4": "video", ".m4v": "video", ".mov": "video", ".webm": "video", ".gif": "image", ".png": "image"}
"""File types that browsers show; the report links to all others."""

FACTS = {
    "num_frames": ("Frames", "as many as in the source"),
    "size": ("Size", "that of the source"),
    "fps": ("Frames per second", "those of the source"),
}
"""Label and explanation of the keys of `Evaluation.to_json` that are no metrics."""


@dataclass(frozen=True)
class Report:
    """The contents of the report. Paths are relative to the report's folder; the page omits parts that are empty.

    - `posters`: the pictures in the players of comparison and result before these play.
    - `region_sheet`: enlarged crops of the region.
    - `pictures`: the edited frames of the input, with their titles.
    - `takes`: further results, each with title, video, and a picture of some frames.
    - `disoccluded_shares`: the share of each frame that no edited frame shows.
    - `facts`: rows of a table (settings, timings); `provenance`: rows on the manifest and its signer; `notes`: remarks for the reader.
    - `metrics`: the record of `Evaluation.to_json`.
    """

    title: str
    result: PurePath | None = None
    result_title: str = "Result"
    comparison: PurePath | None = None
    posters: tuple[PurePath | None, PurePath | None] = (None, None)
    contact_sheet: PurePath | None = None
    region_sheet: PurePath | None = None
    pictures: Sequence[tuple[str, PurePath]] = ()
    takes: Sequence[tuple[str, PurePath, PurePath]] = ()
    disoccluded_shares: Sequence[float] = ()
    loss_plot: PurePath | None = None
    facts: Sequence[tuple[str, str]] = ()
    provenance: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    metrics: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        media = [path for _, path in self.pictures]
        media += [path for _, file, picture in self.takes for path in (file, picture)]
        for path in (self.result, self.comparison, self.contact_sheet, self.region_sheet, self.loss_plot, *self.posters, *media):
            assert path is None or not (path.is_absolute() or ".." in path.parts), f"outside the run folder: {path}"


def write_report(path: Path, report: Report) -> None:
    """Write the report, which loads nothing from other hosts. Raises `RunError` when it cannot be written."""
    page = render_report(report)
    try:
        write_text(path, page)
    except OSError as error:
        raise RunError(f"{path}: the report cannot be written ({error.strerror}); choose a writable folder with free space") from error


def render_report(report: Report) -> str:
    """Render the report as HTML; all text is escaped."""
    template = files("lora_edit.evaluation").joinpath("report.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["url"] = _quote_path
    environment.filters["kind"] = _get_media_kind
    highest = max(report.disoccluded_shares, default=0.0)
    return environment.from_string(template).render(report=report, metrics=_format_metrics(report.metrics), highest=highest)


def _quote_path(path: PurePath) -> str:
    return quote(path.as_posix())


def _get_media_kind(path: PurePath) -> str:
    return MEDIA_KINDS.get(path.suffix.lower(), "file")


def _format_metrics(metrics: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """Label, value with unit, and explanation of each key."""
    rows = []
    for key, value in metrics.items():
        if key == "background_exact":
            continue
        label, explanation, unit = _describe_key(key)
        if value is None:
            is_exact = key == "region_psnr" or (key == "background_psnr" and bool(metrics.get("background_exact")))
            rows.append((label, "every pixel equal" if is_exact else "not measured", explanation))
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((label, f"{text} {unit}".rstrip(), explanation))
    return rows


def _describe_key(key: str) -> tuple[str, str, str]:
    """Label, explanation and unit; a key that is unknown, such as one of another version, gets a label only."""
    if key in METRICS:
        return METRICS[key].label, METRICS[key].explanation, METRICS[key].unit
    label, explanation = FACTS.get(key, (key.replace("_", " "), ""))
    return label, explanation, ""
