"""Tests of the table in `method.py`, row by row, and of leaks of hidden pixels."""

from __future__ import annotations

import pytest
import torch

from lora_edit.conditioning import baselines, method
from lora_edit.conditioning.fill import FILL_VALUE
from lora_edit.conditioning.recolour import draw_colour_map, draw_texture, estimate_changed_region, recolour_sample


@pytest.fixture
def clip() -> torch.Tensor:
    """Return five random frames, `[3, 5, 16, 16]`."""
    return torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


@pytest.fixture
def mask() -> torch.Tensor:
    """Return the mask of a moving square, `[5, 16, 16]`."""
    mask = torch.zeros(5, 16, 16, dtype=torch.bool)
    for frame in range(5):
        mask[frame, 4:10, frame : frame + 6] = True
    return mask


def test_motion(clip: torch.Tensor, mask: torch.Tensor) -> None:
    """Frame 0 is given, later frames are given outside the region, and the source is the target."""
    sample = method.build_motion_sample(clip, mask)
    assert torch.equal(sample.m_cond[0, 0], torch.ones(16, 16))
    assert torch.equal(sample.m_cond[0, 1:], (~mask[1:]).float())
    assert torch.equal(sample.v_cond[:, 0], clip[:, 0]) and sample.v_cond[:, 1:][:, mask[1:]].eq(FILL_VALUE).all()
    assert torch.equal(sample.v_cond[:, 1:][:, ~mask[1:]], clip[:, 1:][:, ~mask[1:]])
    assert sample.v_target is not None and torch.equal(sample.v_target, clip) and torch.equal(sample.image, clip[:, 0])


def test_appearance(clip: torch.Tensor, mask: torch.Tensor) -> None:
    """The sample has one frame; its region is hidden although it is the first; the edited frame is the target."""
    edited = clip[:, 3] * 0.5
    sample = method.build_appearance_sample(clip[:, 3], edited, mask[3])
    assert sample.num_frames == 1 and sample.v_target is not None
    assert torch.equal(sample.m_cond[0, 0], (~mask[3]).float())
    assert sample.v_cond[:, 0][:, mask[3]].eq(FILL_VALUE).all()
    assert torch.equal(sample.v_target[:, 0], edited) and torch.equal(sample.image, clip[:, 3])


def test_inference(clip: torch.Tensor, mask: torch.Tensor) -> None:
    """The mask equals that of training; only frame 0 is replaced, by the edited one."""
    edited = -clip[:, 0]
    sample, trained = method.build_inference_sample(clip, edited, mask), method.build_motion_sample(clip, mask)
    assert torch.equal(sample.m_cond, trained.m_cond) and sample.v_target is None
    assert torch.equal(sample.v_cond[:, 0], edited) and torch.equal(sample.v_cond[:, 1:], trained.v_cond[:, 1:])


def test_anchor_is_given_completely(clip: torch.Tensor, mask: torch.Tensor) -> None:
    """A frame that the person fixed."""
    anchor = clip[:, 2] * 0.1
    sample = method.build_inference_sample(clip, clip[:, 0], mask, anchors={2: anchor})
    assert sample.m_cond[0, 2].eq(1).all() and torch.equal(sample.v_cond[:, 2], anchor)


@pytest.mark.parametrize("name", sorted(baselines.INFERENCE_BUILDERS))
def test_nothing_inside_the_hole_reaches_the_condition(clip: torch.Tensor, mask: torch.Tensor, name: str) -> None:
    """Other source pixels where M_cond is 0 leave the condition unchanged bit for bit."""
    first = baselines.INFERENCE_BUILDERS[name](clip, clip[:, 0], mask)
    other = torch.where(first.m_cond > 0.5, clip, -clip + 0.1)
    second = baselines.INFERENCE_BUILDERS[name](other, clip[:, 0], mask)
    assert torch.equal(first.v_cond, second.v_cond) and torch.equal(first.m_cond, second.m_cond)


def test_baselines_change_one_thing(clip: torch.Tensor, mask: torch.Tensor) -> None:
    """The baselines give only frame 0, every pixel, or none; B.3 gives the target."""
    assert baselines.build_naive_motion_sample(clip, mask).m_cond.sum() == 16 * 16
    assert baselines.build_all_ones_motion_sample(clip, mask).m_cond.mean() == 1
    assert baselines.build_all_zeros_motion_sample(clip, mask).m_cond.sum() == 0
    unscheduled = baselines.build_unscheduled_appearance_sample(clip[:, 1], clip[:, 2], mask[1])
    assert unscheduled.v_target is not None and torch.equal(unscheduled.v_cond, unscheduled.v_target)
    blended = baselines.build_feature_level_sample(clip, clip[:, 0], mask)
    assert blended.m_cond.sum() == 16 * 16 and blended.v_blend is not None and blended.m_blend is not None
    assert torch.equal(blended.m_blend, method.build_m_cond(mask))


def test_appearance_after_first_is_conditioned_as_generation(clip: torch.Tensor, mask: torch.Tensor) -> None:
    """The edited first frame is given, the later frame's region is not, and the target is still after frame 0."""
    frames = [0, 2, 2, 2, 2]
    edited = torch.flip(clip, (0,))
    sample = method.build_appearance_after_first_sample(clip[:, frames], edited[:, 0], edited[:, 2], mask[frames])
    assert sample.v_target is not None and torch.equal(sample.v_cond[:, 0], edited[:, 0])
    assert torch.equal(sample.v_target[:, 0], edited[:, 0]) and all(torch.equal(sample.v_target[:, n], edited[:, 2]) for n in range(1, 5))
    assert torch.equal(sample.v_cond[:, 1][:, ~mask[2]], clip[:, 2][:, ~mask[2]]) and sample.v_cond[:, 1][:, mask[2]].eq(0).all()


def test_recolouring_changes_only_the_region(clip: torch.Tensor, mask: torch.Tensor) -> None:
    """Frame 0, target and image get the same map; the background and the hidden pixels stay."""
    plain = method.build_motion_sample(clip, mask)
    changed = recolour_sample(plain, mask, draw_colour_map(torch.Generator().manual_seed(1)))
    assert changed.v_target is not None and plain.v_target is not None
    assert torch.equal(changed.v_target[:, ~mask], plain.v_target[:, ~mask])
    assert not torch.equal(changed.v_target[:, mask], plain.v_target[:, mask])
    assert torch.equal(changed.v_cond[:, 0], changed.v_target[:, 0]) and torch.equal(changed.image, changed.v_target[:, 0])
    assert torch.equal(changed.v_cond[:, 1:], plain.v_cond[:, 1:])


def test_changed_region_follows_the_correspondence() -> None:
    """A changed square in frame 0 moves right by three pixels per frame."""
    source = torch.zeros(3, 24, 32)
    edited = source.clone()
    edited[:, 8:16, 8:16] = 1.0
    y, x = torch.meshgrid(torch.arange(24).float(), torch.arange(32).float(), indexing="ij")
    region = estimate_changed_region(source, edited, torch.stack([torch.stack([x - 3 * t, y], -1) for t in range(3)]))
    assert region.shape == (3, 24, 32) and region.min() == 0 and region.max() == 1
    assert (region[0, 8:16, 8:16] == 1).all() and (region[2, 8:16, 14:22] == 1).all() and region[2, 8:16, 8:10].max() == 0


def test_texture_moves_with_the_clip(clip: torch.Tensor, mask: torch.Tensor) -> None:
    """The pattern moves right by one pixel per frame and changes only the region."""
    frames, height, width = clip.shape[1:]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    correspondence = torch.stack([torch.stack([x - t, y], -1) for t in range(frames)])
    texture = draw_texture(torch.Generator().manual_seed(2), correspondence)
    assert torch.allclose(texture.pixels[:, 2, :, 2:], texture.pixels[:, 0, :, :-2], atol=1e-4)
    plain = method.build_motion_sample(clip, mask)
    changed = recolour_sample(plain, mask, draw_colour_map(torch.Generator().manual_seed(1)), texture)
    assert plain.v_target is not None and changed.v_target is not None
    assert torch.equal(changed.v_target[:, ~mask], plain.v_target[:, ~mask])
    assert torch.equal(changed.v_cond[:, 0], changed.v_target[:, 0])
    assert torch.equal(changed.image, changed.v_target[:, 0])
