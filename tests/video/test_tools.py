"""Lossless folders, sizes and contact sheets."""

import pytest
import torch

from lora_edit.errors import VideoError
from lora_edit.types import Size
from lora_edit.video import png_frames, resize, sheet
from lora_edit.video.read import read_image
from video.clips import make_clip, mean_error


def test_saved_frames_come_back(tmp_path, clip):
    png_frames.save_frames(tmp_path / "frames", make_clip(12).frames)
    png_frames.save_frames(tmp_path / "frames", clip.frames)
    assert torch.equal(png_frames.load_frames(tmp_path / "frames"), clip.frames)


def test_gaps_and_damage_are_named(tmp_path, clip):
    folder = tmp_path / "frames"
    png_frames.save_frames(folder, clip.frames)
    (folder / "00003.png").write_bytes(b"")
    with pytest.raises(VideoError, match=r"00003\.png: damaged"):
        png_frames.load_frames(folder)
    (folder / "00003.png").unlink()
    with pytest.raises(VideoError, match=r"00003\.png is missing"):
        png_frames.load_frames(folder)
    with pytest.raises(VideoError, match="no frames"):
        png_frames.load_frames(tmp_path)


def test_foreign_files_are_not_replaced(tmp_path, clip):
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(VideoError, match="choose an empty or new folder"):
        png_frames.save_frames(tmp_path, clip.frames)


def test_shrinking_averages_and_growing_returns():
    frames = make_clip(2, 48, 64).frames
    small = resize.resize_frames(frames, Size(24, 32))
    averaged = frames.float().reshape(2, 24, 2, 32, 2, 3).mean((2, 4)).round()
    assert mean_error(small, averaged) < 0.3
    assert mean_error(resize.resize_frames(small, Size(48, 64)), frames) < 2
    assert resize.resize_frames(frames, Size(20, 90)).shape == (2, 20, 90, 3)


def test_resized_pixels_stay_in_range():
    pixels = torch.randn(3, 2, 10, 12, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    for size in (Size(5, 6), Size(31, 40)):
        resized = resize.resize_pixels(pixels, size)
        assert resized.shape == (3, 2, size.height, size.width) and resized.abs().max() <= 1
    assert resize.resize_pixels(pixels[:1], Size(5, 24)).shape == (1, 2, 5, 24)


@pytest.mark.parametrize(
    ("size", "area", "expected"),
    [
        (Size(480, 832), 480 * 832, Size(480, 832)),
        (Size(720, 1280), 480 * 832, Size(480, 848)),
        (Size(512, 512), 480 * 832, Size(512, 512)),
        (Size(50, 70), 480 * 832, Size(64, 80)),
        (Size(10, 10), 480 * 832, Size(32, 32)),
        (Size(1280, 720), 480 * 832, Size(848, 480)),
    ],
)
def test_canvas(size, area, expected):
    assert resize.fit_canvas(size, area, 16) == expected


def test_frame_counts():
    assert [resize.pad_frame_count(n) for n in (1, 2, 5, 6, 16, 81)] == [1, 5, 5, 9, 17, 81]
    frames = make_clip(3).frames
    padded = resize.pad_frames(frames, 5)
    assert torch.equal(padded[:3], frames) and torch.equal(padded[4], frames[2])


def test_sheet_and_side_by_side(tmp_path):
    long, short = make_clip(20).frames, make_clip(3).frames
    picture = sheet.build_contact_sheet([long, short], ["source", "edited é"], columns=8, cell_height=40)
    assert picture.dtype == torch.uint8 and picture.shape[2] == 3
    sheet.save_image(tmp_path / "new" / "sheet.png", picture)
    assert torch.equal(read_image(tmp_path / "new" / "sheet.png"), picture)
    assert sheet.join_side_by_side(long, make_clip(20, 24, 32).frames).shape == (20, 48, 128, 3)
    with pytest.raises(VideoError, match="20 and 3"):
        sheet.join_side_by_side(long, short)
