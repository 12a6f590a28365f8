"""Shapes of the edit region, soft edges, latent cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lora_edit.masks.settings import MaskShape
from lora_edit.masks.shapes import (
    dilate,
    feather,
    find_given_cells,
    grow_by_soft_edge,
    interpolate_missing_frames,
    invert,
    shape_mask,
    smooth_outline,
    snap_to_cells,
    subtract,
    union,
    union_latent_frames,
)
from lora_edit.types import EditMask

bool_masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(3, 21), st.integers(3, 21))).map(torch.from_numpy)
cells = st.tuples(st.integers(1, 8), st.integers(1, 8))
few_examples = settings(max_examples=40, deadline=None)


def make_disc(num_frames: int = 3) -> EditMask:
    """Return a disc of radius 14 that moves by 2 pixels per frame, on 64 x 96 pixels."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    return EditMask(torch.stack([(rows - 30) ** 2 + (columns - 40 - 2 * t) ** 2 <= 14**2 for t in range(num_frames)]), ("a note",))


@few_examples
@given(bool_masks, st.sampled_from(["box", "tight", "as-is"]), st.integers(1, 5))
def test_shapes_contain_the_mask(frames: torch.Tensor, shape: MaskShape, smooth: int) -> None:
    shaped = shape_mask(EditMask(frames), shape, 0.1, smooth)
    assert shaped.frames.shape == frames.shape
    assert (shaped.frames | ~frames).all()


def test_box_grows_by_its_total_share_and_keeps_notes() -> None:
    box = shape_mask(make_disc(1), "box", 0.0, 1)
    assert int(box.frames.sum()) == 29 * 29
    grown = shape_mask(make_disc(1), "box", 0.2, 1)
    assert int(grown.frames.sum()) == 35 * 35
    assert grown.notes == ("a note",)


def test_box_is_clipped_at_the_border() -> None:
    frames = torch.zeros(1, 20, 20, dtype=torch.bool)
    frames[0, :5, 15:] = True
    assert shape_mask(EditMask(frames), "box", 2.0, 1).frames[0].nonzero().amin(0).tolist() == [0, 10]


def test_noisy_mask_has_coarse_cells_and_covers_most() -> None:
    mask = make_disc(2)
    noisy = shape_mask(mask, "noisy", 0.1, 5).frames
    shared = (noisy & mask.frames).sum() / (noisy | mask.frames).sum()
    assert 0.7 < float(shared) < 0.99
    thin = torch.zeros(1, 40, 40, dtype=torch.bool)
    thin[0].fill_diagonal_(True)
    assert shape_mask(EditMask(thin), "noisy", 0.1, 5).frames.any()


def test_dilate_grows_by_a_disc() -> None:
    frames = torch.zeros(1, 11, 11, dtype=torch.bool)
    frames[0, 5, 5] = True
    grown = dilate(EditMask(frames), 3).frames[0]
    assert grown[5, 2]
    assert not grown[5, 1]
    assert not grown[2, 2]
    assert dilate(EditMask(frames), 0).frames is frames


@few_examples
@given(bool_masks, st.integers(0, 6))
def test_feather_is_zero_outside_and_positive_inside(frames: torch.Tensor, radius: int) -> None:
    alpha = feather(frames, radius)
    assert (alpha[~frames] == 0).all()
    assert (alpha[frames] > 0).all()
    assert alpha.max() <= 1


def test_feather_rises_to_one_and_ignores_the_frame_border() -> None:
    frames = torch.zeros(1, 30, 30, dtype=torch.bool)
    frames[0, :, :20] = True
    row = feather(frames, 5)[0, 15]
    assert (row[:14] == 1).all()
    assert (row[14:20].diff() < 0).all()
    assert (feather(frames, 5)[0, 0] == row).all()
    assert (feather(torch.ones(1, 4, 4, dtype=torch.bool), 9) == 1).all()


def test_feather_of_a_thin_part_reaches_one() -> None:
    frames = torch.zeros(1, 30, 30, dtype=torch.bool)
    frames[0, 10:16, 5:25] = True
    assert feather(frames, 10).max() == 1


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_tight_outline_has_full_blend_weight(share: float) -> None:
    frames = torch.zeros(1, 96, 160, dtype=torch.bool)
    frames[0, 30:70, 40:80] = True
    frames[0, 20, 20:120] = True  # thinner than the soft edge
    radius = round(share * 96)
    alpha = feather(grow_by_soft_edge(EditMask(frames), "tight", share).frames, radius)
    assert (alpha[frames] == 1).all()
    assert 0 < alpha[0, 50, 81] < 1
    assert all(grow_by_soft_edge(EditMask(frames), shape, share).frames is frames for shape in ("box", "noisy", "as-is"))


@few_examples
@given(bool_masks, cells)
def test_snapped_mask_is_the_smallest_aligned_superset(frames: torch.Tensor, cell: tuple[int, int]) -> None:
    snapped = snap_to_cells(frames, cell)
    assert (snapped | ~frames).all()
    for top in range(0, frames.shape[1], cell[0]):
        for left in range(0, frames.shape[2], cell[1]):
            window = (slice(None), slice(top, top + cell[0]), slice(left, left + cell[1]))
            expected = frames[window].flatten(1).any(1)[:, None, None].expand_as(snapped[window])
            assert torch.equal(snapped[window], expected)


@few_examples
@given(bool_masks)
def test_union_latent_frames_unites_each_latent_frame(frames: torch.Tensor) -> None:
    united = union_latent_frames(frames)
    assert torch.equal(united[0], frames[0])
    for index in range(1, len(frames)):
        start = 1 + 4 * ((index - 1) // 4)
        assert torch.equal(united[index], frames[start : start + 4].any(0))


@few_examples
@given(bool_masks, cells, st.sampled_from([1, 4]))
def test_cell_is_given_only_if_all_its_pixels_are(frames: torch.Tensor, cell: tuple[int, int], stride: int) -> None:
    given_cells = find_given_cells(frames, cell, stride)
    for f, h, w in np.ndindex(*given_cells.shape):
        start, stop = (0, 1) if f == 0 else (1 + stride * (f - 1), 1 + stride * f)
        window = frames[start:stop, h * cell[0] : (h + 1) * cell[0], w * cell[1] : (w + 1) * cell[1]]
        assert window.numel() > 0
        assert bool(given_cells[f, h, w]) == (not window.any())


@pytest.mark.parametrize("stride", [1, 4])
def test_snapping_and_uniting_do_not_change_given_cells(stride: int) -> None:
    mask = make_disc(9).frames
    whole = union_latent_frames(snap_to_cells(mask, (8, 8)), stride)
    assert torch.equal(find_given_cells(whole, (8, 8), stride), find_given_cells(mask, (8, 8), stride))


def test_union_subtract_and_invert() -> None:
    whole = make_disc(2)
    left = EditMask(whole.frames.clone())
    left.frames[..., 40:] = False
    right = subtract(whole, left)
    assert not (right.frames & left.frames).any()
    both = union([left, right])
    assert torch.equal(both.frames, whole.frames)
    assert both.notes == ("a note",)
    assert torch.equal(invert(invert(whole)).frames, whole.frames)


def test_smooth_outline_removes_specks_only() -> None:
    ragged = make_disc(1)
    ragged.frames[0, 5, 5] = True
    smooth = smooth_outline(ragged, 2).frames
    assert not smooth[0, 5, 5]
    assert (smooth == make_disc(1).frames).float().mean() > 0.98


def test_lost_frames_are_interpolated_between_outlines() -> None:
    whole = make_disc(7)
    gaps = EditMask(whole.frames.clone(), ("lost",))
    gaps.frames[[0, 2, 3, 4]] = False
    filled = interpolate_missing_frames(gaps)
    assert filled.notes == ("lost",)
    assert not filled.frames[0].any()
    for number in (2, 3, 4):
        shared = (filled.frames[number] & whole.frames[number]).sum() / (filled.frames[number] | whole.frames[number]).sum()
        assert float(shared) > 0.95


def test_touching_parts_have_a_box_each() -> None:
    first, second = torch.zeros(3, 40, 60, dtype=torch.bool), torch.zeros(3, 40, 60, dtype=torch.bool)
    first[:, 5:15, 5:25], second[:, 12:35, 22:50] = True, True
    both = EditMask(first | second, (), (first, second))
    assert torch.equal(shape_mask(both, "box", 0.0, 1).frames, both.frames)
    assert shape_mask(EditMask(both.frames), "box", 0.0, 1).frames[0, 30, 6]
    third = torch.zeros_like(first)
    third[:, :3, :3] = True
    assert len(union([both, EditMask(third)]).parts) == 3 and not union([EditMask(third), EditMask(first)]).parts
    assert [bool(part.any()) for part in subtract(both, EditMask(first)).parts] == [False, True]
