"""The report of a run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lora_edit.errors import RunError
from lora_edit.evaluation.registry import METRICS
from lora_edit.evaluation.report import Report, render_report, write_report

VOID = {"img", "meta"}


class Outline(HTMLParser):
    """Collects the tags and asserts that they are nested properly."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


FULL = Report(
    title="Edit of <clip> & more",
    result=Path("result.mp4"),
    comparison=Path("compare #1.mp4"),
    contact_sheet=Path("samples/sheet.png"),
    region_sheet=Path("crops.png"),
    posters=(Path("poster compare.png"), None),
    pictures=[("Edited frame 4 (reference)", Path("references/reference_00004.png"))],
    takes=[("seed 7, first frame <b>.png", Path("samples/seed-7.mp4"), Path("samples/seed-7.png"))],
    disoccluded_shares=[0.0, 0.25, 0.5],
    loss_plot=Path("loss.png"),
    facts=[("prompt", '<script>alert("x")</script>'), ("seed", "0")],
    notes=["the mask is <empty>"],
    metrics={
        "region_psnr": 24.0485,
        "background_psnr": None,
        "background_exact": True,
        "flicker": None,
        "clip_score": 0.5,
        "new_metric": 2,
    },
)


def test_text_is_escaped() -> None:
    page = render_report(FULL)
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    assert "Edit of &lt;clip&gt; &amp; more" in page
    assert "the mask is &lt;empty&gt;" in page


def test_page_is_complete_and_accessible() -> None:
    page = render_report(FULL)
    assert page.lstrip().startswith("<!doctype html>")
    outline = Outline(page)
    assert outline.all("html")[0]["lang"] == "en"
    assert [video["src"] for video in outline.all("video")] == ["compare%20%231.mp4", "result.mp4"]
    assert all("controls" in video and video["aria-label"] for video in outline.all("video"))
    assert [video.get("poster") for video in outline.all("video")] == ["poster%20compare.png", None]
    assert [image["src"] for image in outline.all("img")] == [
        "crops.png", "references/reference_00004.png", "samples/sheet.png", "samples/seed-7.png", "loss.png",
    ]  # fmt: skip
    assert all(image["alt"] for image in outline.all("img"))
    assert len(outline.all("caption")) == len(outline.all("table")) == 2
    assert "prefers-color-scheme: dark" in page


def test_page_loads_nothing_from_other_hosts() -> None:
    assert not re.search(r"https?:|//|@import|<link|<iframe", render_report(FULL).replace("</", ""))


def test_metrics_have_labels_and_units() -> None:
    page = render_report(FULL)
    assert "24.05 dB" in page
    assert re.search(r"Background, PSNR</th><td>every pixel equal", page)
    assert re.search(r"Flicker</th><td>not measured", page)
    assert re.search(r"CLIP score</th><td>0\.5", page)
    assert re.search(r"new metric</th><td>2<", page)
    assert "background_exact" not in page
    assert f'every pixel equal</td><td class="meaning">{METRICS["background_psnr"].explanation}</td>' in page


def test_disoccluded_shares_are_bars() -> None:
    page = render_report(FULL)
    bars = Outline(page).all("rect")
    assert [bar["height"] for bar in bars] == ["0.0000", "0.5000", "1.0000"]
    assert "frame 1: 25.0 %" in page and "most in frame 2, 50.0 % of it" in page
    assert "<span>frame 0</span><span>frame 2</span>" in page
    assert render_report(Report(title="t", disoccluded_shares=[0.0, 0.0])).count("<rect") == 2


def test_further_results_have_seed_and_picture() -> None:
    page = render_report(FULL)
    assert "Another result: seed 7, first frame &lt;b&gt;.png" in page
    assert 'href="samples/seed-7.mp4"' in page


def test_empty_parts_are_omitted() -> None:
    outline = Outline(render_report(Report(title="Nothing yet")))
    assert not [tag for tag in ("video", "img", "table", "section", "svg") if outline.all(tag)]


def test_unplayable_files_are_linked() -> None:
    outline = Outline(render_report(Report(title="t", result=Path("result.mkv"), comparison=Path("compare.gif"))))
    assert not outline.all("video")
    assert [link["href"] for link in outline.all("a")] == ["compare.gif", "result.mkv"]
    assert [image["src"] for image in outline.all("img")] == ["compare.gif"]


def test_paths_outside_run_folder_fail_assertion() -> None:
    for path in (Path("../result.mp4"), Path("/result.mp4")):
        with pytest.raises(AssertionError):
            Report(title="t", result=path)


def test_report_is_written_atomically(tmp_path: Path) -> None:
    path = tmp_path / "run" / "report.html"
    write_report(path, Report(title="Édition"))
    assert "Édition" in path.read_text("utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(RunError, match="cannot be written"):
        write_report(path / "report.html", Report(title="t"))
