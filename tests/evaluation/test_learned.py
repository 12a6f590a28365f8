"""The metrics behind networks, by name, with stand-ins that are tiny."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from evaluation.pictures import box, still
from lora_edit.errors import ModelError, SettingsError, VideoError
from lora_edit.evaluation.learned_metrics import LEARNED_METRICS, Networks, load_networks, measure_learned_metrics
from lora_edit.evaluation.lpips import Lpips
from lora_edit.types import EditMask, Video


def video(frames: torch.Tensor) -> Video:
    return Video(frames, Fraction(25), tuple(i / 25 for i in range(len(frames))))


@pytest.fixture(scope="module")
def networks() -> Networks:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=8, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip, perceptual = CLIPVisionModelWithProjection(config).eval(), Lpips().eval()
    return Networks(clip, lambda pictures: [3.0] * len(pictures), perceptual)


def test_all_four_and_the_background(networks: Networks) -> None:
    source = video(still())
    mask = EditMask(box(source.frames))
    frames = source.frames.clone()
    frames[mask.frames] = 255 - frames[mask.frames]
    result = video(frames)
    found = measure_learned_metrics(networks, LEARNED_METRICS, result, source, result, mask, frames[0])
    assert list(found) == ["clip_score", "input_similarity", "deqa", "lpips", "background_lpips"]
    assert (found["clip_score"], found["deqa"], found["lpips"]) == (1, 3, 0)
    assert found["input_similarity"] < 1
    assert found["background_lpips"] > 0  # places at the region's edge see the edit
    against_source = measure_learned_metrics(networks, ["lpips"], result, source, None, mask)
    assert against_source["lpips"] > against_source["background_lpips"]


def test_nothing_is_loaded_that_was_not_asked_for() -> None:
    assert load_networks(["region_psnr", "flicker"]) == Networks()
    assert measure_learned_metrics(Networks(), [], video(still()), video(still())) == {}


def test_a_missing_network_is_told(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match="lpips needs it"):
        load_networks(["lpips"], "cpu")


def test_what_is_missing_or_does_not_fit_is_refused(networks: Networks) -> None:
    with pytest.raises(SettingsError, match="--first-frame"):
        measure_learned_metrics(networks, ["clip_score"], video(still()), video(still()))
    with pytest.raises(VideoError, match="source"):
        measure_learned_metrics(networks, ["input_similarity"], video(still(3)), video(still(2)))
