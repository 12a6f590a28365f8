"""Previews during training show its progress and do not change the LoRA."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from lora_edit import pipeline
from lora_edit.config import resolve_settings
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.types import Video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video


class PreviewRecorder(SilentReporter):
    """Draws a preview after every other step."""

    def __init__(self) -> None:
        self.num_calls, self.previews = 0, []

    def show_preview(self, draw: Callable[[], torch.Tensor]) -> None:
        """Record every other preview."""
        self.num_calls += 1
        if self.num_calls % 2 == 0:
            self.previews.append(draw())


@pytest.mark.usefixtures("single_thread")
def test_previews_do_not_change_lora(tmp_path: Path) -> None:
    clip = torch.randint(0, 256, (5, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    frames = clip.repeat_interleave(8, 1).repeat_interleave(8, 2).contiguous()
    write_video(tmp_path / "source.mkv", Video(frames, Fraction(10), tuple(n / 10 for n in range(5))), "ffv1")
    edited = frames[0].clone()
    edited[16:40, 16:40] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    save_image(tmp_path / "first.png", edited)
    boxes = [{"x": 12, "y": 12, "width": 32, "height": 32, "frame": frame} for frame in (0, 4)]
    tables = {
        "input": {
            "source": str(tmp_path / "source.mkv"),
            "first_frame": str(tmp_path / "first.png"),
            "boxes": boxes,
        }
    }
    settings = resolve_settings(tables, ("training.motion_steps=4",))
    recorder = PreviewRecorder()
    for name, reporter in (("previewed", recorder), ("alone", SilentReporter())):
        pipeline.create_run(settings, tmp_path / name)
        pipeline.train(tmp_path / name, reporter)
    assert Run(tmp_path / "previewed").lora_file().read_bytes() == Run(tmp_path / "alone").lora_file().read_bytes()
    assert len(recorder.previews) == 2
    preview = recorder.previews[-1]
    assert preview.shape[1:] == (64, 64, 3)
    assert len(preview) == 4
    assert torch.equal(preview[1][:, :8], frames[2 - 1][:, :8])  # outside of the region: the source
    assert torch.equal(preview[0][24, 24], edited[24, 24])
    assert not torch.equal(recorder.previews[0][-1], preview[-1])
