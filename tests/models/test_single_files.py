"""Wan from single files: the same tensors as the modules they were written from, whatever their names, prefixes and number formats."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.sentencepiece_tokenizer import build_tokenizer
from lora_edit.models.checkpoints.single_file import build_empty_module, dequantize_scaled_weight, load_weights
from lora_edit.models.families.wan.key_names import (
    build_vae_key_renamer,
    rename_image_encoder_key,
    rename_text_encoder_key,
    rename_transformer_key,
)
from lora_edit.models.families.wan.loading import build_wan, load_components
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.lazy_module import to_lazy_module
from lora_edit.models.runtime.precision import cast_and_freeze, is_kept_in_fp32
from lora_edit.models.runtime.quantization import QuantizedLinear
from single_files import (
    State,
    original_picture,
    original_text,
    original_transformer,
    original_vae,
    save,
    save_comfyui,
    save_original,
    save_sharded,
    scaled,
    spiece_model,
    tensor_of,
    weights,
)
from tiny_wan import WANS, tiny_components, tiny_config

CPU = torch.device("cpu")
I2V, PAIR = WANS["wan2.1-i2v-480p"], WANS["wan2.2-i2v-a14b"]
PARTS = ("vae", "text_encoder", "image_encoder")


def same(found: Any, wanted: Any) -> None:
    """Parameter by parameter, bit for bit."""
    a, b = weights(found), weights(wanted)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a), [name for name in a if not torch.equal(a[name], b[name])]


def all_the_same(found: Any, wanted: Any) -> None:
    """Every module of two sets of components."""
    for one, other in zip(found.transformers, wanted.transformers, strict=True):
        same(one, other)
    for part in PARTS:
        if getattr(wanted, part) is not None:
            same(to_lazy_module(getattr(found, part)).load_module(), getattr(wanted, part))


@pytest.mark.parametrize(
    ("name", "prefix"), [*((name, "model.diffusion_model.") for name in WANS), (I2V.name, "diffusion_model."), (I2V.name, "")]
)
def test_every_model_loads_from_comfyui_s_folder(tmp_path: Path, name: str, prefix: str) -> None:
    """As the folder, and as the transformer's file in it; buffers that no file holds are computed."""
    record, parts, files = save_comfyui(WANS[name], tmp_path, prefix)
    for source in (tmp_path, files[0]):
        loaded = load_components(record, str(source), CPU, torch.float32)
        all_the_same(loaded, parts)
    assert loaded.transformers[0].config["num_layers"] == 1
    buffers = dict(parts.transformers[0].named_buffers())
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in loaded.transformers[0].named_buffers())
    assert build_wan(loaded, record, CPU, torch.float32).encode_prompt("a red coat").shape[:2] == (1, 512)


@pytest.mark.parametrize("name", ["wan2.1-flf2v", "wan2.1-fun-1.3b", "skyreels-v2-i2v", "wan2.2-i2v-a14b"])
def test_the_original_layout_in_shards(tmp_path: Path, name: str) -> None:
    """Names of Wan's own modules, query, key and value in one matrix, and an index for three files; also by the index itself."""
    record, parts = save_original(WANS[name], tmp_path)
    all_the_same(load_components(record, str(tmp_path), CPU, torch.float32), parts)
    if len(record.transformer_parts) == 1:
        index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
        all_the_same(load_components(record, str(index), CPU, torch.float32), parts)


def test_either_expert_s_file_finds_the_other(tmp_path: Path) -> None:
    """High noise comes first, whichever file was given; one expert without the other is refused."""
    record, parts, (high, low) = save_comfyui(PAIR, tmp_path)
    with torch.no_grad():
        assert not torch.equal(*(module.proj_out.weight for module in parts.transformers)), "the halves differ"
    for given in (high, low):
        all_the_same(load_components(record, str(given), CPU, torch.float32), parts)
    low.unlink()
    with pytest.raises(ModelError, match=r"needs two files; give the one with `high` or `low`"):
        load_components(record, str(high), CPU, torch.float32)


class Loader:
    """One tiny transformer, written and read."""

    def __init__(self, record: ModelRecord, folder: Path) -> None:
        self.record, self.file = record, folder / "x.safetensors"
        self.module = tiny_components(record).transformers[0]
        self.state = original_transformer(self.module)
        linear = {f"{name}.weight" for name, part in self.module.named_modules() if isinstance(part, nn.Linear)}
        self.linears = {original for original in self.state if rename_transformer_key(original)[0] in linear}

    def load(self, state: State, dtype: torch.dtype = torch.float32) -> State:
        """The parameters after a turn through a file, by original names."""
        config = tiny_config(self.record)
        kind = getattr(diffusers, config["_class_name"])
        module = build_empty_module(lambda: kind.from_config(config))
        number_format = lambda name: torch.float32 if is_kept_in_fp32(module, name) else dtype  # noqa: E731
        return original_transformer(load_weights(module, [save(state, self.file)], rename_transformer_key, number_format))

    def refused(self, state: State) -> str:
        """Return the message of the error."""
        with pytest.raises(ModelError) as error:
            self.load(state)
        assert str(self.file) in str(error.value) and "\n" not in str(error.value)
        return str(error.value)


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    return Loader(I2V, tmp_path)


def equal(found: State, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name].to(found[name].dtype)) for name in found)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_plain_formats_are_read_exactly(loader: Loader, stored: torch.dtype) -> None:
    """Unscaled 8-bit files give their rounded weights exactly; their norms and biases are wider."""
    rounded = {name: tensor.to(stored if name in loader.linears else torch.bfloat16) for name, tensor in loader.state.items()}
    found = loader.load(rounded)
    assert equal(found, {name: tensor.float() for name, tensor in rounded.items()})
    assert not equal(found, loader.state)


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_scaled_weights_are_dequantized(loader: Loader, newer: bool, prefix: str) -> None:
    """Exactly the stored value times its scale, in both of ComfyUI's spellings, also in a module of bfloat16."""
    stored, worth = scaled(loader.state, loader.linears, newer)
    stored = {prefix + name: tensor for name, tensor in stored.items()}
    assert equal(loader.load(stored), worth)
    assert equal(loader.load(stored, torch.bfloat16), worth)
    error = max((worth[name] - loader.state[name]).abs().max() / loader.state[name].abs().max() for name in loader.linears)
    assert error < 0.04, "8 bits with a scale are close; without it they are off by a factor of hundreds"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_scaled", [True, False])
def test_8_bit_matrices_stay_in_8_bits(loader: Loader, dtype: torch.dtype, is_scaled: bool) -> None:
    """With outputs and gradients equal to those of weights that were multiplied out when the file was read."""
    stored, worth = scaled(loader.state, loader.linears)
    if not is_scaled:
        stored = {name: tensor.to(torch.float8_e4m3fn) if name in loader.linears else tensor for name, tensor in loader.state.items()}
        worth = {name: tensor.float() for name, tensor in stored.items()}
    config = tiny_config(loader.record)
    kind = getattr(diffusers, config["_class_name"])
    module = build_empty_module(lambda: kind.from_config(config))
    load_weights(module, [save(stored, loader.file)], rename_transformer_key, lambda name: dtype, keep_float8=True)
    layers = {name: part for name, part in module.named_modules() if isinstance(part, QuantizedLinear)}
    assert {name.split(".")[-1] for name in layers} >= {"to_q", "to_k", "to_v", "proj"}
    assert all(name.startswith("blocks.") and part.weight.dtype == torch.float8_e4m3fn for name, part in layers.items())
    cast_and_freeze(module, dtype)
    layer = layers["blocks.0.attn1.to_q"]
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert layer.bias is not None
    inputs = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_(True)
    plain = torch.nn.functional.linear(inputs, worth["blocks.0.self_attn.q.weight"].to(dtype), layer.bias)
    output = layer(inputs)
    assert torch.equal(output, plain)
    grads = [torch.autograd.grad(each.float().sum(), inputs)[0] for each in (output, plain)]
    assert torch.equal(*grads)
    assert torch.equal(layer.to_linear().weight, worth["blocks.0.self_attn.q.weight"])


def test_scales_by_row_and_by_block() -> None:
    """As they multiply by hand."""
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    rows = torch.rand(6, generator=torch.Generator().manual_seed(1))
    by_hand = torch.stack([row * scale for row, scale in zip(weight.float(), rows, strict=True)])
    assert torch.equal(dequantize_scaled_weight(weight, rows), by_hand) and torch.equal(
        dequantize_scaled_weight(weight, rows[:, None]), by_hand
    )
    blocks = torch.rand(6, 2, 1, generator=torch.Generator().manual_seed(2))
    by_hand = torch.cat([weight[:, :4].float() * blocks[:, 0], weight[:, 4:].float() * blocks[:, 1]], 1)
    assert torch.equal(dequantize_scaled_weight(weight, blocks), by_hand)
    assert torch.equal(dequantize_scaled_weight(weight, torch.tensor([0.5])), weight.float() * 0.5)


def test_unsupported_storage_is_refused(loader: Loader) -> None:
    """A scale that is missing, or of an unknown kind; 4-bit layers; integers."""
    stored, _ = scaled(loader.state, loader.linears)
    layer = "blocks.0.self_attn.q"
    gone = {name: tensor for name, tensor in stored.items() if name != f"{layer}.scale_weight"}
    assert f"{layer}.weight is scaled and its scale is missing" in loader.refused(gone)
    assert "of a kind that is not read" in loader.refused(stored | {f"{layer}.scale_weight": torch.zeros(3)})
    assert "of a kind that is not read" in loader.refused(loader.state | {f"{layer}.scale_weight": torch.ones(())})
    newer, _ = scaled(loader.state, loader.linears, newer=True)
    assert "is stored as nvfp4" in loader.refused(newer | {f"{layer}.comfy_quant": tensor_of(b'{"format": "nvfp4"}')})
    integers = {**loader.state, f"{layer}.weight": torch.zeros(24, 24, dtype=torch.int8)}
    assert f"{layer}.weight is stored as I8" in loader.refused(integers)


def test_every_tensor_is_accounted_for(loader: Loader) -> None:
    """One too few, one too many, one of another shape: named, before any is read."""
    first, *_ = loader.state
    assert "1 tensors are missing, such as" in loader.refused({name: tensor for name, tensor in loader.state.items() if name != first})
    assert "1 are unknown, such as ref_conv.weight" in loader.refused({**loader.state, "ref_conv.weight": torch.zeros(2)})
    assert "is [25, 24] instead of [24, 24]" in loader.refused({**loader.state, "blocks.0.self_attn.q.weight": torch.zeros(25, 24)})


@pytest.mark.parametrize("name", ["wan2.1-i2v-480p", "skyreels-v2-i2v"])
def test_float32_modules_are_never_rounded(tmp_path: Path, name: str) -> None:
    """From a float32 file into a bfloat16 model: norms, times and tables keep every bit."""
    loader = Loader(WANS[name], tmp_path)
    found = loader.load(loader.state, torch.bfloat16)
    kept = {original for original in loader.state if is_kept_in_fp32(loader.module, rename_transformer_key(original)[0])}
    assert {"head.modulation", "blocks.0.norm3.weight", "time_embedding.0.weight"} <= kept
    for original, tensor in found.items():
        assert tensor.dtype == (torch.float32 if original in kept else torch.bfloat16)
    assert all(torch.equal(found[original], loader.state[original]) for original in kept)


@pytest.mark.parametrize("name", ["wan2.1-i2v-480p", "wan2.2-i2v-a14b"])
def test_names_of_the_transformer_agree_with_diffusers(name: str) -> None:
    """Whose converter is another's work; it lacks the positions of FLF2V."""
    state = original_transformer(tiny_components(WANS[name]).transformers[0])
    theirs = convert_wan_transformer_to_diffusers(dict(state))
    ours = {rename_transformer_key(key)[0]: tensor for key, tensor in state.items()}
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert rename_transformer_key("img_emb.emb_pos") == ("condition_embedder.image_embedder.pos_embed",)


@pytest.mark.parametrize("blocks", [1, 2])
def test_names_of_the_autoencoder_agree_with_diffusers(blocks: int) -> None:
    """Whose converter knows two residual blocks per level only."""
    module = diffusers.AutoencoderKLWan(base_dim=4, num_res_blocks=blocks)
    state = original_vae(module)
    ours = {build_vae_key_renamer(blocks)(key)[0]: tensor for key, tensor in state.items()}
    assert ours.keys() == weights(module).keys() and all(torch.equal(ours[key], own) for key, own in weights(module).items())
    if blocks == 2:
        theirs = convert_wan_vae_to_diffusers(dict(state))
        assert theirs.keys() == ours.keys() and all(theirs[key] is ours[key] for key in ours)


def test_names_of_the_encoders_are_upstream_s() -> None:
    """As Wan's own modules have them (Wan2.1 `wan/modules/t5.py`, `clip.py`), spelled out."""
    parts: Any = tiny_components(I2V)
    text, picture = original_text(parts.text_encoder), original_picture(parts.image_encoder)
    assert {re.sub(r"\.\d+\.", ".N.", key, count=1) for key in text} == {
        "token_embedding.weight", "norm.weight", "blocks.N.norm1.weight", "blocks.N.norm2.weight", "blocks.N.attn.q.weight",
        "blocks.N.attn.k.weight", "blocks.N.attn.v.weight", "blocks.N.attn.o.weight", "blocks.N.ffn.gate.0.weight",
        "blocks.N.ffn.fc1.weight", "blocks.N.ffn.fc2.weight", "blocks.N.pos_embedding.embedding.weight",
    }  # fmt: skip
    assert {name for key in text for name in rename_text_encoder_key(key)} == weights(parts.text_encoder).keys()
    assert {name for key in picture for name in rename_image_encoder_key(key)} == weights(parts.image_encoder).keys()
    assert "visual.transformer.0.attn.to_qkv.weight" in picture and "visual.pre_norm.bias" in picture


def test_a_tokenizer_is_built_from_a_sentencepiece_model() -> None:
    """Longest pieces, letters where there is no word, one unknown for what is in neither, an end, zeros behind it."""
    tokenizer = build_tokenizer(spiece_model(), "here")
    found = tokenizer(["a red  coat", "redcoat", "a z"], padding="max_length", max_length=9, return_tensors="pt")
    assert found["input_ids"].tolist() == [
        [5, 6, 8, 1, 0, 0, 0, 0, 0],
        [6, 11, 14, 10, 16, 1, 0, 0, 0],
        [5, 4, 3, 1, 0, 0, 0, 0, 0],
    ]
    assert found["attention_mask"][0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    with pytest.raises(ModelError, match="here: its tokenizer cannot be read"):
        build_tokenizer(b"\x07nonsense", "here")


def test_an_index_of_shards_fills_one_module(tmp_path: Path, loader: Loader) -> None:
    """Scales may lie in another shard than their weights."""
    stored, worth = scaled(loader.state, loader.linears)
    index = save_sharded(stored, tmp_path, "model")
    config = tiny_config(I2V)
    module = build_empty_module(lambda: diffusers.WanTransformer3DModel.from_config(config))
    files = sorted(index.parent.glob("model-*.safetensors"))
    assert equal(original_transformer(load_weights(module, files, rename_transformer_key, lambda name: torch.float32)), worth)
