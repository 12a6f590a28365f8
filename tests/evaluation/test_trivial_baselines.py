"""The two trivial results and their scores."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from evaluation.pictures import still, texture
from lora_edit.errors import VideoError
from lora_edit.evaluation.flicker import flicker
from lora_edit.evaluation.psnr import psnr
from lora_edit.evaluation.trivial_baselines import build_trivial_baselines
from lora_edit.types import Video


def test_baselines_keep_times_and_have_known_scores() -> None:
    frames = still(4) + torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    source = Video(frames, Fraction(25), (0.0, 0.04, 0.09, 0.12), alpha=torch.zeros(frames.shape[:3], dtype=torch.uint8), has_sound=True)
    first = texture(48, 64, seed=5)
    results = build_trivial_baselines(source, first)
    assert list(results) == ["unedited copy", "frozen first frame"]
    assert all((video.times, video.fps, video.has_sound, video.alpha) == (source.times, 25, False, None) for video in results.values())
    copy, frozen = results.values()
    assert psnr(copy.frames, source.frames) == float("inf")
    assert all(torch.equal(frame, first) for frame in frozen.frames)
    assert flicker(frozen.frames) == 0
    copy.frames[0] = 0
    assert source.frames[0].any()


def test_first_frame_of_another_size_raises() -> None:
    source = Video(still(2), Fraction(25), (0.0, 0.04))
    with pytest.raises(VideoError, match="edited first frame"):
        build_trivial_baselines(source, texture(32, 32))
