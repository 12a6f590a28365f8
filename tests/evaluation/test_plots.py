"""The loss plot."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from lora_edit.errors import RunError
from lora_edit.evaluation.plots import draw_loss_plot, smooth_losses
from lora_edit.video.read import read_image


def test_plot_shows_both_stages(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "loss.png"
    draw_loss_plot([1 / (1 + i) for i in range(30)], [("motion", 20), ("appearance", 10)], path)
    picture = read_image(path)
    assert picture.shape[0] > 200
    assert len(picture.flatten(0, 1).unique(dim=0)) > 20
    assert [file.name for file in path.parent.iterdir()] == ["loss.png"]
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("losses", [[], [0.5], [1.0, math.nan, 0.5]])
def test_interrupted_run_is_drawn(tmp_path: Path, losses: list[float]) -> None:
    draw_loss_plot(losses, [("motion", 20), ("appearance", 10)], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_running_mean_is_bias_corrected() -> None:
    assert smooth_losses([2.0, 2.0, 2.0]) == pytest.approx([2, 2, 2])
    assert smooth_losses([1.0, math.inf, 1.0]) == pytest.approx([1, 1, 1])
    assert smooth_losses([0.0, 1.0])[1] == pytest.approx(0.1 / 0.19)


def test_unwritable_path_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"loss\.png"):
        draw_loss_plot([1.0], [("motion", 1)], tmp_path / "file" / "loss.png")
