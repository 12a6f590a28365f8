"""What clicks on one frame find: of several sizes the thing that stands out, and parts that are taken away whole."""

from __future__ import annotations

import numpy as np

from lora_edit.masks.interactive import correct_mask, segment_points

HEIGHT, WIDTH = 256, 360


def rows_and_columns() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return rows, columns


def test_a_checked_shirt_comes_whole() -> None:
    """A patch of a few checks has as clear an edge as the whole, but its colours go on around it."""
    rows, columns = rows_and_columns()
    true = (abs(rows - 130) < 70) & (abs(columns - 180) < 60)
    checks = (rows // 14 + columns // 14) % 2
    rng = np.random.default_rng(0)
    ground = np.dstack([rng.integers(30, 90, (HEIGHT, WIDTH)) * share for share in (0.5, 1.0, 0.4)])
    picture = np.where(true[..., None], np.where(checks, 210, 60)[..., None] * np.array([0.9, 0.8, 1.0]), ground).astype(np.uint8)
    found = segment_points(picture, [(150.0, 120.0)])
    assert (found & true).sum() > 0.8 * (found | true).sum()


def test_a_click_off_one_of_two_things_takes_it_away_whole() -> None:
    """However its colours differ within: the left thing is darker at its sides, the right one stays as it was."""
    rows, columns = rows_and_columns()
    things = [(abs(rows - 130) < 60) & (abs(columns - x) < 40) for x in (90, 270)]
    picture = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    for thing, x in zip(things, (90, 270), strict=True):
        picture[thing] = np.dstack([250 - 4 * abs(columns - x), 30 + 0 * rows, 40 + 0 * rows]).clip(0, 255).astype(np.uint8)[thing]
    found = correct_mask(picture, things[0] | things[1], [], [(90.0, 130.0)])
    assert not found[things[0]].any()
    assert found[things[1]].mean() > 0.98
