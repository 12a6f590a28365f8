"""Tests of PNG frame folders."""

import pytest
import torch

from lora_edit.errors import VideoError
from lora_edit.video.png_frames import load_frames, save_frames
from video.clips import make_clip


def test_save_and_load_round_trip(tmp_path, clip):
    save_frames(tmp_path / "frames", make_clip(12).frames)
    save_frames(tmp_path / "frames", clip.frames)
    assert torch.equal(load_frames(tmp_path / "frames"), clip.frames)


def test_errors_name_missing_and_damaged_frames(tmp_path, clip):
    folder = tmp_path / "frames"
    save_frames(folder, clip.frames)
    (folder / "00003.png").write_bytes(b"\x89PNG")
    with pytest.raises(VideoError, match=r"00003\.png: damaged"):
        load_frames(folder)
    (folder / "00003.png").unlink()
    with pytest.raises(VideoError, match=r"00003\.png is missing"):
        load_frames(folder)
    with pytest.raises(VideoError, match="no frames"):
        load_frames(tmp_path)


def test_save_rejects_folder_with_other_files(tmp_path, clip):
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(VideoError, match="choose an empty or new folder"):
        save_frames(tmp_path, clip.frames)
