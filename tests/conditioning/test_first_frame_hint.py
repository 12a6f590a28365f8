"""Tests of the first-frame hint, which moves frame 0 with the region's box."""

from __future__ import annotations

import torch

from lora_edit.conditioning.first_frame_hint import compute_region_boxes, move_with_box

SIZE = 32


def square(left: int, top: int, side: int = 8) -> torch.Tensor:
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def scene(*masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a clip with a pattern inside the masks over a still background, and the stacked masks."""
    generator = torch.Generator().manual_seed(3)
    pattern, background = torch.rand(3, 64, generator=generator), torch.rand(3, SIZE, SIZE, generator=generator)
    frames = []
    for mask in masks:
        frame = background.clone()
        frame[:, mask] = pattern[:, : int(mask.sum())]
        frames.append(frame)
    return torch.stack(frames, 1), torch.stack(masks)


def test_boxes_bound_the_region_and_are_nan_where_it_is_empty() -> None:
    boxes = compute_region_boxes(torch.stack([square(4, 6), torch.zeros(SIZE, SIZE, dtype=torch.bool)]))
    assert boxes[0].tolist() == [4, 6, 12, 14]
    assert boxes[1].isnan().all()


def test_whole_pixel_motion_moves_content_exactly() -> None:
    clip, masks = scene(square(4, 6), square(9, 11), square(15, 2))
    moved = move_with_box(clip[:, 0], compute_region_boxes(masks))
    for index in range(3):
        torch.testing.assert_close(moved[:, index][:, masks[index]], clip[:, index][:, masks[index]], atol=1e-5, rtol=0)


def test_doubled_box_doubles_its_content() -> None:
    ramp = torch.arange(SIZE).float().expand(3, SIZE, SIZE) / SIZE
    masks = torch.stack([square(4, 4), square(8, 8, 16)])
    row = move_with_box(ramp, compute_region_boxes(masks))[0, 1, 16, 9:23] * SIZE
    torch.testing.assert_close(row.diff(), torch.full((13,), 0.5), atol=1e-4, rtol=0)


def test_box_cut_by_the_border_is_not_squeezed() -> None:
    clip, _ = scene(square(20, 8), square(20, 8))
    masks = torch.stack([square(20, 8), square(26, 8)])
    masks[1, :, :26] = False
    moved = move_with_box(clip[:, 0], compute_region_boxes(masks))
    torch.testing.assert_close(moved[:, 1, 8:16, 26:32], clip[:, 0, 8:16, 20:26], atol=1e-5, rtol=0)


def test_frames_without_a_box_equal_the_first_frame() -> None:
    clip, masks = scene(square(4, 6), torch.zeros(SIZE, SIZE, dtype=torch.bool))
    moved = move_with_box(clip[:, 0], compute_region_boxes(masks))
    assert torch.equal(moved[:, 1], clip[:, 0])
