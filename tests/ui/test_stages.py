"""Every stage of an edit tells how far it is, and the page has words for each."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from lora_edit import pipeline
from lora_edit.reporting import SilentReporter
from lora_edit.ui import actions
from lora_edit.ui.projects import Mark, ProjectStore
from lora_edit.ui.step_run import STAGE_LABELS
from ui.rendered import write


class Heard(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int, str]] = []

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Keep it."""
        self.steps.append((stage, done, total, detail))


def test_every_stage_tells_how_far_it_is(tmp_path: Path) -> None:
    """Preparing, decoding, compositing, writing and measuring, too."""
    source, edited = write(tmp_path)
    project = ProjectStore(tmp_path / "runs").create_project()
    box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
    cheap = ("training.motion_steps=2", "generation.steps=2")
    project.update_state(clip=project.import_file(source), marks=(box,), first_frame=project.import_file(edited), assignments=cheap)
    heard = Heard()
    run = pipeline.create_run(actions.build_settings(project, project.read_state()), tmp_path / "run")
    pipeline.generate(run.folder, heard, tmp_path / "result.mp4")
    stages = dict.fromkeys(stage for stage, *_ in heard.steps)
    assert list(stages) == ["motions", "prepare", "motion", "predict", "generate", "composite", "write", "compare", "measure"]
    assert set(stages) <= set(STAGE_LABELS), "the page has words for all of them"
    for stage in ("prepare", "predict", "composite", "write", "compare"):
        assert [done for name, done, *_ in heard.steps if name == stage] == [1, 2, 3, 4, 5], stage
    assert [step for step in heard.steps if step[0] == "generate"] == [
        ("generate", 1, 3, ""),
        ("generate", 2, 3, "decoding"),
        ("generate", 3, 3, ""),
    ]
