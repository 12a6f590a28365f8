"""Tests of the denoising loop; `models/test_wan_parity.py` compares it with diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lora_edit.conditioning.baselines import build_feature_level_sample
from lora_edit.conditioning.method import build_inference_sample
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from tiny_random import tiny_random_family

SETTINGS = GenerationSettings(steps=3, shift=1.0, guidance_scale=1.0)


def clip_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    """Return five random frames and a square region aligned to the latent grid."""
    clip = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(5, 16, 16, dtype=torch.bool)
    mask[:, :8, :8] = True
    return clip, mask


def test_same_seed_gives_the_same_latents() -> None:
    """Another seed gives other latents."""
    family = tiny_random_family()
    clip, mask = clip_and_mask()
    sample = family.encode_sample(build_inference_sample(clip, clip[:, 0], mask))
    first, second, third = (denoise(family, sample, SETTINGS, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, third)


@pytest.mark.parametrize("sampler", ["euler", "unipc"])
def test_feature_level_ends_with_the_source_latents_outside_the_region(sampler: Any) -> None:
    """Eq. 3 at the last step, without remaining noise, for each sampler."""
    family = tiny_random_family()
    clip, mask = clip_and_mask()
    sample = family.encode_sample(build_feature_level_sample(clip, clip[:, 0], mask))
    assert sample.blend_latents is not None and sample.blend_mask is not None
    settings = SETTINGS.model_copy(update={"sampler": sampler})
    latents = denoise(family, sample, settings, torch.Generator().manual_seed(1))
    blended = sample.blend_mask.expand_as(latents) > 0.5
    torch.testing.assert_close(latents[blended], sample.blend_latents.expand_as(latents)[blended], atol=1e-5, rtol=0)
    assert not torch.allclose(latents[~blended], sample.blend_latents.expand_as(latents)[~blended])
