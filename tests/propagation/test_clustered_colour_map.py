"""Tests of the clustered colour map."""

from __future__ import annotations

import numpy as np

from lora_edit.propagation.clustered_colour_map import fit_colour_map


def picture(seed: int) -> np.ndarray:
    """Return smooth random colours `[40, 48, 3]`."""
    import cv2

    coarse = np.random.default_rng(seed).uniform(20, 230, (5, 6, 3)).astype(np.float32)
    return cv2.resize(coarse, (48, 40), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def test_affine_recolouring_generalizes_to_another_frame() -> None:
    matrix = np.array([[0.2, 0.1, 0.6], [0.5, 0.3, 0.0], [0.1, 0.7, 0.2]], np.float32)

    def recolour(source: np.ndarray) -> np.ndarray:
        return source @ matrix.T + 12

    fitted = fit_colour_map(picture(1), recolour(picture(1)), np.ones((40, 48), np.float32))
    mapped, error = fitted(picture(2))
    assert fitted.explained_share > 0.98
    assert np.abs(mapped - recolour(picture(2))).mean() < 4
    assert error.shape == (40, 48)


def test_unrelated_picture_is_not_explained() -> None:
    noise = np.random.default_rng(3).uniform(0, 255, (40, 48, 3)).astype(np.float32)
    assert fit_colour_map(picture(1), noise, np.ones((40, 48), np.float32)).explained_share < 0.6


def test_unseen_colours_have_a_larger_error() -> None:
    source = picture(1) * 0.3
    fitted = fit_colour_map(source, 255 - source, np.ones((40, 48), np.float32))
    _, known_error = fitted(source)
    _, unseen_error = fitted(np.full((4, 4, 3), 250, np.float32))
    assert unseen_error.min() > 2 * known_error.mean()


def test_unseen_colours_change_like_the_nearest_known_ones() -> None:
    source = picture(1) * 0.2
    fitted = fit_colour_map(source, 4 * source, np.ones((40, 48), np.float32))
    bright = np.full((4, 4, 3), 250, np.float32)
    assert np.abs(fitted(bright)[0] - bright).max() < 3 * 52 + 60, "not four times as bright"


def test_pixels_without_weight_are_ignored() -> None:
    source, weight = picture(1), np.zeros((40, 48), np.float32)
    weight[:, 24:] = 1
    edited = np.where(weight[..., None] > 0, 255 - source, source)
    mapped, _ = fit_colour_map(source, edited, weight)(source)
    assert np.abs(mapped - edited)[:, 24:].mean() < 5


def test_empty_region_gives_finite_colours() -> None:
    fitted = fit_colour_map(picture(1), picture(1), np.zeros((40, 48), np.float32))
    assert np.isfinite(fitted(picture(1))[0]).all()
