"""An edit as a change of colours."""

from __future__ import annotations

import numpy as np

from lora_edit.propagation.clustered_colour_map import fit_colour_map


def picture(seed: int) -> np.ndarray:
    """Smooth random colours `[40, 48, 3]`."""
    import cv2

    coarse = np.random.default_rng(seed).uniform(20, 230, (5, 6, 3)).astype(np.float32)
    return cv2.resize(coarse, (48, 40), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def test_an_affine_recolouring_is_found_and_holds_for_another_frame() -> None:
    matrix = np.array([[0.2, 0.1, 0.6], [0.5, 0.3, 0.0], [0.1, 0.7, 0.2]], np.float32)

    def recolour(source: np.ndarray) -> np.ndarray:
        return source @ matrix.T + 12

    fitted = fit_colour_map(picture(1), recolour(picture(1)), np.ones((40, 48), np.float32))
    mapped, error = fitted(picture(2))
    assert fitted.explained_share > 0.98
    assert np.abs(mapped - recolour(picture(2))).mean() < 4
    assert error.shape == (40, 48)


def test_another_picture_is_not_explained() -> None:
    noise = np.random.default_rng(3).uniform(0, 255, (40, 48, 3)).astype(np.float32)
    assert fit_colour_map(picture(1), noise, np.ones((40, 48), np.float32)).explained_share < 0.6


def test_colours_that_were_never_seen_are_doubted() -> None:
    source = picture(1) * 0.3
    fitted = fit_colour_map(source, 255 - source, np.ones((40, 48), np.float32))
    _, seen = fitted(source)
    _, new = fitted(np.full((4, 4, 3), 250, np.float32))
    assert new.min() > 2 * seen.mean()


def test_colours_that_were_never_seen_change_as_the_nearest_known_ones_do() -> None:
    source = picture(1) * 0.2
    fitted = fit_colour_map(source, 4 * source, np.ones((40, 48), np.float32))
    bright = np.full((4, 4, 3), 250, np.float32)
    assert np.abs(fitted(bright)[0] - bright).max() < 3 * 52 + 60, "not four times as bright"


def test_only_what_has_weight_counts() -> None:
    source, weight = picture(1), np.zeros((40, 48), np.float32)
    weight[:, 24:] = 1
    edited = np.where(weight[..., None] > 0, 255 - source, source)
    mapped, _ = fit_colour_map(source, edited, weight)(source)
    assert np.abs(mapped - edited)[:, 24:].mean() < 5


def test_a_region_of_nothing_does_not_fail() -> None:
    fitted = fit_colour_map(picture(1), picture(1), np.zeros((40, 48), np.float32))
    assert np.isfinite(fitted(picture(1))[0]).all()
