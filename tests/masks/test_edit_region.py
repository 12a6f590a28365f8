"""The region derived from the edit itself."""

from __future__ import annotations

import pytest
import torch

from lora_edit.errors import MaskError
from lora_edit.masks.edit_region import find_edit_region
from lora_edit.types import mask_bounds


def make_texture(seed: int, height: int, width: int) -> torch.Tensor:
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0].permute(1, 2, 0)
    return (large * 255).clamp(0, 255).to(torch.uint8)


def make_crossing_clip(count: int, step: int = 4) -> torch.Tensor:
    """Return a clip `[T, 96, 128, 3]` of a patch of 40x32 pixels that crosses a static background."""
    frames = make_texture(0, 96, 128).repeat(count, 1, 1, 1)
    for number, frame in enumerate(frames):
        frame[30:62, 10 + step * number : 50 + step * number] = make_texture(1, 32, 40)
    return frames


def invert_patch(frame: torch.Tensor) -> torch.Tensor:
    out = frame.clone()
    out[30:62, 10:50] = 255 - out[30:62, 10:50]
    return out


def test_box_follows_the_changed_object() -> None:
    frames = make_crossing_clip(10)
    region = find_edit_region(frames, invert_patch(frames[0]))
    for number, mask in enumerate(region.frames):
        expected = (10 + 4 * number, 30, 50 + 4 * number, 62)
        assert max(abs(a - b) for a, b in zip(mask_bounds(mask), expected, strict=True)) <= 4, number
    assert "no mask was given" in region.notes[0] and len(region.notes) == 1


def test_minor_changes_elsewhere_are_ignored() -> None:
    frames = make_crossing_clip(3)
    picture = invert_patch(frames[0])
    picture[5:10, 110:116] = 255
    assert mask_bounds(find_edit_region(frames, picture).frames[0])[2] <= 53


def test_separate_changed_objects_have_a_box_each() -> None:
    frames = make_crossing_clip(8)
    picture = invert_patch(frames[0])
    picture[66:90, 96:122] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    region = find_edit_region(frames, picture)
    assert "in 2 places" in region.notes[0] and not region.frames[:, :60, 90:].any() and not region.frames[:, 70:, :80].any()
    assert mask_bounds(region.frames[7, :64]) == pytest.approx((38, 30, 78, 62), abs=4)
    assert mask_bounds(region.frames[7, 64:]) == pytest.approx((96, 2, 122, 26), abs=2)


def test_unchanged_picture_raises() -> None:
    frames = make_crossing_clip(2)
    with pytest.raises(MaskError, match="give --mask PATH"):
        find_edit_region(frames, frames[0].clone())


def test_lost_region_is_reported() -> None:
    """The object breaks up: its halves move apart."""
    frames = make_texture(0, 96, 128).repeat(8, 1, 1, 1)
    for number, frame in enumerate(frames):
        top, bottom = 30 - 4 * number, 46 + 4 * number
        frame[max(0, top) : top + 16, 50:90] = make_texture(1, 16, 40)[max(0, -top) :]
        frame[bottom : bottom + 16, 50:90] = make_texture(2, 16, 40)[: max(0, 96 - bottom)]
    picture = frames[0].clone()
    picture[30:62, 50:90] = 255 - picture[30:62, 50:90]
    notes = find_edit_region(frames, picture).notes
    assert len(notes) == 2 and "probably lost" in notes[1]


def test_hidden_object_is_recovered() -> None:
    """An occluder covers the whole frame while the object moves by more than half its width."""
    frames = make_crossing_clip(12, step=5)
    frames[4:8] = make_texture(2, 96, 128)
    picture = invert_patch(frames[0])
    region = find_edit_region(frames, picture)
    left, top, right, bottom = mask_bounds(region.frames[11])
    expected = (65, 30, 105, 62)
    assert max(abs(a - b) for a, b in zip((left, top, right, bottom), expected, strict=True)) <= 6


@pytest.mark.parametrize("bottom", [30, 31])
def test_hat_moves_with_the_object_below_it(bottom: int) -> None:
    """The hat covers only static background, whose points would stay in place, and at most the edge of the object."""
    frames = make_crossing_clip(10)
    picture = frames[0].clone()
    picture[14:bottom, 16:44] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    region = find_edit_region(frames, picture)
    for number in (3, 6, 9):
        expected = (16 + 4 * number, 14, 44 + 4 * number, bottom)
        assert max(abs(a - b) for a, b in zip(mask_bounds(region.frames[number]), expected, strict=True)) <= 4, number


def test_object_added_on_static_background_stays() -> None:
    frames = make_crossing_clip(10)
    picture = frames[0].clone()
    picture[70:90, 90:120] = torch.tensor([240, 20, 20], dtype=torch.uint8)
    assert mask_bounds(find_edit_region(frames, picture).frames[9]) == pytest.approx((90, 70, 120, 90), abs=2)
