"""Other people's LoRAs act inside the block, add up, and leave the model as it was."""

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


def silent(text: str) -> None:
    pytest.fail(text)


def merged(strength: float, alpha: float = 8.0) -> torch.Tensor:
    """What the model says with the pairs added to its weights."""
    transformer = image_to_video_transformer()
    for name, change in random_changes(alpha=alpha).items():
        assert change.down is not None and change.up is not None
        transformer.get_submodule(name).weight.data += strength * change.scale * change.up @ change.down  # type: ignore[operator]
    return velocity(transformer)


@pytest.mark.parametrize("layout", ["comfyui", "musubi"])
def test_a_lora_acts_like_merged_weights_and_then_is_gone(family: WanFamily, tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / "style.safetensors", spelled(layout, random_changes(alpha=8.0)))
    before, state = velocity(family.transformer), set(family.transformer.state_dict())
    stack = load_extra_loras(family, [(path, 0.7)], silent)
    assert torch.equal(velocity(family.transformer), before)
    with activate_loras(family, stack):
        acted = velocity(family.transformer)
    torch.testing.assert_close(acted, merged(0.7))
    assert not torch.allclose(acted, before, atol=1e-3)
    assert torch.equal(velocity(family.transformer), before)
    assert set(family.transformer.state_dict()) == state
    assert not get_lora_parameters(family)


def test_loras_add_up(family: WanFamily, tmp_path: Path) -> None:
    """Twice at half strength is once at full; strength 0 is none."""
    path = write(tmp_path / "style.safetensors", spelled("kohya", random_changes()))
    with activate_loras(family, load_extra_loras(family, [(path, 0.5), (path, 0.5)], silent)):
        torch.testing.assert_close(velocity(family.transformer), merged(1.0))
    before = velocity(family.transformer)
    with activate_loras(family, load_extra_loras(family, [(path, 0.0)], silent)):
        assert torch.equal(velocity(family.transformer), before)


def test_full_differences_act_too(family: WanFamily, tmp_path: Path) -> None:
    """Distillations change biases, norms and tables beside their pairs."""
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
    other, notes = image_to_video_transformer(), list[str]()
    places = ("blocks.0.attn1.to_q.bias", "blocks.0.attn1.norm_k.weight", "blocks.1.norm2.weight", "blocks.1.norm2.bias",
              "blocks.1.scale_shift_table", "proj_out.weight", "proj_out.bias")  # fmt: skip
    for name, diff in zip(places, list(tensors.values())[2:], strict=False):
        other.get_parameter(name).data += 0.5 * diff
    before = velocity(family.transformer)
    stack = load_extra_loras(family, [(write(tmp_path / "few.safetensors", tensors), 0.5)], notes.append)
    assert notes == ["few.safetensors: 5 of its 6 layers are in this model; not used: patch_embedding"]

    def interrupted() -> None:
        with activate_loras(family, stack):
            torch.testing.assert_close(velocity(family.transformer), velocity(other))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(velocity(family.transformer), before)


def test_it_acts_beside_the_edits_own_lora(family: WanFamily, tmp_path: Path) -> None:
    """Read before or after that LoRA is put in."""
    path = write(tmp_path / "style.safetensors", spelled("diffusers", random_changes(alpha=None)))
    early = load_extra_loras(family, [(path, 1.0)], silent)
    add_lora(family, LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for parameter in get_lora_parameters(family).values():
            parameter.fill_(0.01)
    before = velocity(family.transformer)
    with activate_loras(family, early):
        acted = velocity(family.transformer)
    with activate_loras(family, load_extra_loras(family, [(path, 1.0)], silent)):
        assert torch.equal(velocity(family.transformer), acted)
    assert not torch.equal(acted, before)
    assert torch.equal(velocity(family.transformer), before)


def test_a_lora_keeps_its_precision(family: WanFamily, tmp_path: Path) -> None:
    """Half precision pairs act on a float32 model, and the output stays float32."""
    path = write(tmp_path / "half.safetensors", spelled("comfyui", random_changes(dtype=torch.bfloat16)))
    stack = load_extra_loras(family, [(path, 1.0)], silent)
    assert {tensor.dtype for change in stack[0].deltas.values() for tensor in change.list_tensors()} == {torch.bfloat16}
    with activate_loras(family, stack):
        acted = velocity(family.transformer)
    assert acted.dtype == torch.float32
    torch.testing.assert_close(acted, merged(1.0), atol=0.05, rtol=0.05)


def test_the_record_names_the_file_by_its_contents(family: WanFamily, tmp_path: Path) -> None:
    path = write(tmp_path / "style.safetensors", spelled("comfyui", random_changes()))
    first = load_extra_loras(family, [(path, 0.5)], silent)[0]
    record = first.to_json()
    assert (record["file"], record["strength"], record["layers"]) == (str(path), 0.5, "24 of 24")
    write(path, spelled("comfyui", random_changes(scale=0.2)))
    assert load_extra_loras(family, [(path, 0.5)], silent)[0].sha256 != record["sha256"]
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
def test_a_lora_for_one_of_two_experts_is_told_by_header_or_name(tmp_path: Path, name: str, metadata: dict[str, str], part: str) -> None:
    """One for both is said to be."""
    facts = WANS["wan2.2-i2v-a14b"]
    pair = build_wan(tiny_components(facts), facts, torch.device("cpu"), torch.float32)
    path, notes = tmp_path / name, list[str]()
    layer = "diffusion_model.blocks.0.self_attn.q"
    size = dict(collect_linear_sizes(pair.experts()[0].transformer))["blocks.0.attn1.to_q"][0]
    save_file({f"{layer}.lora_A.weight": torch.ones(2, size), f"{layer}.lora_B.weight": torch.ones(size, 2)}, path, metadata or None)
    stack = load_extra_loras(pair, [(path, 1.0)], notes.append)
    assert stack[0].expert == part and stack[0].to_json().get("expert", "") == part
    assert ("acts on both" in "".join(notes)) == (not part)
    x = torch.ones(1, 3, size)
    layers = {expert.part: expert.transformer.get_submodule("blocks.0.attn1.to_q") for expert in pair.experts()}
    before = {each: layer(x) for each, layer in layers.items()}
    with activate_loras(pair, stack):
        changed = {each for each, layer in layers.items() if not torch.equal(layer(x), before[each])}
    assert changed == ({part} if part else set(layers))
