"""The region found from the edit itself."""

from __future__ import annotations

import pytest
import torch

from lora_edit.errors import MaskError
from lora_edit.masks.edit_region import find_edit_region


def textured(seed: int, height: int, width: int) -> torch.Tensor:
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0].permute(1, 2, 0)
    return (large * 255).clamp(0, 255).to(torch.uint8)


def crossing(count: int, step: int = 4) -> torch.Tensor:
    """A patch of 40x32 pixels that crosses a still ground, `[T, 96, 128, 3]`."""
    frames = textured(0, 96, 128).repeat(count, 1, 1, 1)
    for number, frame in enumerate(frames):
        frame[30:62, 10 + step * number : 50 + step * number] = textured(1, 32, 40)
    return frames


def edited(frame: torch.Tensor) -> torch.Tensor:
    out = frame.clone()
    out[30:62, 10:50] = 255 - out[30:62, 10:50]
    return out


def bounds(mask: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = (torch.nonzero(mask.any(axis)).flatten() for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_the_box_stays_on_the_thing_that_was_changed() -> None:
    frames = crossing(10)
    found = find_edit_region(frames, edited(frames[0]))
    for number, mask in enumerate(found.frames):
        wanted = (10 + 4 * number, 30, 50 + 4 * number, 62)
        assert max(abs(a - b) for a, b in zip(bounds(mask), wanted, strict=True)) <= 4, number
    assert "no mask was given" in found.notes[0] and len(found.notes) == 1


def test_small_alterations_elsewhere_do_not_count() -> None:
    frames = crossing(3)
    picture = edited(frames[0])
    picture[5:10, 110:116] = 255
    assert bounds(find_edit_region(frames, picture).frames[0])[2] <= 53


def test_things_that_are_changed_apart_have_a_box_each() -> None:
    frames = crossing(8)
    picture = edited(frames[0])
    picture[66:90, 96:122] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    found = find_edit_region(frames, picture)
    assert "in 2 places" in found.notes[0] and not found.frames[:, :60, 90:].any() and not found.frames[:, 70:, :80].any()
    assert bounds(found.frames[7, :64]) == pytest.approx((38, 30, 78, 62), abs=4)
    assert bounds(found.frames[7, 64:]) == pytest.approx((96, 2, 122, 26), abs=2)


def test_a_picture_that_changes_nothing_is_refused_with_a_remedy() -> None:
    frames = crossing(2)
    with pytest.raises(MaskError, match="give --mask PATH"):
        find_edit_region(frames, frames[0].clone())


def test_a_region_that_was_lost_is_told() -> None:
    """The thing breaks up: its halves fly apart."""
    frames = textured(0, 96, 128).repeat(8, 1, 1, 1)
    for number, frame in enumerate(frames):
        top, bottom = 30 - 4 * number, 46 + 4 * number
        frame[max(0, top) : top + 16, 50:90] = textured(1, 16, 40)[max(0, -top) :]
        frame[bottom : bottom + 16, 50:90] = textured(2, 16, 40)[: max(0, 96 - bottom)]
    picture = frames[0].clone()
    picture[30:62, 50:90] = 255 - picture[30:62, 50:90]
    notes = find_edit_region(frames, picture).notes
    assert len(notes) == 2 and "probably lost" in notes[1]


def test_a_thing_that_was_hidden_is_found_again() -> None:
    """Something covers the whole frame while the thing moves on by more than half its width."""
    frames = crossing(12, step=5)
    frames[4:8] = textured(2, 96, 128)
    picture = edited(frames[0])
    found = find_edit_region(frames, picture)
    left, top, right, bottom = bounds(found.frames[11])
    wanted = (65, 30, 105, 62)
    assert max(abs(a - b) for a, b in zip((left, top, right, bottom), wanted, strict=True)) <= 6


def test_a_hat_goes_with_the_thing_below_it() -> None:
    """It hides only still ground, whose points would stay where they are."""
    frames = crossing(10)
    picture = frames[0].clone()
    picture[14:31, 16:44] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    found = find_edit_region(frames, picture)
    for number in (3, 6, 9):
        wanted = (16 + 4 * number, 14, 44 + 4 * number, 31)
        assert max(abs(a - b) for a, b in zip(bounds(found.frames[number]), wanted, strict=True)) <= 4, number


def test_what_is_put_on_still_ground_stays_there() -> None:
    frames = crossing(10)
    picture = frames[0].clone()
    picture[70:90, 90:120] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    assert bounds(find_edit_region(frames, picture).frames[9]) == pytest.approx((90, 70, 120, 90), abs=2)
