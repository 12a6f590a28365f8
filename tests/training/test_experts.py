"""Tests of a family of two experts: each is trained at its own times, resumed, saved and loaded separately."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_edit.conditioning.method import build_motion_sample
from lora_edit.errors import ModelError
from lora_edit.models.families.base import HIGH_NOISE, LOW_NOISE, ExpertPair
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.run import Run
from lora_edit.training.experts import load_experts, set_strengths, train_experts
from lora_edit.training.loop import Stage
from lora_edit.training.noise import draw_time
from lora_edit.training.settings import LoraSettings, TrainingSettings
from tiny_random import tiny_random_family

SETTINGS = TrainingSettings(learning_rate=3e-3, batch_size=1, checkpoint_every=2)
LORA = LoraSettings(rank=2)


def pair() -> ExpertPair:
    """Build two random experts with the boundary at 0.9."""
    high, low = (
        WanFamily(replace(tiny_random_family(seed).parts, part=part, time_range=times))
        for seed, part, times in ((0, HIGH_NOISE, (0.9, 1.0)), (1, LOW_NOISE, (0.0, 0.9)))
    )
    return ExpertPair(high, low)


def train(
    family: ExpertPair, folder: Path, stop: tuple[str, int] | None = None, settings: TrainingSettings = SETTINGS, steps: int = 3
) -> tuple[list[float], list[tuple[str, int]]]:
    """Train each expert for a few steps, optionally interrupted after the step `stop`. Returns losses and stages."""
    clip = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(5, 16, 16, dtype=torch.bool)
    mask[:, :8, :8] = True
    stage = Stage("motion", [family.encode_sample(build_motion_sample(clip, mask))], [1.0], steps)

    def on_step(name: str, done: int, total: int, loss: float) -> None:
        if (name, done) == stop:
            raise KeyboardInterrupt

    return train_experts(family, [stage], settings, LORA, 0, Run(folder), "key", {"base_model": "random"}, on_step)


@pytest.mark.parametrize("stop", [("motion, high-noise", 1), ("motion, high-noise", 3), ("motion, low-noise", 2)])
def test_run_stopped_in_either_expert_resumes(tmp_path: Path, stop: tuple[str, int]) -> None:
    """The resumed run gives the same bytes."""
    uninterrupted = train(pair(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(pair(), tmp_path / "cut", stop)
    assert train(pair(), tmp_path / "cut") == uninterrupted and len(uninterrupted[0]) == 6
    for part in (HIGH_NOISE, LOW_NOISE):
        assert Run(tmp_path / "cut").lora_file(part).read_bytes() == Run(tmp_path / "whole").lora_file(part).read_bytes()


def test_loras_are_loaded_into_their_own_experts(tmp_path: Path) -> None:
    """Velocities are equal on both sides of the boundary; strength 0 gives the base model's; a missing file is an error."""
    trained, loaded, base = pair(), pair(), pair()
    train(trained, tmp_path)
    load_experts(loaded, LORA, 9, Run(tmp_path).lora_file)
    sample = loaded.encode_sample(build_motion_sample(torch.zeros(3, 5, 16, 16), torch.ones(5, 16, 16, dtype=torch.bool)))
    noise = torch.randn((1, 8, *sample.latent_shape), generator=torch.Generator().manual_seed(0))
    for value in (0.95, 0.5):
        time = torch.tensor([value])
        assert torch.equal(trained.predict_velocity(noise, time, sample), loaded.predict_velocity(noise, time, sample))
        assert not torch.equal(base.predict_velocity(noise, time, sample), loaded.predict_velocity(noise, time, sample))
    set_strengths(loaded, 0.0)
    for value in (0.95, 0.5):
        time = torch.tensor([value])
        torch.testing.assert_close(base.predict_velocity(noise, time, sample), loaded.predict_velocity(noise, time, sample))
    with pytest.raises(ModelError, match="no such file"):
        load_experts(pair(), LORA, 0, lambda part: tmp_path / "none.safetensors")


@pytest.mark.parametrize("sampling", ["uniform", "logit-normal"])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_times_of_an_expert_keep_the_shape_of_the_distribution(sampling: str, shift: float) -> None:
    """All times lie in the expert's range, and have the mean of a single model's times in that range."""
    generator = torch.Generator().manual_seed(0)
    all_times = torch.cat([draw_time(sampling, shift, generator) for _ in range(8000)])
    for first, last in ((0.9, 1.0), (0.0, 0.9)):
        times = torch.cat([draw_time(sampling, shift, generator, (first, last)) for _ in range(800)])
        assert times.min() >= first and times.max() < last
        assert times.mean().item() == pytest.approx(
            all_times[(all_times >= first) & (all_times < last)].mean().item(), abs=0.05 * (last - first)
        )
