"""Tests of layouts: every one is read to the same pairs, bit for bit, and matches the same layers of a transformer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.loaders import lora_conversion_utils
from safetensors.torch import load_file

from lora_edit.errors import ModelError
from lora_edit.loras.files import LayerDelta, export_lora, read_lora, rename_to_diffusers, write_lora
from lora_edit.loras.header import read_header
from lora_edit.loras.layouts import LAYOUTS as READABLE_LAYOUTS
from lora_edit.loras.layouts import detect_layout, format_layer_pattern, parse_key
from lora_edit.loras.match import collect_linear_sizes, collect_parameter_shapes, match_layers, split_delta
from lora_edit.loras.names import index_flat_names, to_diffusers, to_original
from lora_maker import LAYERS, LAYOUTS, image_to_video_transformer, random_changes, spelled, write


def assert_same(actual: dict[str, LayerDelta], expected: dict[str, LayerDelta]) -> None:
    """Assert equal layers, and equal tensors, dtypes and scales without tolerance."""
    assert actual.keys() == expected.keys()
    for name, delta in expected.items():
        for tensor, expected_tensor in ((actual[name].down, delta.down), (actual[name].up, delta.up)):
            assert tensor is not None and expected_tensor is not None
            assert tensor.dtype == expected_tensor.dtype
            assert torch.equal(tensor, expected_tensor)
        assert actual[name].scale == delta.scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pairs(tmp_path: Path, layout: str, dtype: torch.dtype) -> None:
    """Alpha differs from the rank and is stored where the layout stores it."""
    changes = random_changes(rank=4, alpha=6.0, dtype=dtype)
    settings = {"r": 4, "lora_alpha": 6, "alpha_pattern": {}, "use_rslora": False}
    header_settings = {f"transformer.{key}": value for key, value in settings.items()}
    metadata = {"lora_adapter_metadata": json.dumps(header_settings)} if layout == "diffusers" else {}
    path = write(tmp_path / "adapter_model.safetensors", spelled(layout, changes), **metadata)
    if layout == "peft":
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    file = read_lora(path)
    assert file.layout == layout
    assert_same(match_layers(file, image_to_video_transformer(), "wan").deltas, changes)


def test_helper_covers_every_layout() -> None:
    assert set(LAYOUTS) == set(READABLE_LAYOUTS)


@pytest.mark.parametrize("layout", ["comfyui", "diffusers"])
@pytest.mark.parametrize("alpha", [None, 4.0, 6.0, 0.5])
def test_written_file_is_read_back(tmp_path: Path, layout: str, alpha: float | None) -> None:
    changes = random_changes(rank=4, alpha=alpha)
    write_lora(tmp_path / "a.safetensors", changes, layout, {"base_model": "wan", "seed": "1"})  # type: ignore[arg-type]
    file = read_lora(tmp_path / "a.safetensors")
    assert (file.layout, file.metadata["base_model"], file.ignored_keys) == (layout, "wan", ())
    assert_same(rename_to_diffusers(file), changes)
    write_lora(tmp_path / "b.safetensors", changes, layout, {"seed": "1", "base_model": "wan"})  # type: ignore[arg-type]
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    keys = load_file(tmp_path / "a.safetensors")
    assert any(key.endswith(".alpha") for key in keys) == (layout == "comfyui" and alpha in (6.0, 0.5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_export_round_trip(tmp_path: Path) -> None:
    """ComfyUI to diffusers and back gives the same file; files are replaced only with `overwrite`."""
    first, second, third = (tmp_path / f"{name}.safetensors" for name in "abc")
    write_lora(first, random_changes(alpha=2.0), "comfyui", {"seed": "1"})
    export_lora(first, second, "diffusers")
    export_lora(second, third, "comfyui")
    assert first.read_bytes() == third.read_bytes() != second.read_bytes()
    for target, words in (
        (second, "--overwrite"),
        (first, "of the run itself"),
        (tmp_path / "a.pt", ".safetensors"),
        (tmp_path, "end the"),
    ):
        with pytest.raises(ModelError, match=words):
            export_lora(first, target, "comfyui")
    export_lora(first, second, "comfyui", overwrite=True)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("layout", "convert"), [
    ("comfyui", lora_conversion_utils._convert_non_diffusers_wan_lora_to_diffusers),
    ("down-up", lora_conversion_utils._convert_non_diffusers_wan_lora_to_diffusers),
    ("musubi", lora_conversion_utils._convert_musubi_wan_lora_to_diffusers),
])  # fmt: skip
def test_diffusers_converters_agree(tmp_path: Path, layout: str, convert: object) -> None:
    """diffusers' converters fold the scale into the first matrix."""
    tensors = spelled(layout, random_changes(rank=4, alpha=8.0))
    deltas = match_layers(read_lora(write(tmp_path / "a.safetensors", tensors)), image_to_video_transformer(), "wan").deltas
    converted = convert({key: tensor.clone() for key, tensor in tensors.items()})  # type: ignore[operator]
    assert len(converted) == 2 * len(deltas)
    for name, change in deltas.items():
        assert change.down is not None and change.up is not None
        assert torch.equal(converted[f"transformer.{name}.lora_A.weight"], change.down * change.scale)
        assert torch.equal(converted[f"transformer.{name}.lora_B.weight"], change.up)


def test_every_named_layer_has_one_original_name_and_back() -> None:
    transformer = image_to_video_transformer()
    names = set(collect_linear_sizes(transformer)) | {
        name.removesuffix(".weight").removesuffix(".bias") for name in collect_parameter_shapes(transformer)
    }
    named = {name: found for name in names if (found := to_original(name))}
    assert set(names) - set(named) == {"patch_embedding"}  # the same in both
    assert all(to_diffusers(original) == (name,) for name, (original, _) in named.items())
    index = index_flat_names(names)
    assert index["blocks_1_cross_attn_k_img"] == ("blocks.1.attn2.add_k_proj",)
    assert index["blocks_0_norm3"] == ("blocks.0.norm2",)
    assert index["head_modulation"] == ("scale_shift_table",)


def test_keys_of_other_programs() -> None:
    """One of each kind that was seen in the wild."""
    keys = {
        "pipe.dit.blocks.0.self_attn.q.lora_A.default.weight": ("blocks.0.self_attn.q", "down"),
        "lora_unet__blocks_0_cross_attn_k.lora_up.weight": ("blocks_0_cross_attn_k", "up"),
        "lycoris_blocks_3_attn1_to_out_0.alpha": ("blocks_3_attn1_to_out_0", "alpha"),
        "diffusion_model.blocks.0.self_attn.norm_q.diff": ("blocks.0.self_attn.norm_q", "diff"),
        "diffusion_model.blocks.0.diff_m": ("blocks.0.modulation", "diff"),
        "diffusion_model.head.head.diff_b": ("head.head", "diff_bias"),
        "base_model.model.blocks.0.ffn.0.lora_B.bias": ("blocks.0.ffn.0", "up_bias"),
        "transformer.blocks.0.attn1.to_q.lora.down.weight": ("blocks.0.attn1.to_q", "down"),
        "blocks.0.attn1.to_q.lora_A": ("blocks.0.attn1.to_q", "down"),
    }
    assert {key: (parsed.layer, parsed.part) for key in keys if (parsed := parse_key(key))} == keys
    assert parse_key("blocks.0.attn1.to_q.weight") is None
    assert detect_layout(["lycoris_blocks_3_attn1_to_q.lora_down.weight"]) == "kohya"
    assert format_layer_pattern("blocks_12_self_attn_q") == "blocks_*_self_attn_q"


HUNYUAN = {
    "transformer_blocks.0.attn.to_q": 12, "transformer_blocks.0.attn.to_k": 12, "transformer_blocks.0.attn.to_v": 12,
    "transformer_blocks.0.attn.add_q_proj": 12, "transformer_blocks.0.attn.add_k_proj": 12, "transformer_blocks.0.attn.add_v_proj": 12,
    "transformer_blocks.0.attn.to_out.0": 12, "transformer_blocks.0.attn.to_add_out": 12,
    "single_transformer_blocks.0.attn.to_q": 12, "single_transformer_blocks.0.attn.to_k": 12, "single_transformer_blocks.0.attn.to_v": 12,
    "single_transformer_blocks.0.proj_mlp": 48,
}  # fmt: skip


def hunyuan() -> HunyuanVideoTransformer3DModel:
    """Build a transformer with one block of each kind."""
    return HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=6, num_layers=1, num_single_layers=1, num_refiner_layers=1,
        patch_size=1, patch_size_t=1, guidance_embeds=False, text_embed_dim=8, pooled_projection_dim=8, rope_axes_dim=(2, 2, 2),
    )  # fmt: skip


def test_hunyuan_layers_are_fused_and_split(tmp_path: Path) -> None:
    """In the original's names several layers are one pair; read back, each layer's product is restored, as by diffusers' converter."""
    draw = torch.Generator().manual_seed(0)
    pairs = {
        name: LayerDelta(*(torch.randn(shape, generator=draw) for shape in ((2, 12), (rows, 2))), 4.0) for name, rows in HUNYUAN.items()
    }  # type: ignore[misc, arg-type]
    write_lora(tmp_path / "a.safetensors", pairs, "comfyui", {})
    file = read_lora(tmp_path / "a.safetensors")
    assert {"double_blocks.0.img_attn_qkv", "single_blocks.0.linear1"} <= file.layers.keys()
    deltas = match_layers(file, hunyuan(), "hunyuan").deltas
    double = {key: tensor for key, tensor in load_file(tmp_path / "a.safetensors").items() if "double" in key and not key.endswith("alpha")}
    converted = lora_conversion_utils._convert_hunyuan_video_lora_to_diffusers(double)
    assert deltas.keys() == pairs.keys()
    for name, expected in pairs.items():
        actual = deltas[name]
        assert None not in (actual.down, actual.up, expected.down, expected.up)
        torch.testing.assert_close(actual.scale * actual.up @ actual.down, expected.scale * expected.up @ expected.down)  # type: ignore[operator]
        if name.startswith("transformer_blocks") and "to_out" not in name and "add_out" not in name:
            assert torch.equal(converted[f"transformer.{name}.lora_B.weight"], actual.up)
    with pytest.raises(ModelError, match="write the diffusers layout"):
        write_lora(tmp_path / "b.safetensors", {name: pairs[name] for name in list(pairs)[:2]}, "comfyui", {})


def test_delta_of_several_layers_splits_by_rows() -> None:
    fused = LayerDelta(torch.ones(2, 3), torch.arange(10.0).view(5, 2), diff_bias=torch.arange(5.0))
    first, second = split_delta(fused, (2, 3))
    assert first.up is not None and second.diff_bias is not None
    assert first.up.tolist() == [[0, 1], [2, 3]]
    assert second.diff_bias.tolist() == [2, 3, 4]


def test_layers_missing_in_the_model_are_counted(tmp_path: Path) -> None:
    """Wan 2.1's image layers are missing in other models, such as Wan 2.2."""
    from tiny_random import tiny_random_family

    path = write(tmp_path / "a.safetensors", spelled("comfyui", random_changes()))
    match = match_layers(read_lora(path), tiny_random_family().transformer, "wan")
    assert (match.num_matched, match.num_layers) == (20, len(LAYERS))
    assert match.unused_layers == ("blocks.*.cross_attn.k_img", "blocks.*.cross_attn.v_img")


def test_base_model_is_inferred_from_the_header(tmp_path: Path) -> None:
    def infer(key: str, width: int, **metadata: str) -> str:
        tensors = {f"{key}.lora_down.weight": torch.zeros(2, width), f"{key}.lora_up.weight": torch.zeros(4, 2)}
        return read_header(write(tmp_path / "a.safetensors", tensors, **metadata)).base_model

    assert infer("lora_unet_blocks_0_self_attn_q", 5120) == "Wan 14B"
    assert infer("diffusion_model.blocks.0.cross_attn.k_img", 1536) == "Wan 1.3B, image-to-video"
    assert infer("transformer.single_transformer_blocks.0.attn.to_q", 3072) == "HunyuanVideo or FLUX"
    assert infer("lora_unet_down_blocks_0_attentions_0_proj_in", 320) == "Stable Diffusion or SDXL"
    assert infer("strange", 3) == "an unknown model"
    assert infer("strange", 3, base_model="tiny") == "tiny"
