"""The region's shape follows from what was given and what the edit does."""

from __future__ import annotations

import torch

from lora_edit.compositing.settings import CompositingSettings
from lora_edit.masks.auto_shape import auto_shape_mask
from lora_edit.masks.shapes import dilate, feather_frame, shape_mask
from lora_edit.types import EditMask

GROUND = torch.randint(60, 180, (100, 120, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def disc() -> EditMask:
    rows, columns = torch.meshgrid(torch.arange(100), torch.arange(120), indexing="ij")
    return EditMask(((rows - 50) ** 2 + (columns - 60) ** 2 < 25**2)[None].repeat(3, 1, 1))


def painted(mask: torch.Tensor) -> torch.Tensor:
    picture = GROUND.clone()
    picture[mask] = torch.tensor([220, 30, 30], dtype=torch.uint8)
    return picture


def test_an_edit_within_the_outline_keeps_it() -> None:
    region = auto_shape_mask(disc(), GROUND, painted(disc().frames[0]), 0.1, 5)
    assert torch.equal(region.frames, dilate(shape_mask(disc(), "tight", 0.1, 5), 3).frames)
    assert region.frames.sum() < 1.3 * disc().frames.sum()
    assert len(region.notes) == 1 and "the region is the mask, 3 px wider" in region.notes[0]
    unchanged = auto_shape_mask(disc(), GROUND, GROUND, 0.1, 5)
    assert torch.equal(unchanged.frames, region.frames)


def test_the_source_is_not_blended_into_the_rim_of_the_thing() -> None:
    """A black thing made red has no dark outline: compositing shows the edit in full wherever the mask is."""
    region = auto_shape_mask(disc(), GROUND, painted(disc().frames[0]), 0.1, 5)
    weight = feather_frame(region.frames[0], round(CompositingSettings().feather * 100))
    assert (weight[disc().frames[0]] == 1).all()


def test_an_edit_that_leaves_the_outline_gets_a_box() -> None:
    mask = disc().frames[0].clone()
    mask[15:30, 50:70] = True
    region = auto_shape_mask(disc(), GROUND, painted(mask), 0.1, 5)
    assert torch.equal(region.frames, shape_mask(disc(), "box", 0.1, 5).frames)
    assert len(region.notes) == 1 and "reaches beyond the mask" in region.notes[0]


def test_a_whole_frame_stays_whole_without_a_word() -> None:
    whole = EditMask(torch.ones(3, 100, 120, dtype=torch.bool))
    assert auto_shape_mask(whole, GROUND, painted(disc().frames[0]), 0.1, 5) == whole
