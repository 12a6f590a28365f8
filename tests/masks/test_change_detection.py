"""Comparison of the edited first frame with the source and the mask."""

from __future__ import annotations

import pytest
import torch

from lora_edit.errors import MaskError, RegionError
from lora_edit.masks.change_detection import (
    CHECK_SIDE,
    check_first_frame,
    detect_changed_area,
    detect_outside_change,
    fit_first_frame,
    subtract_colour_shift,
)
from lora_edit.masks.region_check import check_region
from lora_edit.types import Box, EditMask, Size
from lora_edit.video.colors import array_to_frame, frame_to_array
from video.clips import make_clip


def make_scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a textured frame, a copy edited inside the mask, and the mask."""
    source = torch.randint(60, 180, (80, 120, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mask = torch.zeros(80, 120, dtype=torch.bool)
    mask[30:60, 40:80] = True
    edited = source.clone()
    edited[mask] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    return source, edited, mask


def test_edit_inside_the_mask_has_no_note() -> None:
    source, edited, mask = make_scene()
    edited[2, 2] = 255
    assert detect_outside_change(source, edited, mask) is None
    assert check_first_frame(source, edited, mask) == ()


def test_edit_beyond_the_mask_suggests_a_box() -> None:
    source, edited, mask = make_scene()
    edited[20:30, 50:70] = 255
    edited[70:75, 5:15] = 0
    change = detect_outside_change(source, edited, mask)
    assert change is not None
    assert change.share == pytest.approx((200 + 50) / (80 * 120 - 1200))
    assert change.suggested_box == Box(40, 20, 40, 40)
    (note,) = check_first_frame(source, edited, mask)
    assert "--box 40,20,40,40" in note
    assert "3.0%" in note


def test_colour_shift_is_reported_and_suggests_no_larger_box() -> None:
    source, edited, mask = make_scene()
    edited[~mask] += torch.tensor([20, 0, 0], dtype=torch.uint8)
    change = detect_outside_change(source, edited, mask)
    assert change is not None
    assert change.mean_shift == pytest.approx((20, 0, 0))
    assert change.suggested_box == Box(40, 30, 40, 30)
    notes = check_first_frame(source, edited, mask)
    assert "+20.0" in notes[0]
    assert "--box" not in notes[1]


def test_unedited_frame_is_reported() -> None:
    source, _, mask = make_scene()
    assert "equals the source" in check_first_frame(source, source, mask)[0]


def test_whole_frame_mask_has_no_outside_change() -> None:
    source, edited, mask = make_scene()
    assert detect_outside_change(source, edited, torch.ones_like(mask)) is None


def test_first_frame_of_the_same_aspect_ratio_is_resized() -> None:
    _, edited, _ = make_scene()
    unchanged, no_note = fit_first_frame(edited, Size(80, 120))
    assert unchanged is edited
    assert no_note is None
    resized, note = fit_first_frame(edited, Size(160, 240))
    assert resized.shape == (160, 240, 3)
    assert resized.dtype == torch.uint8
    assert note is not None
    assert "from 120x80 to the source's 240x160" in note


def test_first_frame_of_another_aspect_ratio_raises() -> None:
    with pytest.raises(MaskError, match="is 120x80 but the source is 100x100"):
        fit_first_frame(make_scene()[1], Size(100, 100))


def test_redrawn_texture_does_not_enlarge_the_suggested_box() -> None:
    source, edited, mask = make_scene()
    noise = torch.randint(-30, 31, source.shape, generator=torch.Generator().manual_seed(1))
    edited = (edited.int() + noise * ~mask[..., None]).clamp(0, 255).to(torch.uint8)
    edited[18:30, 50:70] = 255
    change = detect_outside_change(source, edited, mask)
    assert change is not None
    assert change.share > 0.5
    assert change.suggested_box.height < 50
    assert change.suggested_box.width < 55
    assert change.suggested_box.top <= 20


def test_colour_conversion_of_another_program_is_no_change() -> None:
    """A frame extracted by swscale's fast arithmetic counts as the source's frame, and an edit of it changes nothing outside the mask."""
    stored = array_to_frame(make_clip(1, 192, 320).frames[0].numpy() // 3 + 80, "yuv420p")
    source = torch.from_numpy(frame_to_array(stored))
    extracted = torch.from_numpy(stored.reformat(format="rgb24", src_colorspace=1, src_color_range=1, dst_color_range=2).to_ndarray())
    mask = torch.zeros(192, 320, dtype=torch.bool)
    mask[60:120, 80:160] = True
    assert int((extracted.int() - source.int()).abs().max()) > 2
    assert "equals the source" in check_first_frame(source, extracted, mask)[0]
    extracted[mask] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    assert not any("outside the mask; the result" in note for note in check_first_frame(source, extracted, mask))


def test_large_frames_are_compared_at_a_smaller_size() -> None:
    """Full 8K frames would need gigabytes. The results still hold for the frame's own pixels."""
    height, width = 1300, 1631
    source = torch.randint(60, 180, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[301:777, 403:1001] = True
    edited = source.clone()
    edited[mask] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    assert min(subtract_colour_shift(source, edited).shape[:2]) == CHECK_SIDE
    assert check_first_frame(source, edited, mask) == ()
    check_region(source, edited, EditMask(mask[None]), EditMask(mask[None]), "--mask")
    with pytest.raises(RegionError, match="covers the unedited part"):
        check_region(source, edited, EditMask(~mask[None]), EditMask(~mask[None]), "--mask")
    edited[777:1000, 500:900] = 255
    box = detect_outside_change(source, edited, mask).suggested_box
    assert (box.left, box.top, box.width) == (403, 301, 598) and abs(box.top + box.height - 1000) <= 3
    changed = detect_changed_area(source, edited)
    assert changed.shape == (height, width) and changed[310:770, 410:990].mean() > 0.99 and changed[:290].mean() < 0.01
