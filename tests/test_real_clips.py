"""The benchmark of real clips: its figure for blockiness, its edits, and that it cuts only film that training never sees."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from source_tree import ROOT


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Any]:
    """The script as a module, beside the one that it imports."""
    folders = [str(ROOT / "benchmarks"), str(ROOT / "tools" / "pretrain")]
    sys.path[:0] = folders
    try:
        yield importlib.import_module("real_clips")
    finally:
        del sys.path[: len(folders)]


def cells(step: float) -> torch.Tensor:
    """A ramp of one level a pixel `[3, 48, 64, 3]`, with a further step at every eighth column and row."""
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    picture = (x + y + step * (x // 8 + y // 8)).to(torch.uint8)
    return picture[None, ..., None].expand(3, -1, -1, 3)


@pytest.mark.parametrize("step", [0, 1, 3])
def test_blockiness_is_the_step_at_borders_of_cells(benchmark: Any, step: int) -> None:
    everywhere = torch.ones(3, 48, 64, dtype=torch.bool)
    assert benchmark.blockiness(cells(step), everywhere) == pytest.approx(1 + step)


def test_blockiness_counts_the_region_alone(benchmark: Any) -> None:
    region = torch.zeros(3, 48, 64, dtype=torch.bool)
    region[:, 16:40, 8:32] = True
    frames = torch.where(region[..., None], cells(0), cells(3))
    assert benchmark.blockiness(frames, region) == pytest.approx(1)
    assert benchmark.blockiness(frames, ~region & False) == 1


def test_every_edit_changes_a_part_and_repeats_itself(benchmark: Any) -> None:
    """On pictures of the clips' sizes, of any content: the same seed gives the same picture, and pixels outside stay."""
    for clip in benchmark.CLIPS:
        width, height = clip.size
        picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
        first, again = (clip.edit(picture, np.random.default_rng(0)) for _ in range(2))
        assert first.dtype == np.uint8
        assert first.shape == picture.shape
        assert np.array_equal(first, again)


def test_the_film_is_cut_where_training_never_looks(benchmark: Any) -> None:
    """Only inside the stretches that are held out, and every clip is 24 to 48 frames of 320 to 512 pixels."""
    held_out = importlib.import_module("film").HELD_OUT
    assert len(benchmark.CLIPS) == len({clip.name for clip in benchmark.CLIPS}) == 10
    for clip in benchmark.CLIPS:
        last = clip.first + clip.step * (clip.count - 1)
        assert clip.film != benchmark.BUNNY or any(a <= clip.first and last < b for a, b in held_out), clip.name
        assert 24 <= clip.count <= 48
        assert 320 <= max(clip.size) <= 512


def test_outlines_of_the_followed_box_lie_in_the_frame(benchmark: Any) -> None:
    followed = importlib.import_module("followed_box")
    for number in followed.OUTLINES:
        assert 0.1 < followed.outlined(number).float().mean() < 0.4
    assert Path(followed.__file__).name == "followed_box.py"
