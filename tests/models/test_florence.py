"""The captioner through its real classes: a checkpoint's files to words, offline, without torchvision."""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Florence2ForConditionalGeneration

from lora_edit.errors import ModelError
from lora_edit.models.florence import caption_frames, has_captioner
from tiny_florence import COLOURS, plain_frame

CPU = torch.device("cpu")


def describe(frames: list[torch.Tensor], source: Path | str) -> list[str]:
    """On the CPU in float32."""
    return caption_frames(frames, str(source), CPU, torch.float32)


def test_captions_have_no_prefix(captioner: Path) -> None:
    """The colour is seen; "The image shows " is cut off; any size and shape of frame will do."""
    assert importlib.util.find_spec("torchvision") is None, "this has to work without it"
    frames = [plain_frame(colour, height, width) for colour, (height, width) in zip(COLOURS, [(24, 40), (90, 16), (480, 832)], strict=True)]
    assert describe(frames, captioner) == ["a red coat", "a green coat", "a blue coat"]


def test_decoding_is_the_references(captioner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detailed-caption task, three beams, 1024 tokens at most, nothing drawn at random."""
    asked: list[dict[str, Any]] = []
    generate = Florence2ForConditionalGeneration.generate

    def spy(model: Any, **given: Any) -> Any:
        asked.append(given)
        return generate(model, **given)

    monkeypatch.setattr(Florence2ForConditionalGeneration, "generate", spy)
    describe([plain_frame("red")], captioner)
    assert (asked[0]["num_beams"], asked[0]["max_new_tokens"], asked[0]["do_sample"]) == (3, 1024, False)
    vocabulary = json.loads((captioner / "tokenizer.json").read_text())["model"]["vocab"]
    words = [vocabulary[word] for word in ["Describe", "in", "detail", "what", "is", "shown", "in", "the", "image."]]
    assert asked[0]["input_ids"][0].tolist() == [4, 4, 0, *words, 2]


@pytest.mark.parametrize("kind", ["CLIPImageProcessor", "CLIPImageProcessorFast"])
def test_older_layouts_of_the_processor_are_read(captioner: Path, tmp_path: Path, kind: str) -> None:
    """As the Hub's repositories keep it: a file of its own, perhaps named after torchvision's class."""
    folder = Path(shutil.copytree(captioner, tmp_path / "copy"))
    config = json.loads((folder / "processor_config.json").read_text())
    pictures = config.pop("image_processor") | {"image_processor_type": kind}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "processor_config.json").write_text(json.dumps(config))
    assert describe([plain_frame("blue")], folder) == ["a blue coat"]


def test_the_captioner_is_freed(captioner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The edit's own model needs the room."""
    models: list[weakref.ref[Any]] = []
    load = Florence2ForConditionalGeneration.from_pretrained

    def spy(*given: Any, **named: Any) -> Any:
        loaded = load(*given, **named)
        models.append(weakref.ref(loaded[0]))
        return loaded

    monkeypatch.setattr(Florence2ForConditionalGeneration, "from_pretrained", spy)
    gc.disable()
    try:
        describe([plain_frame("red")], captioner)
        assert [model() for model in models] == [None]
    finally:
        gc.enable()


def test_an_incomplete_captioner_is_refused(captioner: Path, tmp_path: Path) -> None:
    """Missing, cut short, or in Microsoft's own layout, whose names would leave weights at random; each in one line with a remedy."""
    frames = [plain_frame("red")]
    assert has_captioner(str(captioner)) and not has_captioner("no/such") and not has_captioner(str(tmp_path))
    with pytest.raises(ModelError, match="hf download no/such"):
        describe(frames, "no/such")
    broken = Path(shutil.copytree(captioner, tmp_path / "broken"))
    weights = load_file(captioner / "model.safetensors")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ModelError, match="is incomplete; download the folder again"):
        describe(frames, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="is incomplete"):
        describe(frames, broken)
    renamed = {name.replace("vision_tower", "vision"): tensor for name, tensor in weights.items()}
    save_file(renamed, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="transformers' own layout"):
        describe(frames, broken)
    config = json.loads((broken / "config.json").read_text()) | {"model_type": "clip"}
    (broken / "config.json").write_text(json.dumps(config))
    assert not has_captioner(str(broken))
