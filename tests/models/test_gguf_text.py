"""A text encoder from a GGUF file in ComfyUI's folder: identified by its header, dequantized, refused where it does not fit."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit import devices
from lora_edit.errors import ModelError
from lora_edit.models.checkpoints import checks
from lora_edit.models.checkpoints.checks import verify_parts
from lora_edit.models.checkpoints.gguf_header import read_gguf_shapes
from lora_edit.models.families.wan.key_names import rename_text_encoder_key
from lora_edit.models.families.wan.loading import build_wan, load_components
from lora_edit.models.runtime.lazy_module import to_lazy_module
from single_files import save_comfyui
from tiny_wan import WANS

CPU = torch.device("cpu")
NAMES = {
    "shared": "token_embd", "encoder.final_layer_norm": "enc.output_norm",
    "layer.0.layer_norm": "attn_norm", "layer.1.layer_norm": "ffn_norm",
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b", "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up", "layer.1.DenseReluDense.wo": "ffn_down",
    **{f"layer.0.SelfAttention.{part}": f"attn_{part}" for part in "qkvo"},
}  # fmt: skip


def gguf_names(encoder: Any) -> dict[str, torch.Tensor]:
    """Return the encoder's tensors by llama.cpp's names."""
    out = {}
    for name, tensor in encoder.state_dict().items():
        if name == "encoder.embed_tokens.weight":
            continue
        block, _, layer = name.removeprefix("encoder.block.").partition(".")
        if name.startswith("encoder.block."):
            out[f"enc.blk.{block}.{NAMES[layer.removesuffix('.weight')]}.weight"] = tensor
        else:
            out[f"{NAMES[name.removesuffix('.weight')]}.weight"] = tensor
    return out


def write_plain(tensors: dict[str, torch.Tensor], file: Path, config: Any, encoder: bool = True) -> None:
    """Write a GGUF file in float32, without package gguf, which may not be installed."""

    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words)) + words.encode()

    heads = config.num_heads
    numbers = {
        "context_length": 512, "block_count": config.num_layers, "feed_forward_length": config.d_ff, "embedding_length": config.d_model,
        "attention.key_length": config.d_kv, "attention.head_count": heads, "vocab_size": config.vocab_size,
        "attention.relative_buckets_count": config.relative_attention_num_buckets,
    }  # fmt: skip
    kind = "t5encoder" if encoder else "llama"
    entries = [text("general.architecture") + struct.pack("<I", 8) + text(kind)]
    entries += [text(f"{kind}.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    words = b"".join(text(word) for word in ("a", "red", "coat"))
    entries.append(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + words)
    entries.append(text("tokenizer.ggml.scores") + struct.pack("<IIQ3f", 9, 6, 3, 0, 0, 0))
    table, data = b"", b""
    for name, tensor in tensors.items():
        data += bytes(-len(data) % 32)
        shape = list(reversed(tensor.shape))
        table += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += tensor.float().contiguous().numpy().tobytes()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries) + table
    file.write_bytes(head + bytes(-len(head) % 32) + data)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Any, Any, Path, Path]:
    """ComfyUI's folder with a GGUF in place of the text encoder, and the tokenizer beside it: record, parts, the transformer, the GGUF."""
    record, parts, _ = save_comfyui(WANS["wan2.1-i2v-480p"], tmp_path)
    old = tmp_path / "text_encoders" / "umt5_xxl_fp16.safetensors"
    old.unlink()
    parts.tokenizer.save_pretrained(tmp_path / "tokenizer")
    packed = old.with_name("umt5-xxl-encoder-F32.gguf")
    write_plain(gguf_names(parts.text_encoder), packed, parts.text_encoder.config)
    return record, parts, tmp_path, packed


def test_the_header_gives_all_shapes(place: tuple[Any, Any, Path, Path]) -> None:
    """Equal to the module's, by the module's names, without package gguf."""
    _, parts, _, packed = place
    wanted = {name: tuple(tensor.shape) for name, tensor in parts.text_encoder.state_dict().items() if "embed_tokens" not in name}
    assert {rename_text_encoder_key(key)[0]: shape for key, shape in read_gguf_shapes(packed).items()} == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gguf_encoder_equals_its_source(place: tuple[Any, Any, Path, Path], dtype: torch.dtype) -> None:
    pytest.importorskip("gguf", reason="an optional package")
    record, parts, folder, _ = place
    loaded = load_components(record, str(folder), CPU, dtype)
    own: Any = to_lazy_module(loaded.text_encoder).load_module()
    assert {each.dtype for each in own.parameters()} == {dtype}
    for name, tensor in parts.text_encoder.state_dict().items():
        assert torch.equal(own.state_dict()[name], tensor.to(dtype)), name
    if dtype == torch.float32:
        ours, theirs = (build_wan(each, record, CPU, dtype).encode_prompt("a red coat") for each in (loaded, parts))
        assert torch.equal(ours, theirs) and ours.abs().max() > 0


def test_unfit_files_are_refused_before_reading(place: tuple[Any, Any, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another width, another model, half a file, no package, no tokenizer, too little memory."""
    record, parts, folder, packed = place
    state, config, whole = gguf_names(parts.text_encoder), parts.text_encoder.config, packed.read_bytes()
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    def fault() -> str:
        with pytest.raises(ModelError) as caught:
            verify_parts(record, str(folder))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "needs the package gguf; install it with `pip install 'lora-edit[gguf]'`" in fault()
    write_plain(state | {"token_embd.weight": torch.zeros(3, 5)}, packed, config)
    assert f"{packed.name}: " in (line := fault()) and "d_model 5 instead of" in line and "umt5_xxl_fp16.safetensors" in line
    write_plain({"blk.0.attn_q.weight": torch.zeros(4, 4)}, packed, config, encoder=False)
    assert "lacks text_encoder" in fault()
    for length, words in ((len(whole) // 3, "ends"), (60, "ends within its header"), (3, "not a GGUF file")):
        packed.write_bytes(whole[:length])
        assert words in fault(), length
    packed.write_bytes(whole)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    verify_parts(record, str(folder))
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    assert "lacks tokenizer" in (line := fault()) and "tokenizer.json" in line
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    monkeypatch.setattr(devices, "get_free_host_bytes", lambda: 1)
    count = sum(tensor.numel() for tensor in state.values())
    assert checks._count_converted_bytes(verify_parts(record, str(folder))["text_encoder"], "BF16") == 2 * count


def test_a_file_without_all_tensors_is_refused(place: tuple[Any, Any, Path, Path]) -> None:
    """transformers would leave them random."""
    pytest.importorskip("gguf", reason="an optional package")
    record, parts, folder, packed = place
    state = gguf_names(parts.text_encoder)
    write_plain({name: tensor for name, tensor in state.items() if "attn_v" not in name}, packed, parts.text_encoder.config)
    with pytest.raises(ModelError, match=r"text encoder's tensors are missing, such as .*SelfAttention\.v"):
        to_lazy_module(load_components(record, str(folder), CPU, torch.float32).text_encoder).load_module()
