"""Tests of drawn times and of the two published debiasing losses."""

from __future__ import annotations

import pytest
import torch

from lora_edit.conditioning.method import build_motion_sample
from lora_edit.training.loss import compute_velocity_loss, draw_offset_noise, subtract_anchor
from lora_edit.training.noise import draw_time
from lora_edit.training.settings import TrainingSettings
from tiny_random import tiny_random_family


@pytest.mark.parametrize("sampling", ["uniform", "logit-normal"])
def test_shift_moves_time_toward_noise(sampling: str) -> None:
    """The mean is 0.5 without a shift, and near 0.7 with a shift of 4; all times stay in (0, 1)."""
    generator = torch.Generator().manual_seed(0)
    plain, shifted = (torch.cat([draw_time(sampling, shift, generator) for _ in range(2000)]) for shift in (1.0, 4.0))
    assert plain.mean() == pytest.approx(0.5, abs=0.02) and 0.68 < shifted.mean() < 0.8
    assert shifted.min() > 0 and shifted.max() < 1


def test_offset_noise_is_one_value_per_channel() -> None:
    """The offset is the same in every frame and position."""
    offset = draw_offset_noise(torch.Size([1, 8, 3, 4, 5]), torch.Generator().manual_seed(0))
    assert offset.shape == (1, 8, 1, 1, 1) and 0.02 < offset.std() < 0.3


def test_subtracting_the_anchor_reduces_shared_content() -> None:
    """A still clip, including the anchor frame, is scaled by sqrt(2) - 1."""
    still = torch.ones(1, 2, 3, 4, 4)
    assert torch.allclose(subtract_anchor(still, 1), torch.full_like(still, 2**0.5 - 1))


@pytest.mark.parametrize("debias", ["none", "anchor", "offset-noise"])
def test_every_loss_is_seeded_and_differs(debias: str) -> None:
    """Equal generators give equal losses; each method gives a different loss."""
    family = tiny_random_family()
    clip = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sample = family.encode_sample(build_motion_sample(clip, torch.ones(5, 16, 16, dtype=torch.bool)))

    def loss(method: str) -> float:
        settings = TrainingSettings(debias=method)  # type: ignore[arg-type]
        return compute_velocity_loss(family, sample, settings, torch.Generator().manual_seed(3)).item()

    assert loss(debias) == loss(debias)
    assert debias == "none" or loss(debias) != loss("none")
