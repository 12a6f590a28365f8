"""Tests of early stopping: by fixed held-out draws, at the same step after an interruption, in every stage and expert."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_edit.config import resolve_settings
from lora_edit.errors import SettingsError
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.run import Run
from lora_edit.training import held_out, loop
from lora_edit.training.held_out import compute_held_out_loss, count_held_out_passes, has_stalled
from lora_edit.training.loop import fit
from lora_edit.training.lora import add_lora, save_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings
from tiny_random import tiny_random_family
from training.test_experts import SETTINGS as PAIR_SETTINGS
from training.test_experts import pair, train
from training.test_loop import stages

SETTINGS = TrainingSettings(learning_rate=3e-3, checkpoint_every=3, early_stop=True)


@pytest.fixture
def frequent_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate every second step with a patience of 1, so that the stages of a random model end early."""
    monkeypatch.setattr(loop, "HELD_OUT_INTERVAL", 2)
    monkeypatch.setattr(held_out, "PATIENCE", 1)


Reports = list[tuple[str, int, int]]


def run(
    family: WanFamily, folder: Path, stop_after: int | None = None, steps: int = 16, settings: TrainingSettings = SETTINGS
) -> tuple[list[list[float]], Reports]:
    """Fit two stages, optionally interrupted after `stop_after` steps. Returns the losses by stage and the reported steps."""
    reports: Reports = []

    def on_step(name: str, done: int, total: int, loss: float) -> None:
        reports.append((name, done, total))
        if done == stop_after:
            raise KeyboardInterrupt

    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    losses = fit(family, parameters, stages(family, steps, steps), settings, 0, folder / "training.pt", "key", on_step)
    save_lora(family, folder / "edit.safetensors", {"base_model": "random", "seed": "0"})
    return losses, reports


@pytest.mark.parametrize(
    ("losses", "stalled"),
    [
        ([], False),
        ([1.0, 1.0, 1.0], False),  # too few evaluations
        ([1.0, 1.0, 1.0, 1.0], True),  # no decrease
        ([1.0, 1.1, 1.2, 1.3], True),  # an increase
        ([1.0, 0.9, 0.8, 0.7, 0.6], False),  # a steady decrease
        ([1.0, 0.5, 0.48, 0.46, 0.44], True),  # small relative to the earlier decrease
        ([1.0, 0.5, 0.48, 0.9, 0.3], False),  # a single bad evaluation
        ([1.0, 0.5, 0.7, 0.6, 0.8], True),  # a later increase
        ([0.101, 0.1005, 0.1003, 0.1001, 0.1], False),  # small relative to the loss, but not to the total decrease
    ],
)
def test_loss_stalls_after_a_small_relative_decrease(losses: list[float], stalled: bool) -> None:
    assert has_stalled(losses) is stalled


def test_every_evaluation_uses_the_same_draws() -> None:
    """Draws depend on the run's seed; an evaluation changes neither the global generator nor the gradients."""
    family = tiny_random_family()
    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    stage = stages(family)[1]
    state = torch.random.get_rng_state()
    first, again, other = (compute_held_out_loss(family, stage.samples, stage.weights, SETTINGS, seed) for seed in (0, 0, 1))
    assert first == again != other and torch.equal(state, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in parameters.values())


def test_evaluation_covers_all_samples_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are used in proportion to their weights, with one time in each quarter of the shifted distribution."""
    family, calls = tiny_random_family(), []

    def record_call(expert: object, sample: object, settings: object, generator: torch.Generator, time: torch.Tensor) -> torch.Tensor:
        calls.append((sample, time.item(), torch.randn(1, generator=generator).item()))
        return torch.zeros(())

    monkeypatch.setattr(held_out, "compute_velocity_loss", record_call)
    motion, appearance = stages(family)
    compute_held_out_loss(family, [appearance.samples[0], motion.samples[0]], [0.5, 0.5], SETTINGS, 0)
    assert [sum(sample is each for sample, _, _ in calls) for each in (appearance.samples[0], motion.samples[0])] == [2, 2]
    assert [int(4 * time) for _, time, _ in calls] == [0, 1, 2, 3] and len({noise for _, _, noise in calls}) == 4
    compute_held_out_loss(family, motion.samples, [1.0], SETTINGS.model_copy(update={"shift": 8.0}), 0)
    assert all(later > time for (_, time, _), (_, later, _) in zip(calls[:4], calls[4:], strict=True))


def test_stages_end_early_and_report_it(frequent_evaluation: None, tmp_path: Path) -> None:
    """Each stage ends by its own evaluations; the total decreases accordingly, and the last report equals it."""
    losses, reports = run(tiny_random_family(), tmp_path)
    motion, appearance = map(len, losses)
    assert 0 < motion < 16 and 0 < appearance < 16
    assert [total for name, _, total in reports if name == "motion"] == [32] * (motion - 1) + [motion + 16]
    assert reports[-1] == ("appearance", motion + appearance, motion + appearance)
    assert [done for _, done, _ in reports] == list(range(1, motion + appearance + 1))


def test_interrupted_run_ends_at_the_same_step_with_the_same_bytes(frequent_evaluation: None, tmp_path: Path) -> None:
    """The run is interrupted after each step; the checkpoint contains the earlier evaluations."""
    (tmp_path / "whole").mkdir()
    uninterrupted, reports = run(tiny_random_family(), tmp_path / "whole")
    for stop_after in range(1, len(reports) + 1):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        with pytest.raises(KeyboardInterrupt):
            run(tiny_random_family(), folder, stop_after)
        assert run(tiny_random_family(), folder)[0] == uninterrupted
        assert (folder / "edit.safetensors").read_bytes() == (tmp_path / "whole/edit.safetensors").read_bytes()


def test_evaluation_changes_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with evaluation that never ends early gives the same bytes as one without."""
    monkeypatch.setattr(loop, "HELD_OUT_INTERVAL", 2)
    monkeypatch.setattr(held_out, "PATIENCE", 99)
    (tmp_path / "off").mkdir()
    evaluated, _ = run(tiny_random_family(), tmp_path, steps=4)
    monkeypatch.setattr(loop, "compute_held_out_loss", lambda *_: pytest.fail("the held-out loss was evaluated"))
    settings = SETTINGS.model_copy(update={"early_stop": False})
    assert run(tiny_random_family(), tmp_path / "off", steps=4, settings=settings)[0] == evaluated
    assert (tmp_path / "edit.safetensors").read_bytes() == (tmp_path / "off/edit.safetensors").read_bytes()


@pytest.mark.parametrize("stop", [("motion, high-noise", 2), ("motion, low-noise", 3)])
def test_each_expert_ends_separately(frequent_evaluation: None, tmp_path: Path, stop: tuple[str, int]) -> None:
    """The stages report the steps done, also after an interruption in either expert."""
    settings = PAIR_SETTINGS.model_copy(update={"early_stop": True})
    losses, stage_steps = uninterrupted = train(pair(), tmp_path / "whole", settings=settings, steps=20)
    assert [name for name, _ in stage_steps] == ["motion, high-noise", "motion, low-noise"]
    assert sum(steps for _, steps in stage_steps) == len(losses) < 40
    with pytest.raises(KeyboardInterrupt):
        train(pair(), tmp_path / "cut", stop, settings, 20)
    assert train(pair(), tmp_path / "cut", settings=settings, steps=20) == uninterrupted
    for part in ("high-noise", "low-noise"):
        assert Run(tmp_path / "cut").lora_file(part).read_bytes() == Run(tmp_path / "whole").lora_file(part).read_bytes()


def test_linear_schedule_is_rejected() -> None:
    """The error is a single line; the embedded model's preset has a linear schedule."""
    tables = {"input": {"source": "a", "first_frame": "b"}}
    with pytest.raises(SettingsError, match=r"training.early_stop: .*set training.schedule to constant") as caught:
        resolve_settings(tables, ("training.early_stop=true",))
    assert "\n" not in str(caught.value)
    assert resolve_settings(tables, ("training.early_stop=true", "training.schedule=constant")).training.early_stop


def test_forward_passes_are_counted() -> None:
    """Four passes before the first step and after every tenth step; none without early stopping."""
    assert count_held_out_passes(SETTINGS, 100) == 44 and count_held_out_passes(TrainingSettings(), 100) == 0
