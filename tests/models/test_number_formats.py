"""Checkpoints are loaded in the requested number format, without a deprecation warning."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny_hunyuan
import tiny_replace
import tiny_wan
from lora_edit.models.families.hunyuan import loading as hunyuan_loading
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.families.vace.loading import load_vace
from lora_edit.models.families.wan import loading
from lora_edit.models.family import load_family
from lora_edit.models.image_editors.pipeline import load_editor
from lora_edit.models.image_editors.registry import EDITORS, ImageEditor
from lora_edit.models.runtime.lazy_module import to_lazy_module
from lora_edit.models.runtime.precision import is_kept_in_fp32
from source_tree import PACKAGE
from tiny_editors import save_tiny_editor
from tiny_vace import save_tiny_vace

CPU = torch.device("cpu")
FACTS = {record.name: record for record in KNOWN_MODELS}
FORMATS = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Turn deprecated arguments into errors, whichever frame the warning names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*dtype.*")
        yield


def formats(part: Any, *, narrow: bool = False) -> set[torch.dtype]:
    """Of all floating parameters, read now if they were not; with `narrow`, of those that the class does not keep in float32."""
    module = to_lazy_module(part).load_module()
    named = [(name, each) for name, each in module.named_parameters() if each.is_floating_point()]
    return {each.dtype for name, each in named if not (narrow and is_kept_in_fp32(module, name))}


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("name", ["wan2.1-i2v-480p", "wan2.2-i2v-a14b", "wan2.2-ti2v-5b", "ltx-video"])
def test_a_folders_parts(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Transformers and text encoder as asked, but for what the class keeps in float32; autoencoder and image encoder in float32."""
    maker: Any = tiny_wan if name in tiny_wan.WANS else tiny_replace
    record = maker.save_tiny(FACTS[name], tmp_path)
    kinds = {} if name != "ltx-video" else {"classes": loading.ComponentClasses("AutoencoderKLLTXVideo", "T5EncoderModel")}
    parts = loading.load_components(record, str(tmp_path), CPU, dtype, **kinds)
    for transformer in parts.transformers:
        assert formats(transformer, narrow=True) == {dtype}
        kept = {each.dtype for key, each in transformer.named_parameters() if is_kept_in_fp32(transformer, key)}
        assert kept <= {torch.float32}
    # transformers keeps a part of T5 in float32 beside float16.
    assert formats(parts.text_encoder) <= ({dtype, torch.float32} if dtype == torch.float16 else {dtype})
    assert dtype in formats(parts.text_encoder)
    assert formats(parts.vae) == {torch.float32}
    assert parts.image_encoder is None or formats(parts.image_encoder) == {torch.float32}


@pytest.mark.parametrize("name", ["hunyuan-i2v", "hunyuan-1.5-i2v"])
def test_the_other_familys_parts(name: str, tmp_path: Path) -> None:
    record = tiny_hunyuan.save_tiny(FACTS[name], tmp_path)
    parts = hunyuan_loading.load_components(record, str(tmp_path), torch.bfloat16)
    assert formats(parts.transformer, narrow=True) == formats(parts.text_encoder) == {torch.bfloat16}
    assert formats(parts.text_encoder_2) == {torch.bfloat16} and formats(parts.vae) == {torch.float32}
    assert parts.image_encoder is None or formats(parts.image_encoder) == {torch.bfloat16}


@pytest.mark.parametrize("editor", EDITORS, ids=lambda each: each.name)
def test_an_editors_parts(editor: ImageEditor, tmp_path: Path) -> None:
    pipeline = load_editor(editor, save_tiny_editor(editor.name, tmp_path), [], CPU, torch.bfloat16)
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    assert {"transformer", "vae", "text_encoder"} <= set(modules)
    assert {name: formats(part, narrow=True) for name, part in modules.items()} == {key: {torch.bfloat16} for key in modules}


def test_the_embedded_model_is_kept_in_half_precision_and_computes_in_full() -> None:
    family: Any = load_family("tiny", CPU, torch.float32)
    assert formats(family.transformer) == {torch.float32}


def test_vace_is_read_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    family = load_vace(save_tiny_vace(tmp_path), str(tmp_path), CPU, torch.bfloat16)
    assert formats(family.transformer, narrow=True) == {torch.bfloat16} and "float32" not in caplog.text


def test_no_call_uses_the_old_name() -> None:
    """Which diffusers drops with its 1.0."""
    for file in PACKAGE.rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call))
        assert not [file for call in calls for keyword in call.keywords if keyword.arg == "torch_dtype"]
