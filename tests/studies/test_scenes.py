"""Scenes with ground truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_edit.studies.scene_kinds import SCENE_KINDS, draw_scenes
from lora_edit.studies.scenes import render_true_edit
from lora_edit.types import Size

SIZE = Size(32, 40)


@pytest.mark.parametrize("kind", sorted(SCENE_KINDS))
def test_source_and_truth_differ_only_inside_mask(kind: str) -> None:
    """Every pixel that the edit changes is in the mask, and the edit changes something."""
    edit = render_true_edit(SCENE_KINDS[kind](np.random.default_rng(1)), SIZE, 5)
    outside = ~edit.mask.frames
    assert edit.source.shape == edit.truth.shape == (5, 32, 40, 3)
    difference = (edit.source.int() - edit.truth.int()).abs().amax(-1)
    assert difference[outside].max() <= 6 and difference[edit.mask.frames].float().mean() > 5
    assert edit.mask.frames[0].any() and outside.float().mean() > 0.3


def test_scenes_are_seeded() -> None:
    """The same seed draws the same scenes, another seed draws other scenes."""
    first, second, third = (render_true_edit(draw_scenes(2, seed)[1], SIZE, 2).source for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, third)
