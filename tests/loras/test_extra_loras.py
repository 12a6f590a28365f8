"""Tests of extra LoRAs: they act inside the block, add up, and leave the model unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_edit.loras.extra_loras import activate_loras, load_extra_loras
from lora_edit.loras.match import collect_linear_sizes
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.families.wan.loading import build_wan
from lora_edit.training.lora import add_lora, get_lora_parameters
from lora_edit.training.settings import LoraSettings
from lora_maker import image_to_video_family, image_to_video_transformer, random_changes, spelled, velocity, write
from tiny_wan import WANS, tiny_components


@pytest.fixture
def family() -> WanFamily:
    return image_to_video_family()


def fail_on_note(text: str) -> None:
    pytest.fail(text)


def merged_velocity(strength: float, alpha: float = 8.0) -> torch.Tensor:
    """Return the model's output with the pairs merged into its weights."""
    transformer = image_to_video_transformer()
    for name, delta in random_changes(alpha=alpha).items():
        assert delta.down is not None and delta.up is not None
        transformer.get_submodule(name).weight.data += strength * delta.scale * delta.up @ delta.down  # type: ignore[operator]
    return velocity(transformer)


@pytest.mark.parametrize("layout", ["comfyui", "musubi"])
def test_lora_acts_like_merged_weights_and_is_removed(family: WanFamily, tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / "style.safetensors", spelled(layout, random_changes(alpha=8.0)))
    before, state = velocity(family.transformer), set(family.transformer.state_dict())
    loras = load_extra_loras(family, [(path, 0.7)], fail_on_note)
    assert torch.equal(velocity(family.transformer), before)
    with activate_loras(family, loras):
        output = velocity(family.transformer)
    torch.testing.assert_close(output, merged_velocity(0.7))
    assert not torch.allclose(output, before, atol=1e-3)
    assert torch.equal(velocity(family.transformer), before)
    assert set(family.transformer.state_dict()) == state
    assert not get_lora_parameters(family)


def test_loras_add_up(family: WanFamily, tmp_path: Path) -> None:
    """Twice at half strength equals once at full strength; strength 0 has no effect."""
    path = write(tmp_path / "style.safetensors", spelled("kohya", random_changes()))
    with activate_loras(family, load_extra_loras(family, [(path, 0.5), (path, 0.5)], fail_on_note)):
        torch.testing.assert_close(velocity(family.transformer), merged_velocity(1.0))
    before = velocity(family.transformer)
    with activate_loras(family, load_extra_loras(family, [(path, 0.0)], fail_on_note)):
        assert torch.equal(velocity(family.transformer), before)


def test_full_differences_are_applied(family: WanFamily, tmp_path: Path) -> None:
    """Distillations change biases, norms and tables in addition to their pairs."""
    draw = torch.Generator().manual_seed(5)
    tensors = {
        "diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.zeros(2, 24),
        "diffusion_model.blocks.0.self_attn.q.lora_up.weight": torch.zeros(24, 2),
        "diffusion_model.blocks.0.self_attn.q.diff_b": torch.randn(24, generator=draw),
        "diffusion_model.blocks.0.self_attn.norm_k.diff": torch.randn(24, generator=draw),
        "diffusion_model.blocks.1.norm3.diff": torch.randn(24, generator=draw),
        "diffusion_model.blocks.1.norm3.diff_b": torch.randn(24, generator=draw),
        "diffusion_model.blocks.1.diff_m": torch.randn(1, 6, 24, generator=draw),
        "diffusion_model.head.head.diff": torch.randn(64, 24, generator=draw),
        "diffusion_model.head.head.diff_b": torch.randn(64, generator=draw),
        "diffusion_model.patch_embedding.diff": torch.randn(24, 16, 1, 2, 2, generator=draw),  # of a base with other inputs
    }
    modified, notes = image_to_video_transformer(), list[str]()
    parameter_names = ("blocks.0.attn1.to_q.bias", "blocks.0.attn1.norm_k.weight", "blocks.1.norm2.weight", "blocks.1.norm2.bias",
              "blocks.1.scale_shift_table", "proj_out.weight", "proj_out.bias")  # fmt: skip
    for name, diff in zip(parameter_names, list(tensors.values())[2:], strict=False):
        modified.get_parameter(name).data += 0.5 * diff
    before = velocity(family.transformer)
    loras = load_extra_loras(family, [(write(tmp_path / "few.safetensors", tensors), 0.5)], notes.append)
    assert notes == ["few.safetensors: 5 of its 6 layers are in this model; not used: patch_embedding"]

    def interrupt() -> None:
        with activate_loras(family, loras):
            torch.testing.assert_close(velocity(family.transformer), velocity(modified))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert torch.equal(velocity(family.transformer), before)


def test_extra_lora_adds_to_the_edits_own_lora(family: WanFamily, tmp_path: Path) -> None:
    """The file may be read before or after the edit's LoRA is added."""
    path = write(tmp_path / "style.safetensors", spelled("diffusers", random_changes(alpha=None)))
    loaded_before = load_extra_loras(family, [(path, 1.0)], fail_on_note)
    add_lora(family, LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for parameter in get_lora_parameters(family).values():
            parameter.fill_(0.01)
    before = velocity(family.transformer)
    with activate_loras(family, loaded_before):
        output = velocity(family.transformer)
    with activate_loras(family, load_extra_loras(family, [(path, 1.0)], fail_on_note)):
        assert torch.equal(velocity(family.transformer), output)
    assert not torch.equal(output, before)
    assert torch.equal(velocity(family.transformer), before)


def test_lora_keeps_its_precision(family: WanFamily, tmp_path: Path) -> None:
    """Half-precision pairs act on a float32 model, and the output stays float32."""
    path = write(tmp_path / "half.safetensors", spelled("comfyui", random_changes(dtype=torch.bfloat16)))
    loras = load_extra_loras(family, [(path, 1.0)], fail_on_note)
    assert {tensor.dtype for delta in loras[0].deltas.values() for tensor in delta.list_tensors()} == {torch.bfloat16}
    with activate_loras(family, loras):
        output = velocity(family.transformer)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, merged_velocity(1.0), atol=0.05, rtol=0.05)


def test_manifest_entry_contains_the_file_hash(family: WanFamily, tmp_path: Path) -> None:
    path = write(tmp_path / "style.safetensors", spelled("comfyui", random_changes()))
    first = load_extra_loras(family, [(path, 0.5)], fail_on_note)[0]
    entry = first.to_json()
    assert (entry["file"], entry["strength"], entry["layers"]) == (str(path), 0.5, "24 of 24")
    write(path, spelled("comfyui", random_changes(scale=0.2)))
    assert load_extra_loras(family, [(path, 0.5)], fail_on_note)[0].sha256 != entry["sha256"]
    assert (
        replace(first, unused_layers=tuple("abcdef")).describe_unused_layers()
        == "style.safetensors: 24 of its 24 layers are in this model; not used: a, b, c, d, ..."
    )


@pytest.mark.parametrize(
    ("name", "metadata", "part"),
    [
        ("edit.safetensors", {"expert": "low-noise"}, "low-noise"),
        ("Wan2.2-Lightning_HighNoise.safetensors", {}, "high-noise"),
        ("wan22_low_noise_fusion.safetensors", {}, "low-noise"),
        ("slow_highway.safetensors", {}, ""),
        ("high_and_low.safetensors", {}, ""),
    ],
)
def test_expert_is_inferred_from_header_or_name(tmp_path: Path, name: str, metadata: dict[str, str], part: str) -> None:
    """A LoRA for both experts is reported."""
    wan = WANS["wan2.2-i2v-a14b"]
    pair = build_wan(tiny_components(wan), wan, torch.device("cpu"), torch.float32)
    path, notes = tmp_path / name, list[str]()
    layer = "diffusion_model.blocks.0.self_attn.q"
    size = dict(collect_linear_sizes(pair.experts()[0].transformer))["blocks.0.attn1.to_q"][0]
    save_file({f"{layer}.lora_A.weight": torch.ones(2, size), f"{layer}.lora_B.weight": torch.ones(size, 2)}, path, metadata or None)
    loras = load_extra_loras(pair, [(path, 1.0)], notes.append)
    assert loras[0].expert == part and loras[0].to_json().get("expert", "") == part
    assert ("acts on both" in "".join(notes)) == (not part)
    inputs = torch.ones(1, 3, size)
    layers = {expert.part: expert.transformer.get_submodule("blocks.0.attn1.to_q") for expert in pair.experts()}
    before = {each: layer(inputs) for each, layer in layers.items()}
    with activate_loras(pair, loras):
        changed = {each for each, layer in layers.items() if not torch.equal(layer(inputs), before[each])}
    assert changed == ({part} if part else set(layers))
