"""CLIP similarities: arithmetic on given vectors, preprocessing against transformers' own, and a tiny random CLIP."""

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


def test_mean_cosine_similarity() -> None:
    first = torch.tensor([[1.0, 0.0]])
    result = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    assert clip_score(result, first) == pytest.approx((1 + 0 + 0.6 - 1) / 4)
    assert input_similarity(result, result) == pytest.approx(1)
    assert input_similarity(result, result.flip(0)) == pytest.approx((-1 + 0.8 + 0.8 - 1) / 4)


@pytest.mark.parametrize(("height", "width"), [(48, 83), (83, 48), (300, 224), (225, 225)])
def test_preprocessing_matches_transformers(height: int, width: int) -> None:
    frame = texture(height, width)
    expected = CLIPImageProcessorPil()(frame.numpy(), return_tensors="pt")["pixel_values"]
    pixels = preprocess_frames(frame[None], 224)
    assert pixels.shape == (1, 3, 224, 224)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


def test_white_is_normalised() -> None:
    white = preprocess_frames(torch.full((1, 40, 60, 3), 255, dtype=torch.uint8), 32)
    expected = [(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    assert white[0, :, 5, 5].tolist() == pytest.approx(expected, abs=1e-5)


def test_embeddings_are_normalised(model: Any) -> None:
    frames = torch.cat([still(18, seed=1), still(2, seed=2)])
    embeddings = embed_frames(model, frames)
    assert embeddings.shape == (20, 8)
    assert embeddings.norm(dim=1).tolist() == pytest.approx([1] * 20, abs=1e-5)
    assert input_similarity(embeddings, embed_frames(model, frames)) == pytest.approx(1, abs=1e-5)
    assert clip_score(embeddings[:18], embed_frames(model, frames[:1])) == pytest.approx(1, abs=1e-5)
    assert clip_score(embeddings, embed_frames(model, frames[:1])) < 0.9999


def test_full_clip_checkpoint_loads(tmp_path: Path) -> None:
    """The checkpoint has both encoders of CLIP; the embeddings equal those that the full model compares with text."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=sizes, vision_config=sizes | {"image_size": 32, "patch_size": 16}, projection_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        full_model = CLIPModel(config).eval()
    full_model.save_pretrained(tmp_path)
    frames = still(2)
    with torch.no_grad():
        expected = full_model(input_ids=torch.tensor([[1, 2]]), pixel_values=preprocess_frames(frames, 32)).image_embeds
    torch.testing.assert_close(embed_frames(load_clip_model(torch.device("cpu"), str(tmp_path)), frames), expected, rtol=0, atol=1e-5)


def test_missing_checkpoint_error_has_download_command() -> None:
    with pytest.raises(ModelError, match=r"`hf download nobody/nothing config\.json model\.safetensors`") as caught:
        load_clip_model(torch.device("cpu"), "nobody/nothing")
    assert "\n" not in str(caught.value)
