"""The region step: each control changes its own setting."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

import gradio as gr

from lora_edit.ui.components import AppState
from lora_edit.ui.projects import Mark, ProjectState, ProjectStore
from lora_edit.ui.step_region import RegionStep
from ui.rendered import write


def test_a_control_changes_its_own_setting_only(tmp_path: Path) -> None:
    """The other controls may show the values of no project yet, or may have been changed meanwhile."""
    app_state = AppState(ProjectStore(tmp_path / "runs"))
    project = app_state.store.create_project()
    box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
    before = project.update_state(clip=project.import_file(write(tmp_path)[0]), marks=(box,), grown=(3, 4, 5, 6), smooth=5, bridged=True)
    with gr.Blocks():
        step = RegionStep(app_state)
    assert set(step.controls) - {"grow"} <= set(ProjectState.model_fields)
    for name, value, changes in (
        ("shape", "tight", {"shape": "tight"}),
        ("grow", 3, {"shape": "tight"}),  # the field shows the smallest of the four sides
        ("grow", 7, {"shape": "tight", "grown": (7, 7, 7, 7)}),
        ("left_out", ["2"], {"shape": "tight", "grown": (7, 7, 7, 7), "left_out": ("2",)}),
    ):
        updates = step.build_update(name)(project.id, 0, value)
        assert project.read_state() == before.replace_fields(**changes)
        assert not set(updates) & set(step.controls.values()), "a control may be in use"
