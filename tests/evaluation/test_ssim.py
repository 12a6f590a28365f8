"""SSIM."""

from __future__ import annotations

import pytest
import torch

from evaluation.pictures import box, still, texture
from lora_edit.errors import MaskError
from lora_edit.evaluation.ssim import C1, ssim


def test_equal_clips_have_ssim_1() -> None:
    assert ssim(still(), still()) == 1.0


def test_flat_pictures_compare_by_mean() -> None:
    dark = torch.full((1, 20, 20, 3), 100, dtype=torch.uint8)
    light = torch.full((1, 20, 20, 3), 150, dtype=torch.uint8)
    assert ssim(dark, light) == pytest.approx((2 * 100 * 150 + C1) / (100**2 + 150**2 + C1), abs=1e-6)


def test_inverted_picture_has_negative_ssim() -> None:
    assert ssim(255 - still(1), still(1)) < 0


def test_map_is_averaged_inside_mask() -> None:
    truth = still()
    mask = torch.zeros(truth.shape[:3], dtype=torch.bool)
    mask[:, :, 40:] = True
    result = truth.clone()
    result[:, :, 50:] = 255 - result[:, :, 50:]
    inside, outside, whole = ssim(result, truth, mask), ssim(result, truth, ~mask), ssim(result, truth)
    assert inside < 0.7
    assert outside == 1.0
    assert whole == pytest.approx((inside * 24 + outside * 40) / 64)


def test_matches_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    result, truth = texture(40, 56, 1), texture(40, 56, 2)
    luma = [(picture.double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)).numpy() for picture in (result, truth)]
    _, full = metrics.structural_similarity(*luma, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True)
    assert ssim(result[None], truth[None]) == pytest.approx(full.mean(), abs=1e-9)
    mask = box(truth[None])
    assert ssim(result[None], truth[None], mask) == pytest.approx(full[mask[0].numpy()].mean(), abs=1e-9)


def test_empty_mask_raises() -> None:
    with pytest.raises(MaskError):
        ssim(still(), still(), torch.zeros(3, 48, 64, dtype=torch.bool))
