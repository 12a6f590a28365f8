"""The metrics that need learned weights, with tiny random networks."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from evaluation.pictures import box, still
from lora_edit.errors import ModelError, SettingsError, VideoError
from lora_edit.evaluation.learned_metrics import Networks, load_networks, measure_learned_metrics
from lora_edit.evaluation.lpips import Lpips
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.evaluation.registry import LEARNED_METRICS, METRICS
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
    return {
        METRICS["clip_score"].loader: clip,
        METRICS["deqa"].loader: lambda pictures: [3.0] * len(pictures),
        METRICS["lpips"].loader: perceptual,
    }


def test_all_learned_metrics_and_background_lpips(networks: Networks) -> None:
    source = video(still())
    mask = EditMask(box(source.frames))
    frames = source.frames.clone()
    frames[mask.frames] = 255 - frames[mask.frames]
    result = video(frames)
    values = measure_learned_metrics(networks, LEARNED_METRICS, MetricInputs(result, source, result, mask, frames[0]))
    assert list(values) == ["clip_score", "input_similarity", "deqa", "lpips", "background_lpips"]
    assert (values["clip_score"], values["deqa"], values["lpips"]) == (1, 3, 0)
    assert values["input_similarity"] < 1
    assert values["background_lpips"] > 0  # features at the edge of the region depend on the edit
    against_source = measure_learned_metrics(networks, ["lpips"], MetricInputs(result, source, None, mask))
    assert against_source["lpips"] > against_source["background_lpips"]


def test_only_requested_networks_are_loaded() -> None:
    assert load_networks(["region_psnr", "flicker"]) == {}
    assert measure_learned_metrics({}, [], MetricInputs(video(still()), video(still()))) == {}


def test_missing_network_raises(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match="lpips needs it"):
        load_networks(["lpips"], "cpu")


def test_missing_or_mismatched_inputs_raise(networks: Networks) -> None:
    with pytest.raises(SettingsError, match="--first-frame"):
        measure_learned_metrics(networks, ["clip_score"], MetricInputs(video(still()), video(still())))
    with pytest.raises(VideoError, match="source"):
        measure_learned_metrics(networks, ["input_similarity"], MetricInputs(video(still(3)), video(still(2))))
