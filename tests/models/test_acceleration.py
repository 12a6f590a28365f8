"""Accelerated sampling: results where they should not change, and the state after it."""

from __future__ import annotations

import pytest
import torch

from lora_edit.conditioning.method import build_inference_sample
from lora_edit.errors import ModelError, NonFiniteError
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.family import EncodedSample
from lora_edit.models.runtime.acceleration import NATIVE_ATTENTION, accelerate_sampling
from tiny_random import tiny_random_family

SETTINGS = GenerationSettings(steps=6, shift=1.0, guidance_scale=2.0)


def drawn(family: WanFamily, sample: EncodedSample) -> torch.Tensor:
    return denoise(family, sample, SETTINGS, torch.Generator().manual_seed(1), negative=sample)


@pytest.fixture
def family() -> WanFamily:
    return tiny_random_family()


@pytest.fixture
def sample(family: WanFamily) -> EncodedSample:
    clip = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return family.encode_sample(build_inference_sample(clip, clip[:, 0], torch.ones(5, 16, 16, dtype=torch.bool)))


def test_default_settings_change_nothing(family: WanFamily, sample: EncodedSample) -> None:
    before = drawn(family, sample)
    with accelerate_sampling(family, attention_backend=NATIVE_ATTENTION, cache_threshold=0.0, compile_blocks=False):
        assert torch.equal(drawn(family, sample), before)


@pytest.mark.parametrize("threshold", [1e-9, 10.0])
def test_the_cache_skips_what_it_finds_unchanged(family: WanFamily, sample: EncodedSample, threshold: float) -> None:
    """Below every change, all blocks run and the result is equal; above all changes, only the first pass of each kind runs."""
    before, ran = drawn(family, sample), []
    handle = family.transformer.get_submodule("blocks.1.ffn").register_forward_hook(lambda *_: ran.append(1))
    with accelerate_sampling(family, attention_backend=NATIVE_ATTENTION, cache_threshold=threshold, compile_blocks=False):
        during, first = drawn(family, sample), len(ran)
        assert torch.equal(drawn(family, sample), during), "the memory of one generation reaches into the next"
    handle.remove()
    assert torch.equal(during, before) == (threshold < 1)
    assert first == (2 * SETTINGS.steps if threshold < 1 else 2)
    assert torch.equal(drawn(family, sample), before)


def test_another_attention_backend_and_back(family: WanFamily, sample: EncodedSample) -> None:
    before = drawn(family, sample)
    with accelerate_sampling(family, attention_backend="_native_math", cache_threshold=0.0, compile_blocks=False):
        assert str(family.transformer.get_submodule("blocks.0.attn1").processor._attention_backend.value) == "_native_math"  # type: ignore[union-attr]
        torch.testing.assert_close(drawn(family, sample), before, atol=1e-4, rtol=1e-4)
    assert torch.equal(drawn(family, sample), before)


@pytest.mark.parametrize("attention", ["no-such-backend", "sage"])
def test_unsupported_accelerations_are_errors(family: WanFamily, attention: str) -> None:
    with (
        pytest.raises(ModelError, match=r"random cannot sample so here .*; leave generation\.attention"),
        accelerate_sampling(family, attention_backend=attention, cache_threshold=0.0, compile_blocks=False),
    ):
        pytest.fail("it went on")


def test_non_finite_velocities_stop_the_loop(family: WanFamily, sample: EncodedSample, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = WanFamily.predict_velocity
    monkeypatch.setattr(WanFamily, "predict_velocity", lambda *args: answer(*args) * float("nan"))
    with pytest.raises(NonFiniteError, match="step 1 of 6"):
        drawn(family, sample)
