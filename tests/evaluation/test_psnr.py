"""PSNR."""

from __future__ import annotations

import math

import pytest
import torch

from evaluation.pictures import box, still
from lora_edit.errors import MaskError, VideoError
from lora_edit.evaluation.psnr import psnr, psnr_per_frame


def test_constant_difference_of_16_levels_is_24_db() -> None:
    truth = still()
    assert psnr(truth + 16, truth) == pytest.approx(24.0485, abs=1e-4)
    assert psnr(truth - 16, truth) == pytest.approx(24.0485, abs=1e-4)


def test_black_against_white_is_0_db() -> None:
    black = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    assert psnr(black, black + 255) == 0


def test_equal_clips_have_infinite_psnr() -> None:
    assert psnr(still(), still()) == math.inf


def test_only_masked_pixels_count() -> None:
    truth = still()
    mask = box(truth)
    result = truth.clone()
    result[mask] += 16
    assert psnr(result, truth, mask) == pytest.approx(24.0485, abs=1e-4)
    assert psnr(result, truth, ~mask) == math.inf


def test_error_is_averaged_before_logarithm() -> None:
    truth = still(4)
    result = truth.clone()
    result[0] += 16
    assert psnr(result, truth) == pytest.approx(24.0485 + 10 * math.log10(4), abs=1e-4)
    assert psnr_per_frame(result, truth) == pytest.approx([24.0485, math.inf, math.inf, math.inf], abs=1e-4)


def test_frame_without_region_is_nan() -> None:
    truth = still(2)
    mask = box(truth)
    mask[1] = False
    first, second = psnr_per_frame(truth + 16, truth, mask)
    assert first == pytest.approx(24.0485, abs=1e-4)
    assert math.isnan(second)


def test_empty_mask_raises() -> None:
    with pytest.raises(MaskError, match="no pixel"):
        psnr(still(), still(), torch.zeros(3, 48, 64, dtype=torch.bool))


def test_mask_of_another_size_raises() -> None:
    with pytest.raises(MaskError, match="3 frames of 32x48 but the clip has 3 frames of 64x48"):
        psnr(still(), still(), torch.ones(3, 48, 32, dtype=torch.bool))


def test_clips_of_different_length_raise() -> None:
    with pytest.raises(VideoError, match=r"2 frames of 64x48 but .* 3 frames of 64x48; give"):
        psnr(still(2), still(3))
