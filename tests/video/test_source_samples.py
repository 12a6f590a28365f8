"""Tests that unchanged pixels keep the samples of the source file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lora_edit.evaluation.psnr import psnr
from lora_edit.types import Video
from lora_edit.video.colors import array_to_frame
from lora_edit.video.read import read_video
from lora_edit.video.settings import VideoSettings
from lora_edit.video.source_samples import open_source_samples
from lora_edit.video.write import write_video
from video.clips import make_clip


@pytest.fixture
def source(tmp_path: Path) -> Video:
    """Frames 2 to 5 of a noisy file without colour tags."""
    noise = torch.randint(0, 60, (6, 48, 64, 3), generator=torch.Generator().manual_seed(0))
    with av.open(str(tmp_path / "source.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in (make_clip(6).frames.int() * 3 // 4 + noise).to(torch.uint8).numpy():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return read_video(tmp_path / "source.mp4", VideoSettings(start=2, frames=4))


def read_planes(path: Path, first: int) -> list[np.ndarray]:
    """Read the stored planes of a file from frame `first` on."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)][first:]


def edit_left_half(source: Video) -> tuple[Video, torch.Tensor]:
    """Change the left half of the frames; return the clip and the mask of unchanged pixels."""
    frames = source.frames.clone()
    frames[:, :, :32] = frames[:, :, :32].flip(-1)
    outside = torch.ones(frames.shape[:3], dtype=torch.bool)
    outside[:, :, :32] = False
    return replace(source, frames=frames), outside


def test_equal_pixels_get_source_samples(source: Video) -> None:
    """In every frame, luma and chroma are the file's in the unchanged right half, and new in the left half."""
    assert source.source is not None
    result, _ = edit_left_half(source)
    planes = read_planes(source.source, 2)
    with open_source_samples(source) as samples:
        assert samples is not None and source.tags.matrix == 2
        for index, image in enumerate(result.frames.numpy()):
            output = samples.merge_source_samples(array_to_frame(image, "yuv420p", source.tags), image, index).to_ndarray()
            assert np.array_equal(output[:48, 32:], planes[index][:48, 32:])
            assert np.array_equal(output[48:].reshape(-1, 32)[:, 16:], planes[index][48:].reshape(-1, 32)[:, 16:])
            assert not np.array_equal(output[:48, :32], planes[index][:48, :32])


def test_written_file_is_closer_to_source(source: Video, tmp_path: Path) -> None:
    """The file has the colour tags of its source, and is at least 1 dB closer to it than a conversion through RGB."""
    result, outside = edit_left_half(source)
    write_video(tmp_path / "plain.mp4", result)
    write_video(tmp_path / "kept.mp4", result, source_clip=source)
    psnr_plain, psnr_merged = (psnr(read_video(tmp_path / name).frames, source.frames, outside) for name in ("plain.mp4", "kept.mp4"))
    assert psnr_merged > psnr_plain + 1
    with av.open(str(tmp_path / "kept.mp4")) as container:
        assert next(container.decode(video=0)).colorspace == 2


def test_replaced_source_file_is_not_used(source: Video, tmp_path: Path) -> None:
    """Samples of a source replaced after reading are not used; a missing source is not an error."""
    assert source.source is not None
    result, outside = edit_left_half(source)
    write_video(source.source, make_clip(6), overwrite=True)
    write_video(tmp_path / "a.mp4", result, source_clip=source)
    assert psnr(read_video(tmp_path / "a.mp4").frames, source.frames, outside) > 30
    source.source.unlink()
    write_video(tmp_path / "b.mp4", result, source_clip=source)
    assert read_video(tmp_path / "b.mp4").num_frames == 4
