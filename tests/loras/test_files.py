"""Tests of invalid files: each gives an error of one line with the problem and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from typer.testing import CliRunner

from lora_edit.cli.main import app
from lora_edit.errors import ModelError
from lora_edit.loras.extra_loras import check_extra_loras
from lora_edit.loras.files import LoraFile, read_lora, read_lora_shapes
from lora_edit.loras.header import read_header
from lora_edit.loras.match import collect_linear_sizes, collect_parameter_shapes, match_layers
from lora_edit.models.family import load_family, load_meta_transformer
from lora_maker import image_to_video_transformer, random_changes, spelled, write


def pair(layer: str, rank: int = 2, inputs: int = 24, outputs: int = 24) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A.weight": torch.ones(rank, inputs), f"{layer}.lora_B.weight": torch.ones(outputs, rank)}


def write_invalid(folder: Path, kind: str) -> Path:
    """Write an invalid file of the given kind and return its path."""
    valid = write(folder / "good.safetensors", spelled("comfyui", random_changes()))
    path = folder / f"{kind}.safetensors"
    valid_bytes = valid.read_bytes()
    contents = {"truncated": valid_bytes[:-100], "cut in its header": valid_bytes[:50], "empty": b"", "text": b"<html>not found</html>"}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "pickle":
        path = folder / "lora.pt"
        torch.save({"a": torch.ones(1)}, path)
    elif kind == "pickle under another name":
        torch.save({"a": torch.ones(1)}, path)
    elif kind == "old pickle":
        path = folder / "lora.ckpt"
        path.write_bytes(b"\x80\x02}q\x00.")
    elif kind == "checkpoint":
        write(path, {"blocks.0.self_attn.q.weight": torch.ones(2, 2)})
    elif kind == "LoKr":
        write(path, {"lycoris_blocks_0_attn1_to_q.lokr_w1": torch.ones(2, 2)})
    elif kind == "DoRA":
        write(path, pair("transformer.blocks.0.attn1.to_q") | {"transformer.blocks.0.attn1.to_q.dora_scale": torch.ones(2)})
    elif kind == "half a pair":
        write(path, pair("blocks.0.attn1.to_q") | {"blocks.0.attn1.to_k.lora_A.weight": torch.ones(2, 24)})
    elif kind == "two ranks":
        write(path, {"blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 24), "blocks.0.attn1.to_q.lora_B.weight": torch.ones(24, 3)})
    elif kind == "not a number":
        write(path, {key: tensor * torch.nan for key, tensor in pair("blocks.0.attn1.to_q").items()})
    elif kind == "no alpha":
        write(path, pair("blocks.0.attn1.to_q") | {"blocks.0.attn1.to_q.alpha": torch.ones(3)})
    elif kind == "endless alpha":
        write(path, pair("blocks.0.attn1.to_q") | {"blocks.0.attn1.to_q.alpha": torch.tensor(torch.inf)})
    elif kind == "odd settings":
        write(path, pair("transformer.blocks.0.attn1.to_q"), lora_adapter_metadata="[1]")
    elif kind == "odd patterns":
        write(path, pair("transformer.blocks.0.attn1.to_q"), lora_adapter_metadata='{"transformer.alpha_pattern": [1]}')
    elif kind == "no matrices":
        write(path, {f"blocks.0.attn1.to_q.{part}.weight": torch.ones(3) for part in ("lora_A", "lora_B")})
    elif kind == "two adapters":
        write(path, pair("blocks.0.attn1.to_q") | {"blocks.0.attn1.to_q.lora_A.other.weight": torch.ones(2, 24)})
    elif kind == "no file":
        path = folder / "missing.safetensors"
    elif kind == "folder":
        path = folder
    return path


HEADER_ERRORS = {
    "truncated": "download", "cut in its header": "download", "empty": "download", "text": "download", "pickle": r"\.safetensors file",
    "pickle under another name": r"\.safetensors file", "old pickle": r"\.safetensors file", "checkpoint": "no LoRA pairs",
    "LoKr": "LoKr", "DoRA": "DoRA", "no file": "no such file", "folder": "no such file",
}  # fmt: skip
CONTENT_ERRORS = {
    "half a pair": "one matrix",
    "two ranks": "2 and 3",
    "not a number": "finite",
    "no alpha": "alpha",
    "endless alpha": "alpha",
    "odd settings": "settings",
    "odd patterns": "alpha",
    "no matrices": "not matrices",
    "two adapters": "two LoRAs",
}


@pytest.mark.parametrize(("kind", "words"), [*HEADER_ERRORS.items(), *CONTENT_ERRORS.items()])
def test_invalid_files_give_errors_of_one_line(tmp_path: Path, kind: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as error:
        read_lora(write_invalid(tmp_path, kind))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", HEADER_ERRORS)
def test_command_exits_with_2(tmp_path: Path, kind: str) -> None:
    result = CliRunner().invoke(app, ["import", str(write_invalid(tmp_path, kind))])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: ")


def test_header_that_starts_like_a_pickle_is_accepted(tmp_path: Path) -> None:
    """A header of 640 bytes starts with the first bytes of a pickle."""
    tensors = pair("blocks.0.attn1.to_q")
    for extra in range(640):
        path = write(tmp_path / "a.safetensors", tensors, note="x" * extra)
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert read_header(path).layout == "bare"


@pytest.mark.parametrize(
    ("key", "shape", "words"), [("diff", (24, 25), "is 24x25 in the file and 24x24"), ("diff_b", (25,), "is 25 in the file and 24 in")]
)
def test_shapes_of_full_differences_are_checked(tmp_path: Path, key: str, shape: tuple[int, ...], words: str) -> None:
    layer = "diffusion_model.blocks.0.self_attn.q"
    path = write(tmp_path / "a.safetensors", pair(layer) | {f"{layer}.{key}": torch.ones(shape)})
    with pytest.raises(ModelError, match=words):
        match_layers(read_lora(path), image_to_video_transformer(), "wan")


@pytest.mark.parametrize("read", [read_lora, read_lora_shapes])
def test_error_for_another_base_states_the_sizes(tmp_path: Path, read: Callable[[Path], LoraFile]) -> None:
    path = write(tmp_path / "a.safetensors", pair("diffusion_model.blocks.0.self_attn.q", inputs=1536, outputs=1536))
    with pytest.raises(ModelError, match=r"another base than wan: .* is 1536x1536 in the file and 24x24 in the model; 1 of 1 .*Wan 1\.3B"):
        match_layers(read(path), image_to_video_transformer(), "wan")


def test_lora_for_another_base_is_rejected_before_the_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check uses only headers and the model's configuration."""
    for name in ("from_pretrained", "load_state_dict"):
        monkeypatch.setattr(WanTransformer3DModel, name, lambda *_, **__: pytest.fail("weights were read"))
    path = write(tmp_path / "a.safetensors", pair("diffusion_model.blocks.0.self_attn.q", inputs=1536, outputs=1536))
    with pytest.raises(ModelError, match="another base than tiny"):
        check_extra_loras([(path, 1.0)], "tiny")
    other = write(tmp_path / "b.safetensors", pair("lora_unet_down_blocks_0_attentions_0_proj_in"))
    with pytest.raises(ModelError, match="none of its 1 layers is in tiny"):
        check_extra_loras([(other, 1.0)], "tiny")
    with pytest.raises(ModelError, match=r"is 1536x1536 in the file and 5120x5120 in the model"):
        check_extra_loras([(path, 1.0)], "wan2.1-i2v-480p")
    check_extra_loras([(path, 1.0)], "wan2.1-fun-1.3b")
    assert check_extra_loras([], "tiny") == []


def test_meta_transformer_equals_the_embedded_model() -> None:
    transformer, family = load_meta_transformer("tiny"), load_family("tiny", torch.device("cpu"), torch.float32)
    assert transformer is not None
    assert collect_linear_sizes(transformer) == collect_linear_sizes(family.transformer)
    assert collect_parameter_shapes(transformer) == collect_parameter_shapes(family.transformer)


def test_layer_under_two_names_is_rejected(tmp_path: Path) -> None:
    tensors = pair("diffusion_model.blocks.0.self_attn.q") | pair("transformer.blocks.0.attn1.to_q")
    with pytest.raises(ModelError, match=r"two LoRAs for blocks\.0\.attn1\.to_q"):
        match_layers(read_lora(write(tmp_path / "a.safetensors", tensors)), image_to_video_transformer(), "wan")


def test_error_names_the_other_model(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", pair("lora_unet_down_blocks_0_attentions_0_proj_in"))
    with pytest.raises(ModelError, match="none of its 1 layers is in wan; it seems to be for Stable Diffusion or SDXL"):
        match_layers(read_lora(path), image_to_video_transformer(), "wan")
