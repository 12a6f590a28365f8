"""Separation of a changed area into parts."""

from __future__ import annotations

import numpy as np

from lora_edit.masks.parts import MAX_PARTS, split_into_parts


def draw_blocks(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    out = np.zeros((80, 120), bool)
    for left, top, width, height in boxes:
        out[top : top + height, left : left + width] = True
    return out


def test_distant_parts_are_separate_and_close_parts_merged() -> None:
    hat, brim, sign = (40, 5, 20, 20), (38, 27, 24, 4), (100, 50, 12, 20)
    first, second = split_into_parts(draw_blocks(hat, brim, sign))
    assert np.array_equal(first, draw_blocks(hat, brim)) and np.array_equal(second, draw_blocks(sign))


def test_nearest_of_many_parts_are_merged() -> None:
    corners = [(2, 2, 6, 6), (110, 4, 6, 6), (4, 70, 6, 6), (108, 70, 6, 6), (60, 38, 6, 6), (75, 38, 6, 6)]
    parts = split_into_parts(draw_blocks(*corners))
    assert len(parts) == MAX_PARTS and np.array_equal(np.any(parts, axis=0), draw_blocks(*corners))
