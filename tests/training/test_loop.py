"""The training loop: it learns, repeats itself, resumes, and stops when the loss breaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

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
SETTINGS = TrainingSettings(learning_rate=3e-3, batch_size=2, checkpoint_every=3)


@pytest.fixture
def family() -> WanFamily:
    """Random weights."""
    return tiny_random_family()


def stages(family: WanFamily, motion_steps: int = 6, appearance_steps: int = 4) -> list[Stage]:
    """A five-frame clip with a hole, and one edited frame of it."""
    clip = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(5, 16, 16, dtype=torch.bool)
    mask[:, :8, :8] = True
    first = family.encode_sample(build_motion_sample(clip, mask))
    second = family.encode_sample(build_appearance_sample(clip[:, 3], clip[:, 3] * 0.5, mask[3]))
    return [Stage("motion", [first], [1.0], motion_steps), Stage("appearance", [second, first], [0.7, 0.3], appearance_steps)]


def run(family: WanFamily, folder: Path, stop_after: int | None = None) -> list[float]:
    """Fit; optionally die after some steps, as a kill would."""

    def on_step(name: str, done: int, total: int, loss: float) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    by_stage = fit(family, parameters, stages(family), SETTINGS, 0, folder / "training.pt", "key", on_step)
    losses = [loss for stage in by_stage for loss in stage]
    save_lora(family, folder / "edit.safetensors", {"base_model": "random", "seed": "0"})
    return losses


def test_a_fresh_lora_changes_nothing(family: WanFamily) -> None:
    """B starts at zero; removing the adapter restores the base."""
    sample = stages(family)[0].samples[0]
    noise = torch.randn((1, 8, *sample.latent_shape), generator=torch.Generator().manual_seed(0))
    before = family.predict_velocity(noise, torch.tensor([0.5]), sample)
    add_lora(family, LoraSettings(rank=4), seed=0)
    assert torch.equal(before, family.predict_velocity(noise, torch.tensor([0.5]), sample))
    remove_lora(family)
    assert torch.equal(before, family.predict_velocity(noise, torch.tensor([0.5]), sample))


def test_fifty_steps_lower_the_loss(family: WanFamily) -> None:
    """Mean of the last ten below the first ten."""
    parameters = add_lora(family, LoraSettings(rank=8), seed=0)
    (losses,) = fit(family, parameters, stages(family, 50, 0)[:1], SETTINGS, 0, None, "", lambda *_: None)
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


@pytest.mark.parametrize("stop_after", [1, 4, 6, 7, 9])
def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    """Stopped before and after a checkpoint, at the end of a stage, and in the second stage."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = run(tiny_random_family(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tiny_random_family(), tmp_path / "cut", stop_after)
    assert run(tiny_random_family(), tmp_path / "cut") == whole
    assert (tmp_path / "whole/edit.safetensors").read_bytes() == (tmp_path / "cut/edit.safetensors").read_bytes()


def learned(folder: Path, some: list[Stage], key: str = "key") -> tuple[bytes, list[int]]:
    """The LoRA file of these stages, and which steps had to be taken for it."""
    family, taken = tiny_random_family(), list[int]()
    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    fit(family, parameters, some, SETTINGS, 0, folder / "training.pt", key, lambda name, done, total, loss: taken.append(done))
    save_lora(family, folder / "edit.safetensors", {"base_model": "random", "seed": "0"})
    return (folder / "edit.safetensors").read_bytes(), taken


def test_what_begins_alike_is_not_learned_again(tmp_path: Path) -> None:
    """A later stage is added, changed and taken away again: motion is learned once, and every LoRA is that of a fresh training."""
    both = stages(tiny_random_family())
    other = [both[0], replace(both[1], weights=[0.5, 0.5])]
    fresh = {}
    for name, some in (("both", both), ("other", other), ("one", both[:1])):
        (tmp_path / name).mkdir()
        fresh[name] = learned(tmp_path / name, some)[0]
    (tmp_path / "run").mkdir()
    for name, some, steps in (
        ("one", both[:1], [1, 2, 3, 4, 5, 6]),
        ("both", both, [7, 8, 9, 10]),
        ("both", both, []),
        ("other", other, [7, 8, 9, 10]),
        ("one", both[:1], []),
        ("both", both, [7, 8, 9, 10]),
    ):
        assert learned(tmp_path / "run", some) == (fresh[name], steps), name


def test_another_first_stage_or_setting_is_learned_anew(tmp_path: Path) -> None:
    both = stages(tiny_random_family())
    learned(tmp_path, both)
    assert len(learned(tmp_path, both, key="another")[1]) == 10
    assert len(learned(tmp_path, [replace(both[0], shift=2.0), both[1]], key="another")[1]) == 10
    assert learned(tmp_path, [replace(both[0], shift=2.0), both[1]], key="another")[1] == []


def test_losses_equal_the_golden_numbers(family: WanFamily, tmp_path: Path, single_thread: None) -> None:
    """Same seed, same loss. To refresh after a wanted change: delete the file and run this test once."""
    losses = run(family, tmp_path)
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-5)


def test_save_and_load_bit_for_bit(family: WanFamily, tmp_path: Path) -> None:
    """The same velocity after a round trip into another model object."""
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
    """`load_lora_adapter` reads the embedded model's file, settings included, to the same output."""
    family.name = "tiny"
    run(family, tmp_path)
    sample = stages(family)[0].samples[0]
    noise = torch.randn((1, 8, *sample.latent_shape), generator=torch.Generator().manual_seed(0))
    other = tiny_random_family()
    other.transformer.load_lora_adapter(tmp_path / "edit.safetensors", prefix="transformer")  # type: ignore[operator]
    time = torch.tensor([0.3])
    assert torch.equal(family.predict_velocity(noise, time, sample), other.predict_velocity(noise, time, sample))


def test_a_file_of_another_rank_or_a_damaged_one_is_refused(family: WanFamily, tmp_path: Path) -> None:
    """With how many tensors fit."""
    run(family, tmp_path)
    add_lora(family, LoraSettings(rank=2), seed=0)
    with pytest.raises(ModelError, match="0 of the model's"):
        load_lora(family, tmp_path / "edit.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "edit.safetensors").read_bytes()[:500])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_lora(family, tmp_path / "cut.safetensors")


def test_a_broken_loss_stops_the_run(family: WanFamily, tmp_path: Path) -> None:
    """With what to do."""
    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    with torch.no_grad():
        next(iter(parameters.values())).fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match="learning_rate"):
        fit(family, parameters, stages(family), SETTINGS, 0, tmp_path / "training.pt", "key", lambda *_: None)
    assert not (tmp_path / "training.pt").exists()


def test_the_rate_falls_to_zero_over_a_stage() -> None:
    """Linear; constant unless asked for."""
    falling = SETTINGS.model_copy(update={"schedule": "linear"})
    assert [compute_learning_rate(falling, step, 4) for step in range(4)] == pytest.approx([3e-3, 2.25e-3, 1.5e-3, 0.75e-3])
    assert compute_learning_rate(SETTINGS, 3, 4) == 3e-3


def test_a_half_precision_base_keeps_its_inputs_once() -> None:
    """Query, key and value read one tensor; the LoRA stays in float32, its gradient is PEFT's own but for rounding."""
    gradients, kept = [], []
    for own in (True, False):
        family = tiny_random_family()
        parameters = add_lora(family, LoraSettings(rank=4), seed=0)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.fill_(0.05)
        attention = family.transformer.get_submodule("blocks.0.attn1")
        for name in ("to_q", "to_k", "to_v"):
            layer = attention.get_submodule(name)
            layer.get_submodule("base_layer").to(torch.bfloat16)
            layer.cast_input_dtype_enabled = not own  # type: ignore[assignment]
        x = torch.randn(1, 64, 24, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        inputs: set[int] = set()

        def keep(tensor: torch.Tensor, inputs: set[int] = inputs) -> torch.Tensor:
            if tensor.numel() == 64 * 24:
                inputs.add(tensor.untyped_storage()._cdata)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = sum(attention.get_submodule(name)(x).float().square().sum() for name in ("to_q", "to_k", "to_v"))
            total.backward()  # type: ignore[union-attr, no-untyped-call]
        kept.append(len(inputs))
        found = [p.grad for n, p in parameters.items() if n.startswith("blocks.0.attn1.to_") and p.grad is not None]
        assert found and all(gradient.dtype == torch.float32 for gradient in found)
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    assert kept[0] < kept[1]
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999
