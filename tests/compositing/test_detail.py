"""Tests of detail above the model's resolution."""

from __future__ import annotations

import torch

from lora_edit.compositing.detail import add_detail
from lora_edit.types import Size
from lora_edit.video.resize import resize_frames

SMALL = Size(24, 24)


def pattern() -> torch.Tensor:
    """Return a fine random pattern `[96, 96, 3]` uint8."""
    fine = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(fine, size=(96, 96), mode="bicubic").clamp(0, 1)[0] * 160 + 40
    return wide.to(torch.uint8).permute(1, 2, 0).contiguous()


def generated(frame: torch.Tensor) -> torch.Tensor:
    """Downscale a frame to a model's output of a quarter of the resolution."""
    return resize_frames(frame[None], SMALL)[0]


def error(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.int() - right.int()).abs()[8:-8, 8:-8].float().mean())


SMALL_ERROR, LARGE_ERROR = torch.full((12, 12), 5.0), torch.full((12, 12), 120.0)


def test_detail_is_restored_where_the_model_agrees() -> None:
    assert error(add_detail(generated(pattern()), pattern(), LARGE_ERROR), pattern()) < 1


def test_autoencoder_noise_is_removed() -> None:
    noise = torch.randint(-6, 7, (24, 24, 3), generator=torch.Generator().manual_seed(1))
    noisy = (generated(pattern()).int() + noise).clamp(0, 255).to(torch.uint8)
    assert error(add_detail(noisy, pattern(), SMALL_ERROR), pattern()) < 1
    assert error(add_detail(noisy, pattern(), LARGE_ERROR), pattern()) < 3


def test_model_output_is_used_where_the_prediction_is_uncertain() -> None:
    """The model generated a dark frame that differs from the prediction."""
    dark = torch.full((24, 24, 3), 12, dtype=torch.uint8)
    output = add_detail(dark, pattern(), LARGE_ERROR)
    assert error(output, torch.full_like(output, 12)) < 12
    assert error(add_detail(dark, pattern(), SMALL_ERROR), pattern()) < 1


def test_error_is_applied_per_pixel() -> None:
    dark = torch.full((24, 24, 3), 12, dtype=torch.uint8)
    errors = torch.cat([SMALL_ERROR[:, :6], LARGE_ERROR[:, 6:]], 1)
    output = add_detail(dark, pattern(), errors)
    assert error(output[:, :40], pattern()[:, :40]) < 1
    assert float(output[:, 60:].float().mean()) < 20
