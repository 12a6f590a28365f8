"""Tables of scores with known results."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lora_edit.studies.table import Claim, compute_interval, draw_bars, judge_claim, render_markdown, write_csv

KINDS = ["recolour", "rotation", "recolour", "rotation"]
SCORES = {
    "good": {"region_psnr": [20.0, 21.0, 22.0, 23.0], "leak": [0.1, 0.1, 0.1, math.nan]},
    "poor": {"region_psnr": [18.0, 19.2, 20.0, 21.0]},
}


def test_interval_is_students_t() -> None:
    """Four values give 3.18 standard errors, one value gives no interval, and values that are not finite are ignored."""
    mean, half = compute_interval([1.0, 2.0, 3.0, 4.0, math.inf])
    assert mean == 2.5 and half == pytest.approx(3.18 * (5 / 3) ** 0.5 / 2)
    assert compute_interval([7.0])[0] == 7.0 and math.isnan(compute_interval([7.0])[1])
    assert math.isnan(compute_interval([])[0])


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (Claim("good", "poor", "x"), "**reproduced**"),
        (Claim("poor", "good", "x"), "**not reproduced**"),
        (Claim("good", "poor", "x", margin=2.0), "**undecided"),
        (Claim("good", "poor", "x", kinds=("bloom",)), "no scene of that kind"),
        (Claim("good", "poor", "x", kinds=("rotation",)), "2 scenes of rotation"),
    ],
)
def test_claims_are_judged_by_paired_difference(claim: Claim, words: str) -> None:
    """The intervals of the rows overlap, but the paired difference is significant."""
    assert words in judge_claim(claim, SCORES, KINDS)


def test_page_has_rows_claims_and_kinds(tmp_path: Path) -> None:
    """The page has the paper's figures beside ours."""
    page = render_markdown(
        "Title", SCORES, KINDS, [Claim("good", "poor", "table 9")], {"good": "CLIP 0.9"}, "lora-edit study x", {"Bars": "x.png"}
    )
    assert "![Bars](x.png)" in page
    assert "| good | 21.50 ± 2.05 | 0.100 ± 0.000 | CLIP 0.9 |" in page
    assert "| poor | 19.0 | 20.1 |" in page and "table 9" in page and "`lora-edit study x`" in page
    write_csv(tmp_path / "x.csv", SCORES, ["a", "b", "c", "d"])
    assert (tmp_path / "x.csv").read_text().splitlines()[1] == "good,region_psnr,20.0000,21.0000,22.0000,23.0000"
    draw_bars(tmp_path / "x.png", SCORES)
    assert (tmp_path / "x.png").stat().st_size > 1000
