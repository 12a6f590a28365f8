"""Every stage of an edit tells how far it is, and the page has words for each."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from lora_edit import pipeline
from lora_edit.reporting import Silent
from lora_edit.ui import work
from lora_edit.ui.projects import Mark, Shelf
from lora_edit.ui.step_run import STAGES
from ui.rendered import write


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int, str]] = []

    def step(self, stage: str, done: int, total: int, detail: str = "", left: float | None = None) -> None:
        """Keep it."""
        self.steps.append((stage, done, total, detail))


def test_every_stage_tells_how_far_it_is(tmp_path: Path) -> None:
    """Preparing, decoding, compositing, writing and measuring, too."""
    source, edited = write(tmp_path)
    project = Shelf(tmp_path / "runs").new()
    box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
    cheap = ("training.motion_steps=2", "generation.steps=2")
    project.change(clip=project.keep(source), marks=(box,), first_frame=project.keep(edited), assignments=cheap)
    heard = Heard()
    run = pipeline.create_run(work.settings_of(project, project.now()), tmp_path / "run")
    pipeline.generate(run.folder, heard, tmp_path / "result.mp4")
    stages = dict.fromkeys(stage for stage, *_ in heard.steps)
    assert list(stages) == ["motions", "prepare", "motion", "predict", "generate", "composite", "write", "compare", "measure"]
    assert set(stages) <= set(STAGES), "the page has words for all of them"
    for stage in ("prepare", "predict", "composite", "write", "compare"):
        assert [done for name, done, *_ in heard.steps if name == stage] == [1, 2, 3, 4, 5], stage
    assert [step for step in heard.steps if step[0] == "generate"] == [
        ("generate", 1, 3, ""),
        ("generate", 2, 3, "decoding"),
        ("generate", 3, 3, ""),
    ]
