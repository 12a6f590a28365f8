"""Tests of the file of a training: it opens in diffusers with the same output, and in this package bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel
from safetensors import safe_open

from lora_edit.errors import ModelError
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.training.lora import add_lora, get_lora_parameters, load_lora, save_lora
from lora_edit.training.settings import LoraSettings
from lora_maker import image_to_video_family, image_to_video_transformer, velocity


def family_with_lora(rank: int = 4, alpha: float | None = None, name: str = "wan-random", targets: str = "attention+ffn") -> WanFamily:
    """Build a family whose LoRA has an effect."""
    family = image_to_video_family(name=name)
    settings = LoraSettings.model_validate({"rank": rank, "alpha": alpha, "targets": targets})
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in add_lora(family, settings, seed=0).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return family


def load_in_pipeline(path: Path) -> WanTransformer3DModel:
    """Return the transformer of diffusers' pipeline after `load_lora_weights`."""
    pipeline = WanImageToVideoPipeline(None, None, None, None, None, None, image_to_video_transformer())  # type: ignore[arg-type]
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    return pipeline.transformer


@pytest.mark.parametrize("targets", ["attention+ffn", "attention"])
@pytest.mark.parametrize("alpha", [None, 8.0, 2.0])
@pytest.mark.parametrize("name", ["wan-random", "tiny"])
def test_diffusers_pipeline_opens_the_file(tmp_path: Path, name: str, alpha: float | None, targets: str) -> None:
    """The file opens in both layouts, with alpha equal to, above and below the rank."""
    family = family_with_lora(4, alpha, name, targets)
    before = {key: parameter.clone() for key, parameter in get_lora_parameters(family).items()}
    save_lora(family, tmp_path / "edit.safetensors", {"base_model": name})
    with safe_open(tmp_path / "edit.safetensors", "pt") as file:
        keys = list(file.keys())
    assert all(key.startswith("transformer." if name == "tiny" else "diffusion_model.blocks.") for key in keys)
    assert torch.equal(velocity(load_in_pipeline(tmp_path / "edit.safetensors")), velocity(family.transformer))
    assert all(torch.equal(parameter, before[key]) for key, parameter in get_lora_parameters(family).items())


def test_default_file_has_only_keys_of_diffusion_pipe(tmp_path: Path) -> None:
    """diffusion-pipe accepts only keys of parameters, and uses the rank as alpha."""
    save_lora(family_with_lora(), tmp_path / "edit.safetensors", {})
    with safe_open(tmp_path / "edit.safetensors", "pt") as file:
        assert all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in file.keys())  # noqa: SIM118
        assert "lora_adapter_metadata" not in file.metadata()


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_load_lora_restores_every_bit(tmp_path: Path, alpha: float | None) -> None:
    family, other = family_with_lora(4, alpha), image_to_video_family()
    save_lora(family, tmp_path / "a.safetensors", {"seed": "2"})
    add_lora(other, LoraSettings(rank=4, alpha=alpha), seed=9)
    load_lora(other, tmp_path / "a.safetensors")
    assert torch.equal(velocity(other.transformer), velocity(family.transformer))
    save_lora(other, tmp_path / "b.safetensors", {"seed": "2"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank": 2}, r"0 of the model's 20 .*found rank 4 at scale 1 on 20 layers, expected rank 2"),
        ({"rank": 4, "alpha": 8.0}, "expected rank 4 at scale 2"),
        ({"rank": 4, "targets": "attention"}, "16 of the model's 16"),
    ],
)
def test_lora_of_other_settings_is_rejected(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    save_lora(family_with_lora(), tmp_path / "edit.safetensors", {})
    other = image_to_video_family()
    add_lora(other, LoraSettings.model_validate(settings), seed=0)
    with pytest.raises(ModelError, match=words):
        load_lora(other, tmp_path / "edit.safetensors")
