"""Segmentation from clicks on one frame: choice of the object's size, and removal of whole parts."""

from __future__ import annotations

import numpy as np

from lora_edit.masks.interactive import correct_mask, segment_points

HEIGHT, WIDTH = 256, 360


def make_pixel_grid() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return rows, columns


def test_checked_shirt_is_segmented_completely() -> None:
    """A patch of a few checks has as clear an edge as the whole shirt, but its colours continue around it."""
    rows, columns = make_pixel_grid()
    truth = (abs(rows - 130) < 70) & (abs(columns - 180) < 60)
    checks = (rows // 14 + columns // 14) % 2
    rng = np.random.default_rng(0)
    background = np.dstack([rng.integers(30, 90, (HEIGHT, WIDTH)) * share for share in (0.5, 1.0, 0.4)])
    picture = np.where(truth[..., None], np.where(checks, 210, 60)[..., None] * np.array([0.9, 0.8, 1.0]), background).astype(np.uint8)
    mask = segment_points(picture, [(150.0, 120.0)])
    assert (mask & truth).sum() > 0.8 * (mask | truth).sum()


def test_negative_click_removes_one_of_two_objects_completely() -> None:
    """The left object, which is darker at its sides, is removed despite its varying colours. The right one is unchanged."""
    rows, columns = make_pixel_grid()
    objects = [(abs(rows - 130) < 60) & (abs(columns - x) < 40) for x in (90, 270)]
    picture = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    for object_mask, x in zip(objects, (90, 270), strict=True):
        picture[object_mask] = (
            np.dstack([250 - 4 * abs(columns - x), 30 + 0 * rows, 40 + 0 * rows]).clip(0, 255).astype(np.uint8)[object_mask]
        )
    mask = correct_mask(picture, objects[0] | objects[1], [], [(90.0, 130.0)])
    assert not mask[objects[0]].any()
    assert mask[objects[1]].mean() > 0.98
