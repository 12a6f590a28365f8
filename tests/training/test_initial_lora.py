"""Training that starts from a LoRA file: the same function as with the file, refusals, the training key."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_edit.errors import ModelError
from lora_edit.loras.files import LayerDelta, write_lora
from lora_edit.run import Run
from lora_edit.train_run import identify_initial_lora
from lora_edit.training.experts import fit_experts, train_experts
from lora_edit.training.initial_lora import apply_initial_lora, check_initial_lora
from lora_edit.training.lora import add_lora, get_lora_parameters
from lora_edit.training.settings import LoraSettings, TrainingSettings
from lora_maker import LAYERS, image_to_video_family, random_changes, velocity
from training.test_experts import pair

ADAPTED = tuple(name for name in LAYERS if "add_" not in name)


def write(path: Path, changes: dict[str, LayerDelta]) -> Path:
    """Write pairs as ComfyUI's programs do, alpha included."""
    write_lora(path, changes, "comfyui", {})
    return path


def merged_velocity(changes: dict[str, LayerDelta]) -> torch.Tensor:
    """The output with the changes added to the weights."""
    transformer: Any = image_to_video_family().transformer
    with torch.no_grad():
        for name, delta in changes.items():
            assert delta.down is not None and delta.up is not None
            transformer.get_submodule(name).weight += delta.scale * delta.up @ delta.down
    return velocity(transformer)


@pytest.mark.parametrize("rank", [4, 7])
def test_training_starts_with_the_function_of_the_file(tmp_path: Path, rank: int) -> None:
    """At its rank and at a larger one, with another alpha; the further ranks can be trained, because their A is not zero."""
    changes = random_changes(rank=4, alpha=8.0, layers=ADAPTED)
    settings = LoraSettings(rank=rank, alpha=3.0, init=write(tmp_path / "motion.safetensors", changes))
    family = image_to_video_family()
    add_lora(family, settings, 0)
    before = velocity(family.transformer)
    assert apply_initial_lora(family, family, settings) == []
    torch.testing.assert_close(velocity(family.transformer), merged_velocity(changes), atol=1e-5, rtol=0)
    assert (velocity(family.transformer) - before).abs().max() > 1e-3
    assert all(bool(value.abs().sum(1).all()) for name, value in get_lora_parameters(family).items() if "lora_A" in name)


def test_layers_that_do_not_start_or_fit_are_told(tmp_path: Path) -> None:
    """Image keys are never trained; layers without a pair start anew."""
    changes = random_changes(layers=(*ADAPTED[:6], "blocks.0.attn2.add_k_proj"))
    settings = LoraSettings(rank=4, init=write(tmp_path / "part.safetensors", changes))
    family = image_to_video_family()
    add_lora(family, settings, 0)
    unused, started = apply_initial_lora(family, family, settings)
    assert unused == "part.safetensors: not used: blocks.*.attn2.add_k_proj"
    assert started == "part.safetensors: starts 6 of 20 layers; the others start anew"


def refuse(settings: LoraSettings) -> str:
    family = image_to_video_family()
    add_lora(family, settings, 0)
    with pytest.raises(ModelError) as error:
        apply_initial_lora(family, family, settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_that_lose_something_are_refused(tmp_path: Path) -> None:
    """A larger rank, layers that the targets leave out, and layers that are never trained."""
    file = write(tmp_path / "a.safetensors", random_changes(rank=4, layers=ADAPTED))
    assert "has rank 4 and lora.rank is 2; set lora.rank to 4 or more" in refuse(LoraSettings(rank=2, init=file))
    text = refuse(LoraSettings(rank=4, targets="attention", init=file))
    assert "has 4 layers (blocks.*.ffn.net.*.proj) that lora.targets = attention leaves out; set lora.targets to attention+ffn" in text
    images = write(tmp_path / "b.safetensors", random_changes(layers=("blocks.0.attn2.add_k_proj",)))
    assert "none of its layers is among those" in refuse(LoraSettings(rank=4, init=images))


def test_files_are_checked_before_the_model_is_loaded(tmp_path: Path) -> None:
    """By the header: rank, and layers of the model that is named."""
    file = write(tmp_path / "a.safetensors", random_changes(rank=4, layers=ADAPTED))
    check_initial_lora(LoraSettings(), "wan2.1-i2v-480p")
    with pytest.raises(ModelError, match=r"has rank 4 and lora\.rank is 2"):
        check_initial_lora(LoraSettings(rank=2, init=file), "wan2.1-i2v-480p")
    with pytest.raises(ModelError, match=r"made for another base than wan2\.1-fun-1\.3b: .* 24x24 in the file and 1536x1536 in the model"):
        check_initial_lora(LoraSettings(rank=4, init=file), "wan2.1-fun-1.3b")
    with pytest.raises(ModelError, match=r"none\.safetensors: no such file"):
        check_initial_lora(LoraSettings(init=tmp_path / "none.safetensors"), "wan2.1-i2v-480p")


def test_a_file_for_one_expert_starts_that_expert(tmp_path: Path) -> None:
    """By the name of the file; the other starts anew and says so."""
    family = pair()
    settings = LoraSettings(rank=2, init=write(tmp_path / "motion_low_noise.safetensors", random_changes(rank=2, layers=ADAPTED)))
    for expert in family.experts():
        add_lora(expert, settings, 0)
    high, low = family.experts()
    assert apply_initial_lora(family, high, settings) == [  # type: ignore[arg-type]
        "motion_low_noise.safetensors: is for the low-noise expert; the high-noise expert starts anew"
    ]
    assert apply_initial_lora(family, low, settings) == []  # type: ignore[arg-type]
    ups = [[value.any().item() for name, value in get_lora_parameters(each).items() if "lora_B" in name] for each in (high, low)]
    assert not any(ups[0]) and all(ups[1])


def test_training_without_steps_writes_the_file_again(tmp_path: Path) -> None:
    """The same pairs, in the run's own file; in memory as well."""
    family, changes = image_to_video_family(), random_changes(rank=4, alpha=4.0, layers=ADAPTED)
    settings = LoraSettings(rank=4, init=write(tmp_path / "a.safetensors", changes))
    train_experts(family, [], TrainingSettings(), settings, 0, Run(tmp_path), "key", {}, lambda *_: None)  # type: ignore[arg-type]
    torch.testing.assert_close(velocity(family.transformer), merged_velocity(changes), atol=1e-5, rtol=0)
    assert Run(tmp_path).lora_file("").is_file()
    fit_experts(family, [], TrainingSettings(), settings, 0)  # type: ignore[arg-type]
    torch.testing.assert_close(velocity(family.transformer), merged_velocity(changes), atol=1e-5, rtol=0)


def test_the_key_follows_the_contents_of_the_file(tmp_path: Path) -> None:
    """Neither its path nor, for runs without a file, the setting itself: their LoRAs stay valid. A file that is gone is remembered."""
    run = SimpleNamespace(read_manifest=dict)
    file = write(tmp_path / "a.safetensors", random_changes())
    settings: Any = SimpleNamespace(lora=LoraSettings(init=file))
    first = identify_initial_lora(run, settings)  # type: ignore[arg-type]
    assert repr(LoraSettings(init=file)) == repr(LoraSettings()) and "init" not in repr(LoraSettings())
    write(file, random_changes(scale=0.2))
    assert identify_initial_lora(run, settings)["sha256"] != first["sha256"]  # type: ignore[arg-type]
    file.unlink()
    run.read_manifest = lambda: {"lora_init": first}
    assert identify_initial_lora(run, settings) == first  # type: ignore[arg-type]
    assert identify_initial_lora(run, SimpleNamespace(lora=replace_init(settings.lora))) == {}  # type: ignore[arg-type]


def replace_init(lora: LoraSettings) -> LoraSettings:
    return lora.model_copy(update={"init": None})
