"""Tests of the training loop: it lowers the loss, is reproducible, resumes, and stops when the loss is not finite.

`WRITE_GOLDEN` writes the golden losses.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from lora_edit.conditioning.method import build_appearance_sample, build_motion_sample
from lora_edit.errors import ModelError, TrainingDivergedError
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.training.loop import Stage, compute_learning_rate, fit
from lora_edit.training.lora import add_lora, load_lora, remove_lora, save_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings
from tiny_random import tiny_random_family

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
WRITE_GOLDEN = "PYTHONPATH=tests python -m training.test_loop"
"""Command that writes the golden losses, in the repository's root and the environment of `constraints.txt`."""
SETTINGS = TrainingSettings(learning_rate=3e-3, batch_size=2, checkpoint_every=3)


@pytest.fixture
def family() -> WanFamily:
    """Build a family with random weights."""
    return tiny_random_family()


def stages(family: WanFamily, motion_steps: int = 6, appearance_steps: int = 4) -> list[Stage]:
    """Build a motion stage on a five-frame clip, and an appearance stage on an edited frame of it."""
    clip = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(5, 16, 16, dtype=torch.bool)
    mask[:, :8, :8] = True
    first = family.encode_sample(build_motion_sample(clip, mask))
    second = family.encode_sample(build_appearance_sample(clip[:, 3], clip[:, 3] * 0.5, mask[3]))
    return [Stage("motion", [first], [1.0], motion_steps), Stage("appearance", [second, first], [0.7, 0.3], appearance_steps)]


def run(family: WanFamily, folder: Path, stop_after: int | None = None) -> list[float]:
    """Fit and save a LoRA, optionally interrupted after `stop_after` steps. Returns the losses."""

    def on_step(name: str, done: int, total: int, loss: float) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    by_stage = fit(family, parameters, stages(family), SETTINGS, 0, folder / "training.pt", "key", on_step)
    losses = [loss for stage in by_stage for loss in stage]
    save_lora(family, folder / "edit.safetensors", {"base_model": "random", "seed": "0"})
    return losses


def test_new_lora_has_no_effect(family: WanFamily) -> None:
    """B is zero at first; removing the adapter restores the base model."""
    sample = stages(family)[0].samples[0]
    noise = torch.randn((1, 8, *sample.latent_shape), generator=torch.Generator().manual_seed(0))
    before = family.predict_velocity(noise, torch.tensor([0.5]), sample)
    add_lora(family, LoraSettings(rank=4), seed=0)
    assert torch.equal(before, family.predict_velocity(noise, torch.tensor([0.5]), sample))
    remove_lora(family)
    assert torch.equal(before, family.predict_velocity(noise, torch.tensor([0.5]), sample))


def test_fifty_steps_lower_the_loss(family: WanFamily) -> None:
    """The mean of the last ten losses is below that of the first ten."""
    parameters = add_lora(family, LoraSettings(rank=8), seed=0)
    (losses,) = fit(family, parameters, stages(family, 50, 0)[:1], SETTINGS, 0, None, "", lambda *_: None)
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


@pytest.mark.parametrize("stop_after", [1, 4, 6, 7, 9])
def test_resumed_run_gives_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    """The run is interrupted before and after a checkpoint, at the end of a stage, and in the second stage."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    uninterrupted = run(tiny_random_family(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tiny_random_family(), tmp_path / "cut", stop_after)
    assert run(tiny_random_family(), tmp_path / "cut") == uninterrupted
    assert (tmp_path / "whole/edit.safetensors").read_bytes() == (tmp_path / "cut/edit.safetensors").read_bytes()


def train_stages(folder: Path, selected: list[Stage], key: str = "key") -> tuple[bytes, list[int]]:
    """Train the stages, and return the LoRA file's bytes and the steps that were run."""
    family, steps = tiny_random_family(), list[int]()
    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    fit(family, parameters, selected, SETTINGS, 0, folder / "training.pt", key, lambda name, done, total, loss: steps.append(done))
    save_lora(family, folder / "edit.safetensors", {"base_model": "random", "seed": "0"})
    return (folder / "edit.safetensors").read_bytes(), steps


def test_common_first_stages_are_not_trained_again(tmp_path: Path) -> None:
    """A later stage is added, changed and removed: motion is trained once, and every LoRA equals that of a new run."""
    both = stages(tiny_random_family())
    changed = [both[0], replace(both[1], weights=[0.5, 0.5])]
    expected = {}
    for name, selected in (("both", both), ("other", changed), ("one", both[:1])):
        (tmp_path / name).mkdir()
        expected[name] = train_stages(tmp_path / name, selected)[0]
    (tmp_path / "run").mkdir()
    for name, selected, steps in (
        ("one", both[:1], [1, 2, 3, 4, 5, 6]),
        ("both", both, [7, 8, 9, 10]),
        ("both", both, []),
        ("other", changed, [7, 8, 9, 10]),
        ("one", both[:1], []),
        ("both", both, [7, 8, 9, 10]),
    ):
        assert train_stages(tmp_path / "run", selected) == (expected[name], steps), name


def test_different_first_stage_or_key_is_trained_from_scratch(tmp_path: Path) -> None:
    both = stages(tiny_random_family())
    train_stages(tmp_path, both)
    assert len(train_stages(tmp_path, both, key="another")[1]) == 10
    assert len(train_stages(tmp_path, [replace(both[0], shift=2.0), both[1]], key="another")[1]) == 10
    assert train_stages(tmp_path, [replace(both[0], shift=2.0), both[1]], key="another")[1] == []


def test_losses_equal_the_golden_numbers(family: WanFamily, tmp_path: Path, single_thread: None) -> None:
    """The same seed gives the same losses. After an intended change, `WRITE_GOLDEN` writes new ones."""
    assert GOLDEN.is_file(), f"{GOLDEN}: no such file; restore it from version control, or write it with: {WRITE_GOLDEN}"
    assert run(family, tmp_path) == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-5)


def test_save_and_load_bit_for_bit(family: WanFamily, tmp_path: Path) -> None:
    """The velocity is the same after loading the LoRA into another model object."""
    run(family, tmp_path)
    sample = stages(family)[0].samples[0]
    noise = torch.randn((1, 8, *sample.latent_shape), generator=torch.Generator().manual_seed(0))
    other = tiny_random_family()
    add_lora(other, LoraSettings(rank=4), seed=99)
    load_lora(other, tmp_path / "edit.safetensors")
    time = torch.tensor([0.3])
    assert torch.equal(family.predict_velocity(noise, time, sample), other.predict_velocity(noise, time, sample))
    save_lora(other, tmp_path / "again.safetensors", {"base_model": "random", "seed": "0"})
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "edit.safetensors").read_bytes()


def test_diffusers_opens_the_file(family: WanFamily, tmp_path: Path) -> None:
    """`load_lora_adapter` reads the embedded model's file with its settings, and the output is the same."""
    family.name = "tiny"
    run(family, tmp_path)
    sample = stages(family)[0].samples[0]
    noise = torch.randn((1, 8, *sample.latent_shape), generator=torch.Generator().manual_seed(0))
    other = tiny_random_family()
    other.transformer.load_lora_adapter(tmp_path / "edit.safetensors", prefix="transformer")  # type: ignore[operator]
    time = torch.tensor([0.3])
    assert torch.equal(family.predict_velocity(noise, time, sample), other.predict_velocity(noise, time, sample))


def test_file_of_another_rank_or_a_damaged_one_is_rejected(family: WanFamily, tmp_path: Path) -> None:
    """The error counts the layers that fit."""
    run(family, tmp_path)
    add_lora(family, LoraSettings(rank=2), seed=0)
    with pytest.raises(ModelError, match="0 of the model's"):
        load_lora(family, tmp_path / "edit.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "edit.safetensors").read_bytes()[:500])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_lora(family, tmp_path / "cut.safetensors")


def test_non_finite_loss_stops_the_run(family: WanFamily, tmp_path: Path) -> None:
    """The error names the setting to change, and no checkpoint is written."""
    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    with torch.no_grad():
        next(iter(parameters.values())).fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match="learning_rate"):
        fit(family, parameters, stages(family), SETTINGS, 0, tmp_path / "training.pt", "key", lambda *_: None)
    assert not (tmp_path / "training.pt").exists()


def test_linear_learning_rate_falls_to_zero_over_a_stage() -> None:
    """The schedule is constant by default."""
    falling = SETTINGS.model_copy(update={"schedule": "linear"})
    assert [compute_learning_rate(falling, step, 4) for step in range(4)] == pytest.approx([3e-3, 2.25e-3, 1.5e-3, 0.75e-3])
    assert compute_learning_rate(SETTINGS, 3, 4) == 3e-3


def test_half_precision_model_saves_shared_inputs_once() -> None:
    """Query, key and value share one input; the LoRA stays in float32, and its gradient equals PEFT's up to rounding."""
    gradients, num_saved = [], []
    for own_cast in (True, False):
        family = tiny_random_family()
        parameters = add_lora(family, LoraSettings(rank=4), seed=0)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.fill_(0.05)
        attention = family.transformer.get_submodule("blocks.0.attn1")
        for name in ("to_q", "to_k", "to_v"):
            layer = attention.get_submodule(name)
            layer.get_submodule("base_layer").to(torch.bfloat16)
            layer.cast_input_dtype_enabled = not own_cast  # type: ignore[assignment]
        x = torch.randn(1, 64, 24, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        inputs: set[int] = set()

        def record_input(tensor: torch.Tensor, inputs: set[int] = inputs) -> torch.Tensor:
            if tensor.numel() == 64 * 24:
                inputs.add(tensor.untyped_storage()._cdata)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record_input, lambda tensor: tensor):
            total = sum(attention.get_submodule(name)(x).float().square().sum() for name in ("to_q", "to_k", "to_v"))
            total.backward()  # type: ignore[union-attr, no-untyped-call]
        num_saved.append(len(inputs))
        lora_gradients = [p.grad for n, p in parameters.items() if n.startswith("blocks.0.attn1.to_") and p.grad is not None]
        assert lora_gradients and all(gradient.dtype == torch.float32 for gradient in lora_gradients)
        gradients.append(torch.cat([gradient.flatten() for gradient in lora_gradients]))
    assert num_saved[0] < num_saved[1]
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999


def write_golden() -> None:
    """Write the losses of `run` on one thread to `GOLDEN`."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        losses = run(tiny_random_family(), Path(folder))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
