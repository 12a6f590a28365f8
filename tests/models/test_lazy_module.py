"""Lazy encoders: read at their first use, released for the transformer; faults of their files are found before."""

from __future__ import annotations

import json
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny_hunyuan
import tiny_replace
import tiny_vace
import tiny_wan
from lora_edit.conditioning.method import build_motion_sample
from lora_edit.errors import ModelError
from lora_edit.models.checkpoints import single_file
from lora_edit.models.checkpoints.file_identity import compute_file_identity
from lora_edit.models.checkpoints.layout import PartFiles
from lora_edit.models.checkpoints.locate import KNOWN_MODELS
from lora_edit.models.families.hunyuan.loading import build_hunyuan, load_hunyuan
from lora_edit.models.families.ltx.loading import load_ltx
from lora_edit.models.families.vace.loading import load_vace
from lora_edit.models.families.wan.loading import build_wan, load_components, load_wan
from lora_edit.models.families.wan_ti2v.loading import load_ti2v
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.lazy_module import LazyModule, to_lazy_module
from single_files import save, save_comfyui, weights

CPU = torch.device("cpu")
KNOWN_BY_NAME = {record.name: record for record in KNOWN_MODELS}
LOADERS: dict[str, tuple[Callable[..., Any], Callable[..., ModelRecord]]] = {
    "wan2.1-i2v-480p": (load_wan, tiny_wan.save_tiny),
    "wan2.2-ti2v-5b": (load_ti2v, tiny_replace.save_tiny),
    "ltx-video": (load_ltx, tiny_replace.save_tiny),
    "hunyuan-i2v": (load_hunyuan, tiny_hunyuan.save_tiny),
    "hunyuan-1.5-i2v": (load_hunyuan, tiny_hunyuan.save_tiny),
}


def laters(family: Any) -> dict[str, LazyModule]:
    """Return every encoder of a family, by its class."""
    parts = [getattr(part, "prompt_encoder", part) for part in vars(family.experts()[0].parts).values()]
    found = [each for part in parts if hasattr(part, "device_manager") for each in vars(part).values() if isinstance(each, LazyModule)]
    return {f"{number} {type(each.config).__name__}": each for number, each in enumerate(found)}


def sample_of(frames: int = 9) -> Any:
    clip = torch.rand(3, frames, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(frames, 64, 64, dtype=torch.bool)
    mask[:, 32:, 32:] = True
    return build_motion_sample(clip, mask, "a red coat")


@pytest.fixture(params=sorted(LOADERS))
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A family of each kind, and its folder."""
    load, save_tiny = LOADERS[request.param]
    record = save_tiny(KNOWN_BY_NAME[request.param], tmp_path)
    return load(record, str(tmp_path), CPU, torch.float32), tmp_path


def test_encoders_are_read_at_first_use_and_released_for_the_transformer(loaded: tuple[Any, Path]) -> None:
    """None is in memory after loading, all are after encoding, and none is once the transformer is on the device."""
    family, _ = loaded
    waiting = laters(family)
    assert len(waiting) >= 2 and not [name for name, each in waiting.items() if each._module is not None]
    first = family.encode_sample(sample_of())
    used = {name: weakref.ref(each._module) for name, each in waiting.items() if each._module is not None}
    assert len(used) >= 2
    family.experts()[0].to_device()
    assert not [name for name, reference in used.items() if reference() is not None]
    again = family.encode_sample(sample_of())
    assert torch.equal(first.condition, again.condition) and torch.equal(first.prompt_embeds, again.prompt_embeds)
    assert family.decode(again.target).shape[1] == 9


def test_z_dim_needs_no_weights(loaded: tuple[Any, Path]) -> None:
    """Its configuration has the number of channels."""
    family, folder = loaded
    config = json.loads((folder / "vae" / "config.json").read_text())
    assert family.z_dim == (config.get("z_dim") or config.get("latent_channels"))


def test_a_folder_with_an_older_configuration_gets_the_class_s_defaults(tmp_path: Path) -> None:
    """An absent setting has its default before and after the weights are read."""
    record = tiny_wan.save_tiny(KNOWN_BY_NAME["wan2.1-i2v-480p"], tmp_path)
    file = tmp_path / "vae" / "config.json"
    config = json.loads(file.read_text())
    for key in ("z_dim", "latents_mean"):
        del config[key]
    file.write_text(json.dumps(config))
    vae: Any = load_components(record, str(tmp_path), CPU, torch.float32).vae
    assert vae.config.z_dim == 16 == vae.load_module().config.z_dim and vae.config.latents_mean == vae.load_module().config.latents_mean


def test_vace_s_encoders_are_lazy(tmp_path: Path) -> None:
    """It shares the components of the other Wans."""
    record = tiny_vace.save_tiny_vace(tmp_path)
    family = load_vace(record, str(tmp_path), CPU, torch.float32)
    assert not [each for each in laters(family).values() if each._module is not None]


def test_modules_in_memory_are_not_released() -> None:
    """They are moved back to main memory, because they cannot be read again."""
    parts = tiny_wan.tiny_components(KNOWN_BY_NAME["wan2.1-i2v-480p"])
    family: Any = build_wan(parts, KNOWN_BY_NAME["wan2.1-i2v-480p"], CPU, torch.float32)
    encoded = family.encode_sample(sample_of())
    family.to_device()
    for each in laters(family).values():
        assert each.load_module() is each.load_module() and not each.identity
    assert torch.equal(family.encode_sample(sample_of()).condition, encoded.condition)


def test_modules_in_memory_return_from_the_device() -> None:
    """Modules in memory are moved; modules from files are dropped."""
    log: list[str] = []

    class Traveller(nn.Module):
        def to(self, device: Any) -> Any:
            log.append(str(device))
            return self

    for waiting, wanted in ((to_lazy_module(Traveller()), ["meta", "cpu"]), (LazyModule(Traveller, None, str), ["meta"])):
        log.clear()
        bench = DeviceManager(torch.device("meta"))
        bench.load(waiting)
        bench.load(nn.Linear(2, 2, device="meta"))
        assert log == wanted


def test_a_deleted_encoder_is_one_line(tmp_path: Path) -> None:
    """When files are deleted during training, the next use of the encoder raises the error."""
    record = tiny_wan.save_tiny(KNOWN_BY_NAME["wan2.1-i2v-480p"], tmp_path)
    family = load_wan(record, str(tmp_path), CPU, torch.float32)
    for file in (tmp_path / "vae").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelError, match=r"a part of wan2.1-i2v-480p cannot be read \(.*download it again") as error:
        family.encode_sample(sample_of())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "image_encoder"])
def test_a_truncated_file_is_refused_before_reading(
    tmp_path: Path, part: str, loaders_refused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any part, also of lazy ones, in diffusers' layout."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    record = tiny_wan.save_tiny(KNOWN_BY_NAME["wan2.1-i2v-480p"], tmp_path / "model")
    file = next((tmp_path / "model" / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match=rf"{file}: ends after"):
        load_wan(record, str(tmp_path / "model"), CPU, torch.float32)


@pytest.fixture
def loaders_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if weights are read."""
    import diffusers
    import transformers

    for kind in (diffusers.ModelMixin, transformers.PreTrainedModel):
        monkeypatch.setattr(kind, "from_pretrained", lambda *_, **__: pytest.fail("weights were read"))
    monkeypatch.setattr(single_file, "_open_file", lambda header: pytest.fail("a tensor was read"))


@pytest.mark.parametrize("part", ["vae", "text_encoders", "clip_vision"])
def test_an_additional_tensor_is_refused_before_reading(
    tmp_path: Path, part: str, loaders_refused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor is checked at loading, not at the encoder's first use."""
    from safetensors.torch import load_file

    # It reads a tensor of ComfyUI's text encoder.
    monkeypatch.setattr("lora_edit.models.families.wan.loading._load_tokenizer", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    record, _, (given,) = save_comfyui(KNOWN_BY_NAME["wan2.1-i2v-480p"], tmp_path / "models")
    file = next((tmp_path / "models" / part).glob("*.safetensors"))
    prefix = "encoder." if part == "text_encoders" else "decoder." if part == "vae" else "vision_model.encoder.layers.0."
    save(load_file(file) | {f"{prefix}stray.weight": torch.zeros(2)}, file)
    with pytest.raises(ModelError, match="stray"):
        load_components(record, str(given), CPU, torch.float32)


def test_tokenizers_and_processors_are_part_of_the_identity(tmp_path: Path) -> None:
    """Another vocabulary or image processor changes the encodings of the same weights."""
    record = tiny_hunyuan.save_tiny(KNOWN_BY_NAME["hunyuan-i2v"], tmp_path)

    def identities() -> list[str]:
        return [each.identity for each in laters(load_hunyuan(record, str(tmp_path), CPU, torch.float32)).values()]

    before = identities()
    assert before == identities() and len(set(before)) == 3
    file = tmp_path / "image_processor" / "preprocessor_config.json"
    file.write_text(file.read_text() + "\n")
    assert sum(a != b for a, b in zip(before, identities(), strict=True)) == 1


def test_an_identity_does_not_read_the_weights(tmp_path: Path) -> None:
    """A file of four gigabytes, all of them zeros that take no room, in a few kilobytes of memory."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1000, 1000, 1000], "data_offsets": [0, 4 * 10**9]}}).encode()
    file = tmp_path / "large.safetensors"
    with file.open("wb") as opened:
        opened.write(len(header).to_bytes(8, "little") + header)
        opened.truncate(8 + len(header) + 4 * 10**9)
    tracemalloc.start()
    assert compute_file_identity(PartFiles("text_encoder", (file,))) == compute_file_identity(PartFiles("text_encoder", (file,)))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_copied_file_has_the_same_identity(tmp_path: Path) -> None:
    """Two models with one text encoder share its outputs; other weights of the same shapes do not."""
    import shutil

    state = weights(tiny_wan.tiny_components(KNOWN_BY_NAME["wan2.1-i2v-480p"]).text_encoder)
    one = save(state, tmp_path / "a" / "text.safetensors")
    (tmp_path / "b").mkdir()
    other = Path(shutil.copy2(one, tmp_path / "b" / "another_name.safetensors"))
    assert compute_file_identity(PartFiles("text_encoder", (one,))) == compute_file_identity(PartFiles("text_encoder", (other,)))
    save({name: tensor + 1 for name, tensor in state.items()}, other)
    assert compute_file_identity(PartFiles("text_encoder", (one,))) != compute_file_identity(PartFiles("text_encoder", (other,)))


def test_modules_in_memory_have_no_identity() -> None:
    """Their encodings cannot be cached on disk."""
    record = KNOWN_BY_NAME["hunyuan-1.5-i2v"]
    family = build_hunyuan(tiny_hunyuan.tiny_components(record), record, CPU, torch.float32)
    assert not [each for each in laters(family).values() if each.identity]
