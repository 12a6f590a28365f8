"""The steps of the page that are open for a project, and the one to start at."""

from __future__ import annotations

from lora_edit.ui.changes import CLIP, FRAMES, REGION, RESULT, RUN, SETTINGS, describe_outdated
from lora_edit.ui.components import AppState
from lora_edit.ui.projects import Project, ProjectState
from lora_edit.ui.step_run import find_unfinished_edit


def find_last_open_step(project: Project, state: ProjectState) -> int:
    """Return the last step that is open. Going back closes no step."""
    if project.read_results():
        return RESULT
    return RUN if state.first_frame else FRAMES if state.clip else CLIP


def find_current_step(app_state: AppState, project: Project) -> int:
    """Return the step to open a project at."""
    state, job = project.read_state(), app_state.device_queue.get_latest_job(project.id)
    if job is not None and job.kind != "estimate" and not job.is_finished:
        return RUN
    if find_unfinished_edit(project, state):
        return RUN
    if results := project.read_results():
        return RUN if describe_outdated(results[-1].state, state) else RESULT
    if job is not None and job.kind != "estimate":
        return RUN
    return SETTINGS if state.first_frame else REGION if state.clip else CLIP
