"""Checks before weights are read: one line each with what to do, and no large file is read."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from lora_edit import devices
from lora_edit.devices import get_free_host_bytes
from lora_edit.errors import ModelError
from lora_edit.models.checkpoints import locate, single_file
from lora_edit.models.checkpoints.checks import check_memory, check_trainable, verify_parts
from lora_edit.models.checkpoints.locate import check_substitute_model
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.families.wan.loading import load_components
from single_files import original_transformer, save, save_comfyui, save_original, save_sharded, weights
from tiny_wan import WANS, save_tiny, tiny_components

CPU = torch.device("cpu")
I2V = WANS["wan2.1-i2v-480p"]


def refused(record: Any, source: Path | str) -> str:
    """Return the message of the error."""
    with pytest.raises(ModelError) as error:
        verify_parts(record, str(source))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path, Path]:
    """A ComfyUI folder: record, folder and the transformer's file; the Hub library's folder is empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    record, _, (file,) = save_comfyui(I2V, tmp_path / "models")
    return record, tmp_path / "models", file


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_detected_by_its_size(comfyui: tuple[Any, Path, Path], kept: int) -> None:
    """In the header or before the last byte, for every part."""
    record, folder, file = comfyui
    whole = len(file.read_bytes())
    file.write_bytes(file.read_bytes()[:kept])
    line = refused(record, file)
    assert str(file) in line and "download it again" in line
    if kept == -1:
        assert f"ends after {whole - 1:,} of {whole:,} bytes" in line
    assert "lacks transformer" in refused(record, folder)


def test_a_truncated_part_is_refused(comfyui: tuple[Any, Path, Path]) -> None:
    """An autoencoder without its last byte; the message says where to get a whole one."""
    record, folder, file = comfyui
    vae = folder / "vae" / "wan_2.1_vae.safetensors"
    vae.write_bytes(vae.read_bytes()[:-1])
    line = refused(record, file)
    assert "lacks vae (wan_2.1_vae.safetensors: ends after" in line
    assert "Comfy-Org/Wan_2.1_ComfyUI_repackaged, split_files/vae" in line


def test_pickles_are_never_opened(comfyui: tuple[Any, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """By their suffix or first bytes, as a transformer or as the only companion; the message names a safe file."""
    record, folder, _ = comfyui
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    torch.save({"a": torch.zeros(2)}, folder / "model.pth")
    assert "is a pickle, which can run code when opened" in refused(record, folder / "model.pth")
    shutil.copy(folder / "model.pth", folder / "renamed.safetensors")
    assert "is a pickle" in refused(record, folder / "renamed.safetensors")
    with pytest.raises(ModelError, match="is a pickle"):
        locate.locate_model(str(folder / "model.pth"))
    (folder / "renamed.safetensors").unlink()
    (folder / "text_encoders" / "umt5_xxl_fp16.safetensors").unlink()
    (folder / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"PK\x03\x04")
    line = refused(record, folder)
    assert "text_encoder (models_t5_umt5-xxl-enc-bf16.pth is a pickle" in line and "put umt5_xxl_fp16.safetensors" in line


OTHERS = {
    "another width": ("wan2.1-flf2v", "pos_embed_seq_len 10 instead of None"),
    "no image encoder": ("wan2.2-i2v-a14b", "added_kv_proj_dim None instead of 24"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_wan_is_refused_by_its_header(comfyui: tuple[Any, Path, Path], monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """The message has actual and expected values; no tensor is read."""
    record, folder, file = comfyui
    name, fault = OTHERS[other]
    save(original_transformer(tiny_components(WANS[name]).transformers[0]), file)
    monkeypatch.setattr(single_file, "_open_file", lambda header: pytest.fail("a tensor was read"))
    assert f"{file}: is not {record.name} ({fault}" in refused(record, file)
    assert f"lacks transformer ({file.name}: {fault}" in refused(record, folder)


def test_another_family_is_refused(comfyui: tuple[Any, Path, Path]) -> None:
    """A text-to-video Wan by its channels, and a file of another model."""
    record, _, file = comfyui
    state = original_transformer(tiny_components(I2V).transformers[0])
    save(state | {"patch_embedding.weight": torch.zeros(24, 16, 1, 2, 2)}, file)
    assert "in_channels 16 instead of 36" in refused(record, file)
    save({"double_blocks.0.img_attn_qkv.weight": torch.zeros(2, 2)}, file)
    assert "holds no transformer of Wan's (its first tensor is 'double_blocks.0.img_attn_qkv.weight')" in refused(record, file)
    file.write_text("<html>not found</html>")
    assert "not a safetensors file" in refused(record, file)


def test_a_single_file_is_identified_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fitting model is used; several need a choice."""
    record, _, (file,) = save_comfyui(WANS["wan2.1-flf2v"], tmp_path / "a")
    other, _, (plain,) = save_comfyui(I2V, tmp_path / "b")
    monkeypatch.setattr(locate, "KNOWN_MODELS", (record, other, replace(other, name="wan2.1-i2v-720p", repo="")))
    assert locate.locate_model(str(file)) == (record, str(file))
    with pytest.raises(ModelError, match=r"fits wan2.1-i2v-480p, wan2.1-i2v-720p; say which as NAME@"):
        locate.locate_model(str(plain))
    with pytest.raises(ModelError, match=r"does not say which model it is; give it as NAME@/x/y.gguf"):
        locate.locate_model("/x/y.gguf")


def test_several_fitting_files_need_a_choice(comfyui: tuple[Any, Path, Path]) -> None:
    """480P and 720P have one shape; an encoder in two number formats is read from the larger, more exact file."""
    record, folder, file = comfyui
    shutil.copy(file, file.with_name("another.safetensors"))
    assert "another.safetensors and wan_i2v_fp16.safetensors all fit wan2.1-i2v-480p; say which as wan2.1-i2v-480p@FILE" in refused(
        record, folder
    )
    text = tiny_components(I2V).text_encoder
    exact = folder / "text_encoders" / "umt5_xxl_fp16.safetensors"
    save({name: value.half() for name, value in weights(text).items()}, exact.with_name("a_smaller_one.safetensors"))
    assert verify_parts(record, str(file))["text_encoder"].files == (exact,)


def test_missing_shards_are_missing(tmp_path: Path) -> None:
    """In diffusers' layout and in the original's; an unfinished file does not count."""
    record = save_tiny(I2V, tmp_path / "d")
    folder = tmp_path / "d" / "transformer"
    index = save_sharded(weights(tiny_components(I2V).transformers[0]), folder, "diffusion_pytorch_model")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    assert verify_parts(record, str(tmp_path / "d"))["transformer"].files == tuple(sorted(folder.glob("*.safetensors")))
    first = next(iter(sorted(folder.glob("*-00001-*"))))
    first.rename(first.with_name(first.name + ".incomplete"))
    assert "lacks transformer (1 of 3 files missing)" in refused(record, tmp_path / "d")
    record, _ = save_original(I2V, tmp_path / "o")
    index = next((tmp_path / "o").glob("*.index.json"))
    next((tmp_path / "o").glob("*-00002-*")).unlink()
    assert "1 of 3 files are missing, such as diffusion_pytorch_model-00002-of-00003.safetensors" in refused(record, index)
    index.write_text("{}", "utf-8")
    assert "not an index of safetensors files" in refused(record, index)


def test_all_missing_companions_are_reported_at_once(comfyui: tuple[Any, Path, Path], tmp_path: Path) -> None:
    """With the usual files' names and the download command."""
    record, _, file = comfyui
    alone = tmp_path / "elsewhere" / "deep" / "er" / "x.safetensors"
    alone.parent.mkdir(parents=True)
    shutil.copy(file, alone)
    line = refused(record, alone)
    assert "lacks vae (not found), text_encoder (not found), tokenizer (not found), image_encoder (not found)" in line
    assert f"or get the rest with `lora-edit models --download {record.name}@{alone}`" in line
    assert "no such file or folder" in refused(record, tmp_path / "nowhere.safetensors")


def test_companions_may_come_from_a_downloaded_repository(comfyui: tuple[Any, Path, Path], tmp_path: Path) -> None:
    """Wan's models share them, so a single file is then enough."""
    record, _, file = comfyui
    snapshot = tmp_path / "hub" / f"models--{record.repo.replace('/', '--')}" / "snapshots" / "abc"
    save_tiny(I2V, snapshot)
    shutil.rmtree(snapshot / "transformer")
    alone = tmp_path / "elsewhere" / "deep" / "er" / "x.safetensors"
    alone.parent.mkdir(parents=True)
    shutil.copy(file, alone)
    places = verify_parts(record, str(alone))
    assert places["transformer"].files == (alone,) and places["vae"].folder == snapshot / "vae"
    assert load_components(record, str(alone), CPU, torch.float32).tokenizer("a")["input_ids"]


def test_too_little_memory_is_detected_before_reading(comfyui: tuple[Any, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Converted tensors take two bytes a number in bfloat16; tensors in the right format are mapped, here the float32 parts too."""
    record, folder, _ = comfyui
    places = verify_parts(record, str(folder))
    parts: Any = tiny_components(I2V)
    numbers = sum(value.numel() for part in (*parts.transformers, parts.text_encoder) for value in weights(part).values())
    held = 2 * numbers
    for free, fits in ((held, True), (held - 1, False)):
        monkeypatch.setattr(devices, "get_free_host_bytes", lambda free=free: free)
        if fits:
            check_memory(record, places, "BF16")
        else:
            check_memory(record, places, "F32")
            with pytest.raises(ModelError, match=r"takes 0\.\d GB of main memory to load and 0\.\d GB are free; close other programs"):
                check_memory(record, places, "BF16")


def test_a_container_s_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of its processes is not free; without a limit the machine's memory counts, without what other programs use."""
    texts = {"memory.max": "6000", "memory.stat": "anon 1000\nfile 9"}
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: texts[path.name])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=9000, available=5 * 1024))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=2 * 1024))
    assert get_free_host_bytes() == 5000
    texts["memory.max"] = "max"
    assert get_free_host_bytes() == 7 * 1024


def test_memory_that_other_programs_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device, this process's own memory counts as free: it is given up before a model loads."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 20))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3)
    device = torch.device("cuda")
    assert devices.get_free_device_bytes(device) == 8 and devices.get_weight_memory_limit(device) == 0.9 * 8
    assert devices.get_free_device_bytes(torch.device("cpu")) == 0


def test_gguf_files_generate_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused for training, with what to do; a missing package is named."""
    model = f"{I2V.name}@/x/wan.gguf"
    with pytest.raises(ModelError, match=r"only generates; train with --model wan2.1-i2v-480p or wan2.1-i2v-480p@FILE.safetensors"):
        check_trainable(model)
    check_trainable(f"{I2V.name}@/x/wan.safetensors")
    record, _, (file,) = save_comfyui(I2V, tmp_path)
    fake = file.with_suffix(".gguf")
    fake.write_bytes(b"no such thing")
    assert "not a GGUF file" in refused(record, fake)
    fake.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "needs the package gguf; install it with `pip install 'lora-edit[gguf]'`" in refused(record, fake)
    with pytest.raises(ModelError, match=r"is wan2\.1-flf2v and the run's LoRA was trained on wan2\.1-i2v-480p"):
        check_substitute_model("wan2.1-flf2v", I2V.name, has_lora=True)
    with pytest.raises(ModelError, match="train the run first"):
        check_substitute_model(model, I2V.name, has_lora=False)
    check_substitute_model(model, I2V.name, has_lora=True)
    check_substitute_model(None, I2V.name, has_lora=False)


def test_companions_of_every_model_are_described() -> None:
    """Their widths match the transformers."""
    for record in KNOWN_MODELS:
        if record.companions_config:
            parts, config = record.read_companion_configs(), record.read_transformer_config()
            assert parts["vae"]["z_dim"] == config["out_channels"] == len(parts["vae"]["latents_mean"]) == len(parts["vae"]["latents_std"])
            assert parts["text_encoder"]["d_model"] == config["text_dim"]
            assert config.get("image_dim") in (None, parts.get("image_encoder", {}).get("hidden_size"))
