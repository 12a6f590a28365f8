"""The watermark of a result: only pixels that compositing changed carry it, and the record says why it is not in."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from lora_edit.config import EditSettings, resolve_settings
from lora_edit.inputs import Clip
from lora_edit.provenance.watermark import MIN_MARKED_PIXELS, detect_watermark
from lora_edit.result_watermark import build_watermark_rows, mark_result
from lora_edit.types import EditMask, Video

SIDE = 128


def make_settings(*assignments: str) -> EditSettings:
    return resolve_settings({"input": {"source": "s", "first_frame": "f"}}, assignments)


def make_clip(margin: int = 14) -> Clip:
    """Four grey frames with a square region `margin` pixels from the border; frame 2 is an anchor."""
    frames = torch.full((4, SIDE, SIDE, 3), 120, dtype=torch.uint8)
    region = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    region[:, margin : SIDE - margin, margin : SIDE - margin] = True
    video = Video(frames, Fraction(8), tuple(i / 8 for i in range(4)))
    return Clip(video, EditMask(region), frames[0], {}, {2: frames[2]})


def make_result(clip: Clip) -> Video:
    """The clip with another grey in its region, but for one patch that equals the source."""
    frames = clip.video.frames.clone()
    frames[clip.edit_mask.frames] = 160
    frames[:, 40:60, 40:60] = 120
    return replace(clip.video, frames=frames)


def test_only_changed_pixels_are_marked_and_anchors_are_kept() -> None:
    clip = make_clip()
    result, unmarked = make_result(clip), make_result(clip).frames
    record = mark_result(clip, result, make_settings())
    assert record.embedded and record.pixels >= MIN_MARKED_PIXELS and not record.notes
    assert torch.equal(result.frames[~clip.edit_mask.frames], unmarked[~clip.edit_mask.frames])
    assert torch.equal(result.frames[:, 40:60, 40:60], unmarked[:, 40:60, 40:60]), "restored pixels are the source's"
    assert torch.equal(result.frames[2], unmarked[2]), "the anchor"
    assert all(not torch.equal(result.frames[n], unmarked[n]) for n in (0, 1, 3))
    assert detect_watermark(result.frames).found


@pytest.mark.parametrize(("margin", "assignments", "reason"), [(50, (), "too few"), (14, ("provenance.watermark=false",), "switched off")])
def test_the_record_says_why_there_is_none(margin: int, assignments: tuple[str, ...], reason: str) -> None:
    clip = make_clip(margin)
    result, unmarked = make_result(clip), make_result(clip).frames
    record = mark_result(clip, result, make_settings(*assignments))
    assert not record.embedded and reason in record.reason and torch.equal(result.frames, unmarked)
    assert build_watermark_rows(record.to_json()) == [("watermark", f"none: {record.reason}")]
    assert bool(record.notes) == (reason == "too few"), "only what the user did not ask for is remarked on"


def test_a_mark_that_is_not_found_again_stays_out() -> None:
    """Strong noise hides it."""
    clip = make_clip()
    noise = torch.randint(0, 256, (1, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    result = replace(clip.video, frames=noise.expand(4, -1, -1, -1).clone())
    record = mark_result(clip, result, make_settings("compositing.enabled=false"))
    assert not record.embedded and "not found again" in record.reason and record.notes
    assert torch.equal(result.frames, noise.expand(4, -1, -1, -1))


def test_without_compositing_the_whole_frame_counts() -> None:
    clip = make_clip()
    frames = clip.video.frames + 9
    record = mark_result(clip, replace(clip.video, frames=frames), make_settings("compositing.enabled=false"))
    assert record.embedded and record.pixels == SIDE * SIDE * 3 // 4
    assert build_watermark_rows(record.to_json())[0][1].startswith("in the edited region")
    assert build_watermark_rows({}) == []
