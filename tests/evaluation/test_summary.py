"""All metrics of a result that need no weights."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import torch

from evaluation.pictures import box, still
from lora_edit.errors import MaskError, VideoError
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.evaluation.summary import evaluate
from lora_edit.types import EditMask, Video

KEYS = ["num_frames", "size", "fps", "region_psnr", "region_ssim", "background_psnr", "background_ssim", "flicker"]


def video(frames: torch.Tensor) -> Video:
    return Video(frames, Fraction(24000, 1001), tuple(i * 1001 / 24000 for i in range(len(frames))))


@pytest.fixture
def source() -> Video:
    return video(still())


@pytest.fixture
def mask(source: Video) -> EditMask:
    return EditMask(box(source.frames))


@pytest.fixture
def edited(source: Video, mask: EditMask) -> Video:
    """The source, 16 levels lighter in the region."""
    frames = source.frames.clone()
    frames[mask.frames] += 16
    return video(frames)


def test_exact_background_is_null_and_flagged(source: Video, mask: EditMask, edited: Video) -> None:
    record = evaluate(MetricInputs(edited, source, mask=mask)).to_json()
    assert list(record) == [*KEYS, "background_exact"]
    assert (record["num_frames"], record["size"], record["fps"]) == (3, "64x48", 23.976)
    assert record["region_psnr"] == pytest.approx(24.0485, abs=1e-4)
    assert record["background_psnr"] is None
    assert record["background_exact"] is True
    assert record["background_ssim"] == pytest.approx(1, abs=0.05)
    json.dumps(record, allow_nan=False)


def test_region_uses_truth_and_background_uses_source(source: Video, mask: EditMask, edited: Video) -> None:
    result = video(edited.frames + 1)
    evaluation = evaluate(MetricInputs(result, source, truth=edited, mask=mask))
    assert evaluation.values["region_psnr"] == pytest.approx(48.13, abs=0.01)
    assert evaluation.values["background_psnr"] == pytest.approx(48.13, abs=0.01)
    assert "background_exact" not in evaluation.to_json()


def test_region_is_whole_frame_without_mask(source: Video) -> None:
    record = evaluate(MetricInputs(source, source)).to_json()
    assert list(record) == KEYS
    assert (record["region_psnr"], record["region_ssim"]) == (None, 1.0)
    assert (record["background_psnr"], record["background_ssim"]) == (None, None)


def test_full_mask_has_no_background(source: Video) -> None:
    everything = EditMask(torch.ones(3, 48, 64, dtype=torch.bool))
    assert evaluate(MetricInputs(source, source, mask=everything)).values["background_psnr"] is None


def test_leak_needs_mask_and_first_frame(source: Video, mask: EditMask) -> None:
    frames = source.frames.clone()
    frames[mask.frames] = torch.tensor([200, 0, 0], dtype=torch.uint8)
    edited = video(frames)
    assert evaluate(MetricInputs(edited, source, mask=mask, first_frame=edited.frames[0])).to_json()["leak"] == 0
    without_mask = evaluate(MetricInputs(edited, source, first_frame=edited.frames[0]))
    assert without_mask.values["leak"] is None and "leak" not in without_mask.to_json()
    mask.frames[0] = False
    assert evaluate(MetricInputs(edited, source, mask=mask, first_frame=edited.frames[0])).values["leak"] is None


def test_single_frame_has_no_flicker(source: Video) -> None:
    single_frame = video(source.frames[:1])
    assert evaluate(MetricInputs(single_frame, single_frame)).to_json()["flicker"] is None


def test_mismatched_inputs_raise(source: Video) -> None:
    with pytest.raises(VideoError, match="the source has 2 frames of 64x48; give"):
        MetricInputs(source, video(source.frames[:2]))
    with pytest.raises(VideoError, match="the truth has 3 frames of 32x48; give"):
        MetricInputs(source, source, truth=video(source.frames[:, :, :32]))
    with pytest.raises(MaskError, match="no pixel"):
        MetricInputs(source, source, mask=EditMask(torch.zeros(3, 48, 64, dtype=torch.bool)))
    with pytest.raises(MaskError, match="2 frames"):
        MetricInputs(source, source, mask=EditMask(torch.ones(2, 48, 64, dtype=torch.bool)))
