"""Step 5: a quick preview; then training and generation, with progress, stop and resume."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from lora_edit.reporting import format_seconds
from lora_edit.ui import actions, pictures
from lora_edit.ui.changes import describe_outdated
from lora_edit.ui.components import AppState, Updates, create_heading, create_message, render_figure, render_messages, simplify_message
from lora_edit.ui.jobs import Job
from lora_edit.ui.projects import Project, ProjectState, UnfinishedEdit

KIND_LABELS = {"edit": "Edit", "again": "New result", "estimate": "Estimate", "preview": "Preview", "overlay": "Video of the region",
         "follow": "Mask"}  # fmt: skip
STAGE_LABELS = {
    "motion": "learning the motion",
    "appearance": "learning the edited frames",
    "captions": "describing the frames",
    "following the edit": "finding what the edited first frame changes",
    "motions": "estimating the motion of the clip",
    "prepare": "preparing the training data",
    "predict": "predicting the edit",
    "generate": "generating the result",
    "composite": "compositing it into the clip",
    "write": "writing the video",
    "compare": "writing source and edit side by side",
    "measure": "measuring the result",
    "follow": "following it through the clip",
}
"""Labels of the stages of an edit."""

RESUME_MESSAGE = "Resume continues from the last checkpoint."

PROJECT_JOB_KINDS = ("edit", "again", "preview")
"""Kinds of jobs whose result is outdated by any change of the project."""

STATE_LABELS = {
    "waiting": "waiting",
    "running": "running",
    "stopping": "stopping after this step",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
}


class RunStep:
    """The step that previews, trains and generates."""

    def __init__(self, app_state: AppState) -> None:
        self.app_state = app_state
        create_heading(
            "Train and generate",
            "A small LoRA learns the motion of your clip; then the edit is generated. You may close this page meanwhile.",
        )
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.progress = gr.HTML("", elem_id="run-progress")
                self.error_message = create_message()
                self.training_preview = gr.HTML("", elem_id="run-look")
                self.preview_video = gr.Video(
                    None, label="Preview: the edit predicted without the model", visible=False, elem_id="run-preview", buttons=[]
                )
            with gr.Column(scale=2):
                self.remarks = gr.HTML("", elem_classes="facts")
                self.preview_button = gr.Button("Preview in seconds", elem_id="run-try")
                self.start_button = gr.Button("Train and generate", variant="primary", elem_id="run-start")
                self.stop_button = gr.Button("Stop", variant="stop", visible=False, elem_id="run-stop")
                self.next_button = gr.Button("See the result", variant="primary", visible=False, elem_id="run-next")

    def list_outputs(self) -> list[Any]:
        """List the elements that `show` updates."""
        return [
            self.progress,
            self.training_preview,
            self.preview_video,
            self.remarks,
            self.preview_button,
            self.start_button,
            self.stop_button,
            self.next_button,
        ]

    def show(self, project: Project) -> Updates:
        """Render the step for the project's jobs."""
        job, preview = self.app_state.device_queue.get_latest_job(project.id), self.app_state.background.get_latest_job(project.id)
        preview = None if preview is not None and preview.kind != "preview" else preview
        state, jobs = project.read_state(), [each for each in (job, preview) if each is not None]
        return {
            self.progress: "".join(render_job(each, self.app_state.device_queue.count_jobs_ahead(each), state) for each in jobs)
            or _render_interrupted(project, state),
            self.training_preview: _render_training_preview(job),
            self.preview_video: _update_preview_video(preview, state),
            self.remarks: render_messages([note for each in jobs for note in each.notes]),
            self.preview_button: gr.Button(interactive=preview is None or preview.is_finished),
            **self._update_buttons(project, job, state),
        }

    def _update_buttons(self, project: Project, job: Job | None, state: ProjectState) -> Updates:
        """Update the buttons; the primary one is the next action: train, or see the result if it is up to date."""
        is_active, results = job is not None and not job.is_finished, project.read_results()
        is_unfinished = find_unfinished_edit(project, state) is not None
        is_current = bool(results) and not is_unfinished and not describe_outdated(results[-1].state, state)
        primary, secondary = ("secondary", "primary") if is_current else ("primary", "secondary")
        label = "Resume" if is_unfinished else "Train and generate"
        return {
            self.start_button: gr.Button(label, visible=not is_active, variant=primary),
            self.stop_button: gr.Button(visible=is_active, interactive=job is not None and job.state != "stopping"),
            self.next_button: gr.Button(
                "See the result" if is_current else "See the last result", visible=not is_active and bool(results), variant=secondary
            ),
        }

    def start_edit(self, project_id: str) -> Updates:
        """Start or resume training and generation."""
        project = self.app_state.open_project(project_id)
        actions.start_edit(self.app_state.device_queue, project)
        return self.show(project)

    def start_preview(self, project_id: str) -> Updates:
        """Start the preview."""
        project = self.app_state.open_project(project_id)
        actions.start_preview(self.app_state.background, project)
        return self.show(project)

    def stop_edit(self, project_id: str) -> Updates:
        """Stop the edit at its next step."""
        self.app_state.device_queue.stop(project_id)
        return self.show(self.app_state.open_project(project_id))


def find_unfinished_edit(project: Project, state: ProjectState) -> UnfinishedEdit | None:
    """Return the unfinished edit of the current state, or None."""
    edit = project.read_unfinished_edit()
    return edit if edit is not None and not describe_outdated(edit.state, state) else None


def _render_interrupted(project: Project, state: ProjectState) -> str:
    """Render a message for an interrupted edit, for example after the server stopped."""
    edit = find_unfinished_edit(project, state)
    if edit is None:
        return ""
    position = f" at step {edit.done} of {edit.total} ({STAGE_LABELS.get(edit.stage, edit.stage)})" if edit.total > 1 else ""
    return f'<div class="job stopped"><strong>{html.escape(f"Edit: interrupted{position}")}</strong>{render_messages(RESUME_MESSAGE)}</div>'


def describe_job(job: Job, jobs_ahead: int, is_outdated: bool = False) -> str:
    """Describe a job in one line."""
    has_stage = job.state == "running" and bool(job.stage)
    parts = [f"{KIND_LABELS[job.kind]}: {STAGE_LABELS.get(job.stage, job.stage) if has_stage else STATE_LABELS[job.state]}"]
    if job.state == "waiting":
        parts.append(f"{jobs_ahead} ahead of it" if jobs_ahead else "next")
    elif not job.is_finished and job.stage:
        parts += [f"{job.done} of {job.total}"] if job.total > 1 else []
        parts += (
            [f"about {format_seconds(job.seconds_left + (job.seconds_after_training or 0))} left"]
            if job.seconds_left and job.done < job.total
            else []
        )
        parts += (
            [f"{format_seconds(job.seconds_after_training)} of it to generate the result"]
            if job.seconds_left and job.seconds_after_training
            else []
        )
    elif job.is_finished and job.start_time:
        parts += [f"at step {job.done} of {job.total}"] if job.state != "done" and job.total > 1 else []
        parts.append(f"after {format_seconds(job.get_elapsed_seconds())}")
    if is_outdated:
        parts.append("out of date")
    return ", ".join(parts)


def render_job(job: Job, jobs_ahead: int, state: ProjectState) -> str:
    """Render a job with its progress bar; a finished job also shows what has changed in the project since."""
    outdated = describe_outdated(job.project_state, state) if job.state == "done" and job.kind in PROJECT_JOB_KINDS else ""
    value = 'value="1"' if job.state == "done" else f'value="{job.done / job.total:.4f}"' if job.total > 1 else ""
    bar = (
        f'<progress aria-label="{KIND_LABELS[job.kind]}" max="1" {value}></progress>' if not job.is_finished or job.state == "done" else ""
    )
    detail = f"<span class='detail'>{html.escape(job.detail)}</span>" if job.detail and not job.is_finished else ""
    error = render_messages(simplify_message(job.error), "fault") if job.error else ""
    description = html.escape(describe_job(job, jobs_ahead, bool(outdated)))
    return f'<div class="job {job.state}"><strong>{description}</strong>{detail}{bar}{error}{render_messages(outdated, "warning")}</div>'


def _render_training_preview(job: Job | None) -> str:
    if job is None or job.preview is None or job.is_finished:
        return ""
    return render_figure(
        pictures.encode_jpeg(pictures.join_frames(job.preview)), f"Preview after {job.done} step{'' if job.done == 1 else 's'}"
    )


def _update_preview_video(job: Job | None, state: ProjectState) -> Any:
    if job is None or job.state != "done" or describe_outdated(job.project_state, state):
        return gr.Video(visible=False)
    return gr.Video(str(job.result), visible=True)
