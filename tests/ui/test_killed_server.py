"""A server killed in the middle of training: the next one finds project and edit, says where it stopped, and resumes from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from lora_edit.errors import RunError
from lora_edit.ui import actions
from lora_edit.ui.jobs import JobQueue
from lora_edit.ui.projects import Mark, ProjectStore, UnfinishedEdit
from lora_edit.ui.step_run import _render_interrupted, find_unfinished_edit
from source_tree import ROOT
from ui.rendered import write

SERVER = """
import sys, time
from pathlib import Path
from lora_edit.ui import actions
from lora_edit.ui.jobs import JobQueue
from lora_edit.ui.projects import ProjectStore
actions.PROGRESS_WRITE_INTERVAL = 0
queue, project = JobQueue(1), ProjectStore(Path(sys.argv[1])).open_project(sys.argv[2])
job = actions.start_edit(queue, project)
queue.wait(job, 600)
sys.exit(f"the job ended: {job.state} {job.error}")
"""
"""Runs the edit of a project as the page's server does."""

NUM_STEPS, CHECKPOINT_EVERY = 400, 2


def test_the_next_server_resumes_the_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single_thread: None) -> None:
    source, edited = write(tmp_path)
    store = ProjectStore(tmp_path / "projects")
    project = store.create_project()
    box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
    assignments = (f"training.motion_steps={NUM_STEPS}", f"training.checkpoint_every={CHECKPOINT_EVERY}", "training.recolour=0")
    project.update_state(clip=project.import_file(source), marks=(box,), first_frame=project.import_file(edited), assignments=assignments)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(store.path), project.id], env=environment, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 240
        while not is_training(project.read_unfinished_edit()):
            assert server.poll() is None and time.monotonic() < deadline, server.stderr and server.stderr.read()
            time.sleep(0.02)
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()

    project = ProjectStore(tmp_path / "projects").open_project(project.id)
    unfinished = find_unfinished_edit(project, project.read_state())
    assert unfinished is not None and 3 <= unfinished.done < NUM_STEPS
    assert f"interrupted at step {unfinished.done} of {NUM_STEPS} (learning the motion)" in _render_interrupted(
        project, project.read_state()
    )
    steps: list[int] = []
    step = actions.ProgressRecorder.step

    def record(self: actions.ProgressRecorder, stage: str, done: int, *arguments: Any) -> None:
        steps.extend([done] if stage == "motion" else [])
        step(self, stage, done, *arguments)
        if len(steps) == 3:
            queue.stop(project.id)

    monkeypatch.setattr(actions.ProgressRecorder, "step", record)
    queue = JobQueue(1)
    job = actions.start_edit(queue, project)
    assert queue.wait(job, 240)
    assert job.state == "stopped", job.error
    first = steps[0]
    assert unfinished.done // CHECKPOINT_EVERY * CHECKPOINT_EVERY < first <= unfinished.done + CHECKPOINT_EVERY + 1
    assert steps[:3] == [first, first + 1, first + 2]


def is_training(edit: UnfinishedEdit | None) -> bool:
    """Whether training has passed its first checkpoint."""
    return edit is not None and edit.stage == "motion" and edit.done >= 3


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"states": [], "at": 3}'])
def test_a_damaged_project_says_so(tmp_path: Path, content: bytes) -> None:
    """Its record of progress is not needed."""
    project = ProjectStore(tmp_path).create_project()
    (project.path / "unfinished.json").write_bytes(content)
    assert project.read_unfinished_edit() is None
    (project.path / "states.json").write_bytes(content)
    with pytest.raises(RunError, match=r"states.json of this project is damaged; put back a copy"):
        project.read_state()
