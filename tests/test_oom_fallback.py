"""A device out of memory: the run continues from its last checkpoint with less memory on the device."""

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


class RecordingReporter:
    """Records notes and steps."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int]] = []

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Record a step."""
        self.steps.append((stage, done))

    def note(self, text: str) -> None:
        """Record a note."""
        self.notes.append(text)


@pytest.fixture
def settings(tmp_path: Path) -> EditSettings:
    """Seventeen frames of noise, a box and a red first frame; six steps of the embedded model, with a checkpoint after every other."""
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
def inject_oom(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[WanFamily]]:
    """Make the model run out of memory at calls with the given numbers. Returns the list of models by call."""
    predict = WanFamily.predict_velocity

    def install(*numbers: int) -> list[WanFamily]:
        families: list[WanFamily] = []

        def predicted(family: WanFamily, latents: torch.Tensor, time: torch.Tensor, encoded: Any) -> torch.Tensor:
            families.append(family)
            if len(families) in numbers:
                raise torch.OutOfMemoryError("injected")
            return predict(family, latents, time, encoded)

        monkeypatch.setattr(WanFamily, "predict_velocity", predicted)
        return families

    return install


def run(settings: EditSettings, folder: Path) -> RecordingReporter:
    reporter = RecordingReporter()
    pipeline.edit(settings, folder.with_suffix(".mkv"), folder, reporter)
    return reporter


def test_run_resumes_from_checkpoint_with_more_blocks_swapped(
    settings: EditSettings, tmp_path: Path, inject_oom: Callable[..., list[WanFamily]], single_thread: None
) -> None:
    """Twice in training, once in sampling. The LoRA and the video stay byte-identical."""
    run(settings, tmp_path / "whole")
    families = inject_oom(4, 8, 11)  # the fourth step, the sixth, and the first of sampling
    reporter = run(settings, tmp_path / "cut")
    total = len(get_blocks(families[0].transformer))
    quarter = -(-total // NUM_REDUCTION_STEPS)
    assert [int(re.findall(r"(\d+) of", note)[0]) for note in reporter.notes if "ran out" in note] == [quarter, 2 * quarter, 3 * quarter]
    # Each time training resumes with the step after the last checkpoint.
    assert [done for stage, done in reporter.steps if stage == "motion"] == [1, 2, 3, 3, 4, 5, 5, 6]
    files = [Run(tmp_path / name).lora_file().read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    assert torch.equal(*(read_video(tmp_path / f"{name}.mkv").frames for name in ("whole", "cut")))


def test_last_reduction_is_short_windows(settings: EditSettings, tmp_path: Path, inject_oom: Callable[..., list[WanFamily]]) -> None:
    """After all blocks and the hidden states. The run succeeds, and notes report the reductions."""
    families = inject_oom(*range(1, NUM_REDUCTION_STEPS + 3))
    reporter = run(settings, tmp_path / "cut")
    manager, transformer = families[0].device_manager, families[0].transformer
    swapper = manager.get_block_swapper(transformer)
    assert swapper is not None and len(swapper.host_blocks) == len(get_blocks(transformer)) and manager.offloads_activations(transformer)
    assert [note.split("; ", 1)[1] for note in reporter.notes if "ran out" in note][-2:] == [
        "continuing with less on the device: hidden states wait in main memory",
        "continuing with windows of 13 frames",
    ]
    assert [done for stage, done in reporter.steps if stage == "motion"] == [1, 2, 3, 4, 5, 6]


def test_run_fails_after_last_reduction(settings: EditSettings, tmp_path: Path, inject_oom: Callable[..., list[WanFamily]]) -> None:
    """With one line; the run folder stays."""
    inject_oom(*range(1, 100))
    with pytest.raises(
        ModelError, match="tiny: the memory of the device is too small even with all blocks in main memory and windows of 13 frames"
    ):
        run(settings, tmp_path / "cut")
    assert (tmp_path / "cut" / "edit.toml").is_file()
