"""CLIP similarities: the arithmetic on given vectors, the preparation against transformers' own, the rest with a tiny random CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from evaluation.pictures import still, texture
from lora_edit.errors import ModelError
from lora_edit.evaluation.clip_score import MEAN, STD, clip_score, embed_frames, input_similarity, load_clip_model, preprocess_frames


@pytest.fixture(scope="module")
def model() -> Any:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=8, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIPVisionModelWithProjection(config).eval()


def test_the_arithmetic() -> None:
    first = torch.tensor([[1.0, 0.0]])
    result = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    assert clip_score(result, first) == pytest.approx((1 + 0 + 0.6 - 1) / 4)
    assert input_similarity(result, result) == pytest.approx(1)
    assert input_similarity(result, result.flip(0)) == pytest.approx((-1 + 0.8 + 0.8 - 1) / 4)


@pytest.mark.parametrize(("height", "width"), [(48, 83), (83, 48), (300, 224), (225, 225)])
def test_pictures_are_prepared_as_clip_does(height: int, width: int) -> None:
    frame = texture(height, width)
    theirs = CLIPImageProcessorPil()(frame.numpy(), return_tensors="pt")["pixel_values"]
    ours = preprocess_frames(frame[None], 224)
    assert ours.shape == (1, 3, 224, 224)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_white_becomes_the_normalised_white() -> None:
    white = preprocess_frames(torch.full((1, 40, 60, 3), 255, dtype=torch.uint8), 32)
    expected = [(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    assert white[0, :, 5, 5].tolist() == pytest.approx(expected, abs=1e-5)


def test_embeddings_have_length_one_and_equal_pictures_score_one(model: Any) -> None:
    frames = torch.cat([still(18, seed=1), still(2, seed=2)])
    found = embed_frames(model, frames)
    assert found.shape == (20, 8)
    assert found.norm(dim=1).tolist() == pytest.approx([1] * 20, abs=1e-5)
    assert input_similarity(found, embed_frames(model, frames)) == pytest.approx(1, abs=1e-5)
    assert clip_score(found[:18], embed_frames(model, frames[:1])) == pytest.approx(1, abs=1e-5)
    assert clip_score(found, embed_frames(model, frames[:1])) < 0.9999


def test_the_published_kind_of_checkpoint_is_read(tmp_path: Path) -> None:
    """It holds both halves of CLIP; the embeddings are those that the whole model compares with text."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=sizes, vision_config=sizes | {"image_size": 32, "patch_size": 16}, projection_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    frames = still(2)
    with torch.no_grad():
        expected = whole(input_ids=torch.tensor([[1, 2]]), pixel_values=preprocess_frames(frames, 32)).image_embeds
    torch.testing.assert_close(embed_frames(load_clip_model(torch.device("cpu"), str(tmp_path)), frames), expected, rtol=0, atol=1e-5)


def test_a_missing_checkpoint_is_named_with_its_command() -> None:
    with pytest.raises(ModelError, match=r"`hf download nobody/nothing config\.json model\.safetensors`") as caught:
        load_clip_model(torch.device("cpu"), "nobody/nothing")
    assert "\n" not in str(caught.value)
