"""The device's memory runs out in the middle of a run: it goes on with less there, from its last checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lora_edit import pipeline
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.errors import ModelError
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.runtime.block_swap import get_blocks
from lora_edit.models.runtime.offload_plan import NUM_REDUCTION_STEPS
from lora_edit.run import Run
from lora_edit.types import Video
from lora_edit.video.read import read_video
from lora_edit.video.write import write_video


class Listener:
    """Keeps remarks, and the steps that were done."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int]] = []

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        """One more."""
        self.steps.append((stage, done))

    def note(self, text: str) -> None:
        """One more."""
        self.notes.append(text)


@pytest.fixture
def settings(tmp_path: Path) -> EditSettings:
    """Seventeen frames of noise, a box, a red first frame; six steps of the embedded model, a checkpoint after every second."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (17, 48, 64, 3), generator=generator, dtype=torch.uint8)
    write_video(tmp_path / "source.mkv", Video(frames, Fraction(8), tuple(n / 8 for n in range(17))), "ffv1")
    edited = frames[0].clone()
    edited[10:30, 10:40] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    Image.fromarray(edited.numpy()).save(tmp_path / "first.png")
    given: dict[str, Any] = {"source": str(tmp_path / "source.mkv"), "first_frame": str(tmp_path / "first.png")}
    given["boxes"] = [{"x": 10, "y": 10, "width": 30, "height": 20}]
    return resolve_settings(
        {"input": given, "model": "tiny"},
        ["training.motion_steps=6", "training.checkpoint_every=2", "training.recolour=0", "video.codec=ffv1"],
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[WanFamily]]:
    """Lets the model run out of memory at the calls with the given numbers, counted over all; returns the list of who was asked."""
    predict = WanFamily.predict_velocity

    def install(*numbers: int) -> list[WanFamily]:
        asked: list[WanFamily] = []

        def predicted(family: WanFamily, latents: torch.Tensor, time: torch.Tensor, encoded: Any) -> torch.Tensor:
            asked.append(family)
            if len(asked) in numbers:
                raise torch.OutOfMemoryError("injected")
            return predict(family, latents, time, encoded)

        monkeypatch.setattr(WanFamily, "predict_velocity", predicted)
        return asked

    return install


def run(settings: EditSettings, folder: Path) -> Listener:
    listener = Listener()
    pipeline.edit(settings, folder.with_suffix(".mkv"), folder, listener)
    return listener


def test_a_run_goes_on_from_its_checkpoint_with_more_blocks_swapped(
    settings: EditSettings, tmp_path: Path, failing: Callable[..., list[WanFamily]], single_thread: None
) -> None:
    """Twice in training, once in sampling. The LoRA and the video come out the same to the byte, as nothing that matters has changed."""
    run(settings, tmp_path / "whole")
    asked = failing(4, 8, 11)  # the fourth step, the sixth, and the first of sampling
    listener = run(settings, tmp_path / "cut")
    total = len(get_blocks(asked[0].transformer))
    quarter = -(-total // NUM_REDUCTION_STEPS)
    assert [int(re.findall(r"(\d+) of", note)[0]) for note in listener.notes if "ran out" in note] == [quarter, 2 * quarter, 3 * quarter]
    # Each time the step after the last checkpoint comes next.
    assert [done for stage, done in listener.steps if stage == "motion"] == [1, 2, 3, 3, 4, 5, 5, 6]
    files = [Run(tmp_path / name).lora_file().read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    assert torch.equal(*(read_video(tmp_path / f"{name}.mkv").frames for name in ("whole", "cut")))


def test_the_last_notch_is_shorter_windows(settings: EditSettings, tmp_path: Path, failing: Callable[..., list[WanFamily]]) -> None:
    """After all blocks and the hidden states; the run ends, and says what was done."""
    asked = failing(*range(1, NUM_REDUCTION_STEPS + 3))
    listener = run(settings, tmp_path / "cut")
    manager, transformer = asked[0].device_manager, asked[0].transformer
    swapper = manager.get_block_swapper(transformer)
    assert swapper is not None and len(swapper.host_blocks) == len(get_blocks(transformer)) and manager.offloads_activations(transformer)
    assert [note.split("; ", 1)[1] for note in listener.notes if "ran out" in note][-2:] == [
        "going on with less there: hidden states wait in main memory",
        "going on with windows of 13 frames",
    ]
    assert [done for stage, done in listener.steps if stage == "motion"] == [1, 2, 3, 4, 5, 6]


def test_when_nothing_helps_it_says_so(settings: EditSettings, tmp_path: Path, failing: Callable[..., list[WanFamily]]) -> None:
    """One line, and the run folder is kept."""
    failing(*range(1, 100))
    with pytest.raises(ModelError, match="tiny: the device's memory does not suffice, with all blocks in main memory and 13 frames"):
        run(settings, tmp_path / "cut")
    assert (tmp_path / "cut" / "edit.toml").is_file()
