"""The page that explains a run to a person: one HTML file beside the run's videos and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePath
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from lora_edit.errors import RunError

MEDIA_KINDS = {".mp4": "video", ".m4v": "video", ".mov": "video", ".webm": "video", ".gif": "image", ".png": "image"}
"""What browsers show by themselves; anything else is linked."""

# key of `Evaluation.to_json` -> its name on the page, its unit, and what it means
METRICS = {
    "num_frames": ("Frames", "", "as many as the source has"),
    "size": ("Size", "", "the source's"),
    "fps": ("Frames per second", "", "the source's"),
    "region_psnr": (
        "Region, PSNR",
        "dB",
        "how near the region is to what it is compared with, the source where no truth is known: an edit differs",
    ),
    "region_ssim": ("Region, SSIM", "", "the same by structure: 1 = equal"),
    "background_psnr": (
        "Background, PSNR",
        "dB",
        "how near everything outside of the region is to the source: above 40 no eye sees a difference",
    ),
    "background_ssim": ("Background, SSIM", "", "the same by structure: 1 = equal"),
    "flicker": ("Flicker", "levels of 255", "what changes from frame to frame beyond motion: below 2 is calm, above 5 is seen"),
    "leak": ("Leak of the source's colours", "", "do they come back in the region: 0 = not at all, 1 = the edit is gone"),
    "clip_score": ("CLIP score", "", "likeness to the edited first frame: 1 = the same picture"),
    "input_similarity": ("Input similarity", "", "likeness to the source: 1 = the same clip"),
    "deqa": ("DeQA score", "", "how good the frames look by themselves: 1 = bad, 5 = excellent"),
    "lpips": ("Region, LPIPS", "", "how far the region looks from what it is compared with: 0 = equal"),
    "background_lpips": ("Background, LPIPS", "", "the same outside of the region: 0 = equal"),
}


@dataclass(frozen=True)
class Report:
    """What the page shows. Paths are relative to the page's folder; what is left out is not shown.

    `posters` stand in the players of comparison and result before these play; `crops` are the region, enlarged. `pictures` are the edited
    frames that were given, with their titles; `takes` further results: title, video, and a picture of some frames. `unproven` is the share
    of each frame that no edited frame shows. `facts` are rows of a table (settings, timings), `notes` remarks that a person should read,
    `metrics` the record of `Evaluation.to_json`.
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
    notes: Sequence[str] = ()
    metrics: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shown = [path for _, path in self.pictures]
        shown += [path for _, file, picture in self.takes for path in (file, picture)]
        for path in (self.result, self.comparison, self.contact_sheet, self.region_sheet, self.loss_plot, *self.posters, *shown):
            assert path is None or not (path.is_absolute() or ".." in path.parts), f"outside the run folder: {path}"


def write_report(path: Path, report: Report) -> None:
    """Write the page, which loads nothing from other hosts. Raises `RunError` when it cannot be written."""
    page = render_report(report)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, "utf-8")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: the report cannot be written ({error.strerror}); choose a writable folder with free space") from error


def render_report(report: Report) -> str:
    """The page as HTML; all text is escaped."""
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
    rows = []
    for key, value in metrics.items():
        if key == "background_exact":
            continue
        name, unit, meaning = METRICS.get(key, (key.replace("_", " "), "", ""))
        if value is None:
            exact = key == "region_psnr" or (key == "background_psnr" and bool(metrics.get("background_exact")))
            rows.append((name, "every pixel equal" if exact else "not measured", meaning))
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((name, f"{text} {unit}".rstrip(), meaning))
    return rows
