"""Every known layout of a checkpoint at full size, as sparse files: recognised, complete, and compared tensor by tensor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lora_edit import devices
from lora_edit.errors import ModelError
from lora_edit.models.checkpoints import hub
from lora_edit.models.checkpoints.checks import check_memory, holds_8_bit_weights, verify_parts
from lora_edit.models.checkpoints.headers import _read_header
from lora_edit.models.checkpoints.layout import find_parts
from lora_edit.models.checkpoints.locate import locate_model
from lora_edit.models.families.hunyuan.record import HUNYUAN_15_I2V, HUNYUAN_I2V
from lora_edit.models.families.ltx.record import LTX_VIDEO
from lora_edit.models.families.wan.record import WAN21_FLF2V, WAN21_FUN_1_3B, WAN21_I2V_480P, WAN22_I2V_A14B
from lora_edit.models.families.wan_ti2v.record import WAN22_TI2V_5B
from lora_edit.models.record import ModelRecord
from sparse_files import (
    Entry,
    save_comfyui,
    save_diffusers,
    save_hub_cache,
    save_original,
    scaled_entries,
    text_entries,
    transformer_entries,
    vae_entries,
    write_sparse,
)

WANS = (WAN21_I2V_480P, WAN21_FLF2V, WAN21_FUN_1_3B, WAN22_I2V_A14B, WAN22_TI2V_5B)


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No part comes from the machine's own downloads."""
    monkeypatch.setattr(hub, "get_hub_cache_folder", lambda: tmp_path / "hub")


def names(record: ModelRecord, source: Path | str) -> dict[str, list[str]]:
    """Verify all parts; returns the names of their files."""
    return {part: [file.name for file in files.files] for part, files in verify_parts(record, str(source)).items()}


def fault(record: ModelRecord, source: Path | str) -> str:
    """Return the message of the error."""
    with pytest.raises(ModelError) as error:
        verify_parts(record, str(source))
    return str(error.value)


@pytest.mark.parametrize("record", WANS, ids=lambda record: record.name)
def test_comfyui_s_files_are_complete(record: ModelRecord, tmp_path: Path) -> None:
    """From the folder `models`, from ComfyUI's own folder above it, and from the transformer's file alone."""
    files = save_comfyui(record, tmp_path / "ComfyUI" / "models")
    found = names(record, tmp_path / "ComfyUI" / "models")
    assert found == names(record, tmp_path / "ComfyUI") == names(record, files[0])
    assert found["transformer"] == [files[0].name] and found["tokenizer"] == found["text_encoder"] == ["umt5_xxl_fp16.safetensors"]


@pytest.mark.parametrize("record", [WAN21_I2V_480P, WAN22_TI2V_5B], ids=lambda record: record.name)
def test_scaled_8_bit_files_are_complete(record: ModelRecord, tmp_path: Path) -> None:
    save_comfyui(record, tmp_path / "scaled", scaled_entries)
    assert names(record, tmp_path / "scaled")["transformer"] == [f"{record.name}_fp16.safetensors"]
    assert holds_8_bit_weights(record, str(tmp_path / "scaled"))
    save_comfyui(record, tmp_path / "plain")
    assert not holds_8_bit_weights(record, str(tmp_path / "plain")) and not holds_8_bit_weights(record, record.repo)


def test_8_bit_files_load_with_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """14 billion weights in 8 bits are not converted to 16 bits first."""
    free: list[int] = [0]
    monkeypatch.setattr(devices, "get_free_host_bytes", lambda: free[0])
    for transformer, gigabytes in ((scaled_entries, 20), (transformer_entries, 50)):
        save_comfyui(WAN21_I2V_480P, tmp_path, transformer)
        parts = verify_parts(WAN21_I2V_480P, str(tmp_path))
        free[0] = gigabytes * 10**9
        check_memory(WAN21_I2V_480P, parts, "BF16")
    free[0] = 20 * 10**9
    with pytest.raises(ModelError, match="of main memory to load"):
        check_memory(WAN21_I2V_480P, parts, "BF16")


@pytest.mark.parametrize("record", [WAN21_I2V_480P, WAN22_I2V_A14B, WAN22_TI2V_5B], ids=lambda record: record.name)
def test_the_publisher_s_folder_is_complete(record: ModelRecord, tmp_path: Path) -> None:
    found = names(record, save_original(record, tmp_path))
    assert all(len(found[part]) == 7 for part in record.transformer_parts)


def test_the_publisher_s_pickles_are_named(tmp_path: Path) -> None:
    """Not the shapes of another file in the folder."""
    text = fault(WAN21_I2V_480P, save_original(WAN21_I2V_480P, tmp_path, pickles=("clip", "t5")))
    assert "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth is a pickle" in text and "hidden_size" not in text


@pytest.mark.parametrize("record", [WAN21_I2V_480P, WAN22_TI2V_5B, LTX_VIDEO, HUNYUAN_I2V, HUNYUAN_15_I2V], ids=lambda record: record.name)
def test_folders_in_diffusers_layout_are_complete(record: ModelRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder, and as the Hub library's folder, by the repository's name and by the folder itself; a tensor less is noticed."""
    save_diffusers(record, tmp_path / "model")
    assert len(names(record, tmp_path / "model")["transformer"]) == 3
    repository = save_hub_cache(record, tmp_path / "hub")
    assert names(record, record.repo) == names(record, repository)
    shard = sorted((tmp_path / "model" / "transformer").glob("*.safetensors"))[1]
    write_sparse(shard, {"another": Entry("F32", (1,))})
    assert "tensors are missing" in fault(record, tmp_path / "model")


@pytest.mark.parametrize(
    ("record", "entries"),
    [(WAN21_FLF2V, transformer_entries), (WAN22_TI2V_5B, transformer_entries), (WAN21_FUN_1_3B, scaled_entries)],
    ids=["flf2v", "5b", "fun-1.3b scaled"],
)
def test_a_single_file_is_identified_in_a_second(record: ModelRecord, entries: Callable[..., dict[str, Entry]], tmp_path: Path) -> None:
    """By its header alone."""
    file = write_sparse(tmp_path / "wan.safetensors", entries(record, prefix="model.diffusion_model."))
    locate_model("tiny")  # entry points are read once
    _read_header.cache_clear()
    started = time.process_time()
    assert locate_model(str(file))[0] == record
    assert time.process_time() - started < 1


def test_an_extra_mark_is_accepted_and_a_missing_tensor_is_not(tmp_path: Path) -> None:
    """Kijai's first-and-last-frame file names its kind in a tensor; every other tensor is compared before anything loads."""
    files = save_comfyui(WAN21_FLF2V, tmp_path)
    entries = transformer_entries(WAN21_FLF2V)
    write_sparse(files[0], entries | {"model_type.FLF2V": Entry("F16", (1,))})
    assert names(WAN21_FLF2V, tmp_path)
    entries.pop("blocks.39.ffn.2.bias")
    write_sparse(files[0], entries)
    assert "1 tensors are missing, such as blocks.39.ffn.net.2.bias" in fault(WAN21_FLF2V, tmp_path)


def test_other_models_of_the_same_shapes_are_not_taken(tmp_path: Path) -> None:
    """A name that publishers use decides; without one, the user has to."""
    save_comfyui(WAN21_FUN_1_3B, tmp_path)
    folder, own = tmp_path / "vae", vae_entries(WAN21_FUN_1_3B, "F32")
    write_sparse(folder / "qwen_image_vae.safetensors", own)
    head = {key: replace(entry, shape=(12, *entry.shape[1:])) for key, entry in own.items() if key.startswith("decoder.head.2.")}
    enlarging = own | head
    write_sparse(folder / "Wan2.1_VAE_upscale2x_imageonly_real_v1.safetensors", enlarging)
    write_sparse(tmp_path / "text_encoders" / "umt5_xxl_uncensored_fp32.safetensors", text_entries(WAN21_FUN_1_3B, "F32"))
    found = names(WAN21_FUN_1_3B, tmp_path)
    assert found["vae"] == ["wan_2.1_vae.safetensors"] and found["text_encoder"] == ["umt5_xxl_fp16.safetensors"]
    (folder / "wan_2.1_vae.safetensors").unlink()
    assert "qwen_image_vae.safetensors: of its shapes, and of no name" in fault(WAN21_FUN_1_3B, tmp_path)
    write_sparse(folder / "my_vae.safetensors", own)
    assert names(WAN21_FUN_1_3B, tmp_path)["vae"] == ["my_vae.safetensors"]


def test_messages_name_the_true_fault(tmp_path: Path) -> None:
    """A shard, and single files of families that are read as folders only."""
    save_original(WAN21_FUN_1_3B, tmp_path)
    shard = tmp_path / "diffusion_pytorch_model-00002-of-00007.safetensors"
    for model in (str(shard), f"{WAN21_FUN_1_3B.name}@{shard}"):
        with pytest.raises(ModelError, match="is one of 7 shards of a checkpoint; give its folder"):
            find_parts(*locate_model(model))
    keys = {"LTX-Video": "model.diffusion_model.patchify_proj.weight", "HunyuanVideo": "double_blocks.0.img_attn_qkv.weight"}
    for family, key in keys.items():
        file = write_sparse(tmp_path / "other.safetensors", {key: Entry("BF16", (8, 8))})
        with pytest.raises(ModelError, match=f"holds {family}, whose single files are not read"):
            locate_model(str(file))
    with pytest.raises(ModelError, match="single files of ltx-video are not read; give a folder in diffusers' layout"):
        find_parts(LTX_VIDEO, str(file))
