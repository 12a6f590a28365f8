"""A transformer from a GGUF file: every layer's dequantized weights; with a LoRA that was trained on the exact ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit import pipeline
from lora_edit.config import resolve_settings
from lora_edit.errors import ModelError
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.wan.loading import build_wan, load_components
from lora_edit.models.runtime.precision import is_gguf_parameter
from lora_edit.reporting import SilentReporter
from lora_edit.training.lora import add_lora
from lora_edit.training.settings import LoraSettings
from lora_edit.video.png_frames import save_frames
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from single_files import original_transformer, save_comfyui
from tiny_wan import WANS

gguf = pytest.importorskip("gguf", reason="an optional package")
CPU = torch.device("cpu")
WIDE = {"num_attention_heads": 4, "attention_head_dim": 16, "ffn_dim": 64, "text_dim": 32, "freq_dim": 32}
"""GGUF packs 32 weights of a row together."""


def write_gguf(state: dict[str, torch.Tensor], file: Path, packed: bool = True) -> dict[str, torch.Tensor]:
    """As city96's files: matrices in 8 bits, the rest in half or full precision, five dimensions flattened to one row per channel.

    Returns what the tensors are worth.
    """
    writer = gguf.GGUFWriter(file, "wan")
    worth = {}
    for name, tensor in state.items():
        data = tensor.numpy()
        kind = gguf.GGMLQuantizationType.F32
        if packed and tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
        elif packed and name.endswith("modulation"):
            kind = gguf.GGMLQuantizationType.BF16
        if data.ndim == 5:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(size) for size in data.shape])
            data = data.reshape(len(data), -1, 1, 1)
        stored = gguf.quantize(data, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
        worth[name] = torch.from_numpy(gguf.dequantize(stored, kind).copy()).reshape(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return worth


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that GGUF can pack."""
    import tiny_wan

    plain = tiny_wan.tiny_config
    for module in ("tiny_wan", "single_files"):
        monkeypatch.setattr(f"{module}.tiny_config", lambda record: plain(record) | WIDE | {"added_kv_proj_dim": 64})
    monkeypatch.setattr(tiny_wan, "WIDTH", 32)


def answer(transformer: Any) -> torch.Tensor:
    """Return the transformer's output for one fixed input."""
    generator = torch.Generator().manual_seed(0)
    noisy, text, image = (torch.randn(shape, generator=generator) for shape in ((1, 36, 2, 4, 4), (1, 512, 32), (1, 5, 32)))
    with torch.no_grad():
        out: torch.Tensor = transformer(noisy, torch.tensor([500.0]), text, encoder_hidden_states_image=image, return_dict=False)[0]
    return out


@pytest.mark.usefixtures("wide")
def test_a_gguf_file_equals_its_dequantized_weights(tmp_path: Path) -> None:
    """As close to the exact model as the weights are, and equal to a model with the dequantized weights; with a LoRA too."""
    record, parts, (file,) = save_comfyui(WANS["wan2.1-i2v-480p"], tmp_path)
    exact = parts.transformers[0]
    packed = file.with_suffix(".gguf")
    worth = write_gguf(original_transformer(exact), packed)
    loaded = load_components(record, str(packed), CPU, torch.float32)
    family = build_wan(loaded, record, CPU, torch.float32)
    own = loaded.transformers[0]
    assert sum(is_gguf_parameter(parameter) for parameter in own.parameters()) >= 10
    assert not is_gguf_parameter(own.patch_embedding.weight) and own.patch_embedding.weight.shape == exact.patch_embedding.weight.shape
    assert not is_gguf_parameter(own.blocks[0].scale_shift_table)
    assert own.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32, "belongs in float32"
    given = answer(exact)
    with torch.no_grad():
        for name, parameter in zip(original_transformer(exact), exact.parameters(), strict=True):
            parameter.copy_(worth[name])
    torch.testing.assert_close(answer(own), answer(exact), atol=2e-3, rtol=0)
    assert not torch.equal(answer(own), given)
    expert = family.experts()[0]
    parameters = add_lora(expert, LoraSettings(rank=2), 0)
    before = answer(own)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.05)
    assert all(parameter.dtype == torch.float32 for parameter in parameters.values())
    assert not torch.equal(answer(own), before) and family.fingerprint()


@pytest.mark.usefixtures("wide")
def test_a_run_trained_on_exact_weights_generates_from_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its LoRA unchanged; both results are in the run."""
    record, parts, (file,) = save_comfyui(WANS["wan2.1-i2v-480p"], tmp_path / "models")
    monkeypatch.setattr(locate, "KNOWN_MODELS", (record,))
    packed = file.with_suffix(".gguf")
    write_gguf(original_transformer(parts.transformers[0]), packed)
    frames = torch.randint(0, 256, (5, 32, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    save_frames(tmp_path / "clip", frames)
    save_image(tmp_path / "first.png", 255 - frames[0])
    given = {
        "source": str(tmp_path / "clip"),
        "first_frame": str(tmp_path / "first.png"),
        "boxes": [{"x": 8, "y": 8, "width": 16, "height": 16}],
    }
    quick = ("training.motion_steps=2", "lora.rank=2", "generation.steps=2", "video.codec=ffv1", "compositing.enabled=false")
    quick += ("masks.check=false",)  # The edit inverts the whole frame.
    settings = resolve_settings({"input": given, "model": f"{record.name}@{file}"}, quick)
    exact = pipeline.edit(settings, tmp_path / "out.mkv", tmp_path / "run", SilentReporter())
    other = pipeline.generate(tmp_path / "run", SilentReporter(), tmp_path / "other.mkv", model=f"{record.name}@{packed}")
    assert other.seconds["train"] == exact.seconds["train"], "nothing is trained again"
    a, b = (read_video(result.output).frames.float() for result in (exact, other))
    assert not torch.equal(a, b) and (a - b).abs().mean() < 2


@pytest.mark.usefixtures("wide")
def test_another_model_s_gguf_is_refused(tmp_path: Path) -> None:
    """By its tensors' names and sizes, before any is loaded."""
    record, parts, (file,) = save_comfyui(WANS["wan2.1-i2v-480p"], tmp_path)
    packed, state = file.with_suffix(".gguf"), original_transformer(parts.transformers[0])
    faults = {
        "ref_conv.weight is unknown": state | {"ref_conv.weight": torch.zeros(32)},
        "patch_embedding.weight is": state | {"patch_embedding.weight": torch.zeros(64, 16, 1, 2, 2)},
        "1 tensors are missing, such as proj_out.bias": {name: value for name, value in state.items() if name != "head.head.bias"},
    }
    for fault, other in faults.items():
        packed.unlink(missing_ok=True)
        write_gguf(other, packed, packed=False)
        with pytest.raises(ModelError, match=r"is not this model \(.*" + fault.replace(".", r"\.")):
            load_components(record, str(packed), CPU, torch.float32)
