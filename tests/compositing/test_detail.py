"""Detail above the model's resolution."""

from __future__ import annotations

import torch

from lora_edit.compositing.detail import add_detail
from lora_edit.types import Size
from lora_edit.video.resize import resize_frames

SMALL = Size(24, 24)


def pattern() -> torch.Tensor:
    """A fine random pattern `[96, 96, 3]` uint8."""
    fine = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(fine, size=(96, 96), mode="bicubic").clamp(0, 1)[0] * 160 + 40
    return wide.to(torch.uint8).permute(1, 2, 0).contiguous()


def drawn(frame: torch.Tensor) -> torch.Tensor:
    """As a model of a quarter of the resolution returns it."""
    return resize_frames(frame[None], SMALL)[0]


def error(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.int() - right.int()).abs()[8:-8, 8:-8].float().mean())


SURE, UNSURE = torch.full((12, 12), 5.0), torch.full((12, 12), 120.0)


def test_where_the_model_drew_the_prediction_its_detail_returns() -> None:
    assert error(add_detail(drawn(pattern()), pattern(), UNSURE), pattern()) < 1


def test_what_an_autoencoder_loses_comes_back() -> None:
    noise = torch.randint(-6, 7, (24, 24, 3), generator=torch.Generator().manual_seed(1))
    coded = (drawn(pattern()).int() + noise).clamp(0, 255).to(torch.uint8)
    assert error(add_detail(coded, pattern(), SURE), pattern()) < 1
    assert error(add_detail(coded, pattern(), UNSURE), pattern()) < 3


def test_what_the_model_drew_instead_is_shown_where_the_prediction_is_unsure() -> None:
    """It drew something dark that nothing predicted."""
    dark = torch.full((24, 24, 3), 12, dtype=torch.uint8)
    shown = add_detail(dark, pattern(), UNSURE)
    assert error(shown, torch.full_like(shown, 12)) < 12
    assert error(add_detail(dark, pattern(), SURE), pattern()) < 1


def test_each_part_has_its_own_doubt() -> None:
    dark = torch.full((24, 24, 3), 12, dtype=torch.uint8)
    half = torch.cat([SURE[:, :6], UNSURE[:, 6:]], 1)
    shown = add_detail(dark, pattern(), half)
    assert error(shown[:, :40], pattern()[:, :40]) < 1
    assert float(shown[:, 60:].float().mean()) < 20
