"""Sources of every kind come back as they were: what a file says beside its pixels, its clock, its sound, and the pixels outside an edit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from lora_edit.errors import VideoError
from lora_edit.evaluation.psnr import psnr
from lora_edit.types import Size, Video
from lora_edit.video.colors import array_to_frame
from lora_edit.video.endings import is_cut_off
from lora_edit.video.read import probe, read_video
from lora_edit.video.settings import VideoSettings
from lora_edit.video.write import output_notes, write_video
from video.clips import make_clip, mean_error
from video.sources import (
    click_times,
    clicks,
    pictures,
    plain,
    remux,
    repaint,
    shorten_edit,
    turn_in_header,
    write_source,
)

FEW = 6


def edited(source: Path, output: Path) -> tuple[Video, Video]:
    """The source, and its edit as written and read back."""
    video = read_video(source)
    write_video(output, repaint(video), like=video, overwrite=True)
    return video, read_video(output)


def background_psnr(video: Video, result: Video) -> float:
    """Of everything 8 pixels or more away from the edit; decoders smear colours over its border."""
    outside = torch.ones(video.frames.shape[:3], dtype=torch.bool)
    outside[:, 12:68, 12:88] = False
    return psnr(result.frames, video.frames, outside)


class TestFacts:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
    def test_pixel_aspect(self, tmp_path: Path, name: str) -> None:
        def anamorphic(stream: av.VideoStream) -> None:
            stream.codec_context.sample_aspect_ratio = Fraction(64, 45)

        source = write_source(tmp_path / f"source{name[1:]}", pictures(FEW), prepare=anamorphic)
        video, result = edited(source, tmp_path / name)
        assert video.pixel_aspect == result.pixel_aspect == Fraction(64, 45)
        assert "pixel aspect" in output_notes(tmp_path / "a.webm", video)[0]
        if name == "a.mp4":
            video, result = edited(turn_in_header(source, (0, 1, -1, 0)), tmp_path / "turned.mp4")
            assert video.pixel_aspect == result.pixel_aspect == Fraction(45, 64)

    @pytest.mark.parametrize(("order", "code"), [("top", 2), ("bottom", 3)])
    def test_fields(self, tmp_path: Path, order: str, code: int) -> None:
        def interlaced(stream: av.VideoStream) -> None:
            stream.codec_context.field_order = code

        options = {"flags": "+ildct+ilme", "x264-params": f"{order[0]}ff=1"}
        source = write_source(tmp_path / "fields.ts", pictures(FEW), options=options, prepare=interlaced)
        video, result = edited(source, tmp_path / "a.mp4")
        assert (video.field_order, result.field_order) == (order, order)
        assert any("interlaced" in note for note in video.notes)

    def test_colour_tags(self, tmp_path: Path) -> None:
        def wide(stream: av.VideoStream) -> None:
            context = stream.codec_context
            context.colorspace, context.color_primaries, context.color_trc = 9, 9, 14

        source = write_source(tmp_path / "source.mp4", [], prepare=wide, frames_of=pictures(FEW)) if False else write_source(
            tmp_path / "source.mp4", pictures(FEW), prepare=wide
        )
        video, result = edited(source, tmp_path / "a.mp4")
        assert video.tags == result.tags and (video.tags.primaries, video.tags.transfer) == (9, 14)
