"""Stages that end by themselves: by a rule on fixed draws, at the same step after a kill, in every stage and expert."""

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
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look after every second step, and little patience: a random model at this rate learns in jumps, and its stages soon end."""
    monkeypatch.setattr(loop, "HELD_OUT_INTERVAL", 2)
    monkeypatch.setattr(held_out, "PATIENCE", 1)


Seen = list[tuple[str, int, int]]


def run(
    family: WanFamily, folder: Path, stop_after: int | None = None, steps: int = 16, settings: TrainingSettings = SETTINGS
) -> tuple[list[list[float]], Seen]:
    """Fit two stages; optionally die after some steps. Returns the losses by stage, and what was reported."""
    seen: Seen = []

    def on_step(name: str, done: int, total: int, loss: float) -> None:
        seen.append((name, done, total))
        if done == stop_after:
            raise KeyboardInterrupt

    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    losses = fit(family, parameters, stages(family, steps, steps), settings, 0, folder / "training.pt", "key", on_step)
    save_lora(family, folder / "edit.safetensors", {"base_model": "random", "seed": "0"})
    return losses, seen


@pytest.mark.parametrize(
    ("losses", "stalled"),
    [
        ([], False),
        ([1.0, 1.0, 1.0], False),  # too early to say
        ([1.0, 1.0, 1.0, 1.0], True),  # it never fell
        ([1.0, 1.1, 1.2, 1.3], True),  # nor here
        ([1.0, 0.9, 0.8, 0.7, 0.6], False),  # it falls as it did
        ([1.0, 0.5, 0.48, 0.46, 0.44], True),  # next to nothing beside what it fell before
        ([1.0, 0.5, 0.48, 0.9, 0.3], False),  # one bad look ends nothing
        ([1.0, 0.5, 0.7, 0.6, 0.8], True),  # it rises again
        ([0.101, 0.1005, 0.1003, 0.1001, 0.1], False),  # small beside the loss itself is not small beside what there is to learn
    ],
)
def test_a_loss_stalls_when_it_brings_little_beside_what_it_brought(losses: list[float], stalled: bool) -> None:
    assert has_stalled(losses) is stalled


def test_every_look_sees_the_same_draws() -> None:
    """They are the run's own, not the steps'; a look takes nothing from any generator and changes nothing."""
    family = tiny_random_family()
    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    stage = stages(family)[1]
    state = torch.random.get_rng_state()
    first, again, other = (compute_held_out_loss(family, stage.samples, stage.weights, SETTINGS, seed) for seed in (0, 0, 1))
    assert first == again != other and torch.equal(state, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in parameters.values())


def test_looks_see_all_of_a_stages_samples_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples in their shares; one time in each quarter of what the steps draw, moved as they are."""
    family, seen = tiny_random_family(), []

    def noticed(expert: object, sample: object, settings: object, generator: torch.Generator, time: torch.Tensor) -> torch.Tensor:
        seen.append((sample, time.item(), torch.randn(1, generator=generator).item()))
        return torch.zeros(())

    monkeypatch.setattr(held_out, "compute_velocity_loss", noticed)
    motion, appearance = stages(family)
    compute_held_out_loss(family, [appearance.samples[0], motion.samples[0]], [0.5, 0.5], SETTINGS, 0)
    assert [sum(sample is each for sample, _, _ in seen) for each in (appearance.samples[0], motion.samples[0])] == [2, 2]
    assert [int(4 * time) for _, time, _ in seen] == [0, 1, 2, 3] and len({noise for _, _, noise in seen}) == 4
    compute_held_out_loss(family, motion.samples, [1.0], SETTINGS.model_copy(update={"shift": 8.0}), 0)
    assert all(later > time for (_, time, _), (_, later, _) in zip(seen[:4], seen[4:], strict=True))


def test_stages_end_early_and_say_so(often: None, tmp_path: Path) -> None:
    """Each by its own looks; the total shrinks with them, and what was done last is all there was to do."""
    losses, seen = run(tiny_random_family(), tmp_path)
    motion, appearance = map(len, losses)
    assert 0 < motion < 16 and 0 < appearance < 16
    assert [total for name, _, total in seen if name == "motion"] == [32] * (motion - 1) + [motion + 16]
    assert seen[-1] == ("appearance", motion + appearance, motion + appearance)
    assert [done for _, done, _ in seen] == list(range(1, motion + appearance + 1))


def test_a_killed_run_ends_at_the_same_step_with_the_same_bytes(often: None, tmp_path: Path) -> None:
    """Killed after each of its steps: the looks before the kill travel in the checkpoint."""
    (tmp_path / "whole").mkdir()
    whole, seen = run(tiny_random_family(), tmp_path / "whole")
    for stop_after in range(1, len(seen) + 1):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        with pytest.raises(KeyboardInterrupt):
            run(tiny_random_family(), folder, stop_after)
        assert run(tiny_random_family(), folder)[0] == whole
        assert (folder / "edit.safetensors").read_bytes() == (tmp_path / "whole/edit.safetensors").read_bytes()


def test_looking_changes_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that looks and never ends early gives the bytes of one that does not look."""
    monkeypatch.setattr(loop, "HELD_OUT_INTERVAL", 2)
    monkeypatch.setattr(held_out, "PATIENCE", 99)
    (tmp_path / "off").mkdir()
    watched, _ = run(tiny_random_family(), tmp_path, steps=4)
    monkeypatch.setattr(loop, "compute_held_out_loss", lambda *_: pytest.fail("it was looked"))
    off = SETTINGS.model_copy(update={"early_stop": False})
    assert run(tiny_random_family(), tmp_path / "off", steps=4, settings=off)[0] == watched
    assert (tmp_path / "edit.safetensors").read_bytes() == (tmp_path / "off/edit.safetensors").read_bytes()


@pytest.mark.parametrize("stop", [("motion, high-noise", 2), ("motion, low-noise", 3)])
def test_each_expert_ends_by_itself(often: None, tmp_path: Path, stop: tuple[str, int]) -> None:
    """The stages' steps are those that were done; also after a kill in either."""
    settings = PAIR_SETTINGS.model_copy(update={"early_stop": True})
    losses, done = whole = train(pair(), tmp_path / "whole", settings=settings, steps=20)
    assert [name for name, _ in done] == ["motion, high-noise", "motion, low-noise"]
    assert sum(steps for _, steps in done) == len(losses) < 40
    with pytest.raises(KeyboardInterrupt):
        train(pair(), tmp_path / "cut", stop, settings, 20)
    assert train(pair(), tmp_path / "cut", settings=settings, steps=20) == whole
    for part in ("high-noise", "low-noise"):
        assert Run(tmp_path / "cut").lora_file(part).read_bytes() == Run(tmp_path / "whole").lora_file(part).read_bytes()


def test_a_falling_rate_is_refused() -> None:
    """In one line; the embedded model's preset has one."""
    tables = {"input": {"source": "a", "first_frame": "b"}}
    with pytest.raises(SettingsError, match=r"training.early_stop: .*set training.schedule to constant") as caught:
        resolve_settings(tables, ("training.early_stop=true",))
    assert "\n" not in str(caught.value)
    assert resolve_settings(tables, ("training.early_stop=true", "training.schedule=constant")).training.early_stop


def test_looks_are_counted() -> None:
    """Four passes before the first step and after every tenth; none when off."""
    assert count_held_out_passes(SETTINGS, 100) == 44 and count_held_out_passes(TrainingSettings(), 100) == 0
