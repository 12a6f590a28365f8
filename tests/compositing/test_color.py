"""Tests of colour matching."""

from __future__ import annotations

import torch

from lora_edit.compositing.color import match_colour


def clip(seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(6, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(coarse, size=(32, 48), mode="bilinear")
    return (40 + 170 * large).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def ring() -> torch.Tensor:
    mask = torch.zeros(6, 32, 48, dtype=torch.bool)
    mask[:, :8] = True
    return mask


def test_gain_and_offset_are_removed() -> None:
    reference = clip()
    generated = (reference.float() * 0.9 + torch.tensor([4.0, -3.0, 8.0])).round().to(torch.uint8)
    matched = match_colour(generated, reference, ring())
    assert matched.dtype == torch.uint8
    assert (matched.float() - reference.float()).abs().mean() < 1
    assert (matched.float() - reference.float()).abs().max() <= 4


def test_edited_pixels_in_the_ring_are_outliers() -> None:
    reference = clip()
    generated = (reference.float() + 6).to(torch.uint8)
    generated[:, :4, :10] = 255 - generated[:, :4, :10]
    matched = match_colour(generated, reference, ring())
    assert (matched[:, 10:].float() - reference[:, 10:].float()).abs().mean() < 1


def test_correction_is_bounded() -> None:
    reference = torch.full((2, 20, 20, 3), 200, dtype=torch.uint8)
    generated = torch.full_like(reference, 60)
    assert match_colour(generated, reference, torch.ones(2, 20, 20, dtype=torch.bool)).unique().tolist() == [84]


def test_drift_and_frames_without_known_pixels_are_corrected() -> None:
    reference = clip()
    generated = reference.float() + torch.linspace(0, 2, 6)[:, None, None, None]
    mask = ring()
    mask[3] = False
    matched = match_colour(generated, reference, mask)
    assert matched.dtype == torch.float32
    assert (matched - reference.float()).abs().max() < 2


def test_too_few_known_pixels_return_the_input() -> None:
    generated = clip()
    mask = torch.zeros(6, 32, 48, dtype=torch.bool)
    mask[0, 0, :40] = True
    assert match_colour(generated, clip(1), mask) is generated
