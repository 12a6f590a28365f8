"""The automatic choice of the region's shape."""

from __future__ import annotations

import torch

from lora_edit.compositing.settings import CompositingSettings
from lora_edit.masks.auto_shape import auto_shape_mask
from lora_edit.masks.shapes import dilate, feather_frame, shape_mask
from lora_edit.types import EditMask

BACKGROUND = torch.randint(60, 180, (100, 120, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def disc_mask() -> EditMask:
    rows, columns = torch.meshgrid(torch.arange(100), torch.arange(120), indexing="ij")
    return EditMask(((rows - 50) ** 2 + (columns - 60) ** 2 < 25**2)[None].repeat(3, 1, 1))


def paint_red(mask: torch.Tensor) -> torch.Tensor:
    picture = BACKGROUND.clone()
    picture[mask] = torch.tensor([220, 30, 30], dtype=torch.uint8)
    return picture


def test_edit_inside_the_mask_uses_the_outline() -> None:
    region = auto_shape_mask(disc_mask(), BACKGROUND, paint_red(disc_mask().frames[0]), 0.1, 5)
    assert torch.equal(region.frames, dilate(shape_mask(disc_mask(), "tight", 0.1, 5), 3).frames)
    assert region.frames.sum() < 1.3 * disc_mask().frames.sum()
    assert len(region.notes) == 1 and "the region is the mask, 3 px wider" in region.notes[0]
    unchanged = auto_shape_mask(disc_mask(), BACKGROUND, BACKGROUND, 0.1, 5)
    assert torch.equal(unchanged.frames, region.frames)


def test_object_rim_has_full_blend_weight() -> None:
    """A black object recoloured to red shows no dark outline: compositing shows the edit fully wherever the mask is set."""
    region = auto_shape_mask(disc_mask(), BACKGROUND, paint_red(disc_mask().frames[0]), 0.1, 5)
    weight = feather_frame(region.frames[0], round(CompositingSettings().feather * 100))
    assert (weight[disc_mask().frames[0]] == 1).all()


def test_edit_beyond_the_mask_uses_a_box() -> None:
    mask = disc_mask().frames[0].clone()
    mask[15:30, 50:70] = True
    region = auto_shape_mask(disc_mask(), BACKGROUND, paint_red(mask), 0.1, 5)
    assert torch.equal(region.frames, shape_mask(disc_mask(), "box", 0.1, 5).frames)
    assert len(region.notes) == 1 and "reaches beyond the mask" in region.notes[0]


def test_whole_frame_mask_is_unchanged_and_has_no_note() -> None:
    whole = EditMask(torch.ones(3, 100, 120, dtype=torch.bool))
    assert auto_shape_mask(whole, BACKGROUND, paint_red(disc_mask().frames[0]), 0.1, 5) == whole
