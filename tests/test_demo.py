"""The demo's files: small, of one size, and what their script draws."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from lora_edit.types import Size
from lora_edit.video.read import read_image, read_video

EXAMPLES = Path(__file__).parents[1] / "examples"
CLIP = EXAMPLES / "clip"


def test_the_clip_is_small_and_its_frames_fit_it() -> None:
    video = read_video(CLIP / "source.mp4")
    assert (video.num_frames, video.size) == (33, Size(240, 384))
    assert sum(path.stat().st_size for path in CLIP.iterdir()) < 1_000_000
    assert all(read_image(CLIP / name).shape == (240, 384, 3) for name in ("first_frame.png", "frame_32.png"))


def test_the_edited_frames_are_what_their_script_draws() -> None:
    spec = importlib.util.spec_from_file_location("edit_frames", EXAMPLES / "edit_frames.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for number, name in ((0, "first_frame.png"), (32, "frame_32.png")):
        drawn, kept = script.edited_frame(number).astype(int), read_image(CLIP / name).numpy().astype(int)
        # Another build of OpenCV may round decoding and lines otherwise.
        assert np.abs(drawn - kept).mean() < 1
        changed = np.abs(kept - script.read_frame(number)).max(-1) > 8
        assert 0.1 < changed.mean() < 0.4
