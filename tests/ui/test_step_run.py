"""Every stage of an edit reports its progress, and the page has a label for each."""

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


class RecordingReporter(SilentReporter):
    """A reporter that records every step."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int, str]] = []

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Record the step."""
        self.steps.append((stage, done, total, detail))


def test_every_stage_reports_its_progress(tmp_path: Path) -> None:
    """Including preparation, decoding, compositing, writing and measuring."""
    source, edited = write(tmp_path)
    project = ProjectStore(tmp_path / "runs").create_project()
    box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
    assignments = ("training.motion_steps=2", "generation.steps=2")
    project.update_state(clip=project.import_file(source), marks=(box,), first_frame=project.import_file(edited), assignments=assignments)
    reporter = RecordingReporter()
    run = pipeline.create_run(actions.build_settings(project, project.read_state()), tmp_path / "run")
    pipeline.generate(run.folder, reporter, tmp_path / "result.mp4")
    stages = dict.fromkeys(stage for stage, *_ in reporter.steps)
    assert list(stages) == ["motions", "prepare", "motion", "predict", "generate", "composite", "write", "compare", "measure"]
    assert set(stages) <= set(STAGE_LABELS), "the page has a label for each of them"
    for stage in ("prepare", "predict", "composite", "write", "compare"):
        assert [done for name, done, *_ in reporter.steps if name == stage] == [1, 2, 3, 4, 5], stage
    assert [step for step in reporter.steps if step[0] == "generate"] == [
        ("generate", 1, 3, ""),
        ("generate", 2, 3, "decoding"),
        ("generate", 3, 3, ""),
    ]
