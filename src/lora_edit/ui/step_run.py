"""Step 5: a preview in seconds; then training, watched, stopped and resumed."""

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
    "motions": "finding how the clip moves",
    "prepare": "preparing what is learned",
    "predict": "predicting the edit",
    "generate": "drawing the result",
    "composite": "putting it into the clip",
    "write": "writing the video",
    "compare": "writing source and edit side by side",
    "measure": "measuring the result",
    "follow": "following it through the clip",
}
"""What the page calls the stages of an edit."""

RESUME_MESSAGE = "Resume goes on from the last state that was kept."

PROJECT_JOB_KINDS = ("edit", "again", "preview")
"""Jobs whose result is out of date once anything of the project changes."""

STATE_LABELS = {
    "waiting": "waiting",
    "running": "running",
    "stopping": "stopping after this step",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
}


class RunStep:
    """Train and generate."""

    def __init__(self, app_state: AppState) -> None:
        self.app_state = app_state
        create_heading(
            "Train and generate", "A small LoRA learns how your clip moves; then the edit is drawn. You may close this page meanwhile."
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
        """What `show` may change."""
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
        """The step as its jobs are."""
        job, quick = self.app_state.device_queue.get_latest_job(project.id), self.app_state.background.get_latest_job(project.id)
        quick = None if quick is not None and quick.kind != "preview" else quick
        now, jobs = project.read_state(), [each for each in (job, quick) if each is not None]
        return {
            self.progress: "".join(render_job(each, self.app_state.device_queue.count_jobs_ahead(each), now) for each in jobs)
            or _render_interrupted(project, now),
            self.training_preview: _render_training_preview(job),
            self.preview_video: _update_preview_video(quick, now),
            self.remarks: render_messages([note for each in jobs for note in each.notes]),
            self.preview_button: gr.Button(interactive=quick is None or quick.is_finished),
            **self._update_buttons(project, job, now),
        }

    def _update_buttons(self, project: Project, job: Job | None, state: ProjectState) -> Updates:
        """What comes next is the one primary button: to train, or to see the result where that is of the project as it is."""
        busy, made = job is not None and not job.is_finished, project.read_results()
        stopped = find_unfinished_edit(project, state) is not None
        fresh = bool(made) and not stopped and not describe_outdated(made[-1].state, state)
        primary, secondary = ("secondary", "primary") if fresh else ("primary", "secondary")
        words = "Resume" if stopped else "Train and generate"
        return {
            self.start_button: gr.Button(words, visible=not busy, variant=primary),
            self.stop_button: gr.Button(visible=busy, interactive=job is not None and job.state != "stopping"),
            self.next_button: gr.Button(
                "See the result" if fresh else "See the last result", visible=not busy and bool(made), variant=secondary
            ),
        }

    def start_edit(self, project_id: str) -> Updates:
        """Train and generate, or go on."""
        project = self.app_state.open_project(project_id)
        actions.start_edit(self.app_state.device_queue, project)
        return self.show(project)

    def start_preview(self, project_id: str) -> Updates:
        """The preview."""
        project = self.app_state.open_project(project_id)
        actions.start_preview(self.app_state.background, project)
        return self.show(project)

    def stop_edit(self, project_id: str) -> Updates:
        """Stop at the next step."""
        self.app_state.device_queue.stop(project_id)
        return self.show(self.app_state.open_project(project_id))


def find_unfinished_edit(project: Project, state: ProjectState) -> UnfinishedEdit | None:
    """The edit of the project as it is, where it was begun and has not ended."""
    edit = project.read_unfinished_edit()
    return edit if edit is not None and not describe_outdated(edit.state, state) else None


def _render_interrupted(project: Project, state: ProjectState) -> str:
    """What to say of an edit that was cut off, as when the server was ended."""
    edit = find_unfinished_edit(project, state)
    if edit is None:
        return ""
    where = f" at step {edit.done} of {edit.total} ({STAGE_LABELS.get(edit.stage, edit.stage)})" if edit.total > 1 else ""
    return f'<div class="job stopped"><strong>{html.escape(f"Edit: interrupted{where}")}</strong>{render_messages(RESUME_MESSAGE)}</div>'


def describe_job(job: Job, jobs_ahead: int, is_outdated: bool = False) -> str:
    """A job in one line; an `old` one was done before the project changed."""
    doing = job.state == "running" and bool(job.stage)
    parts = [f"{KIND_LABELS[job.kind]}: {STAGE_LABELS.get(job.stage, job.stage) if doing else STATE_LABELS[job.state]}"]
    if job.state == "waiting":
        parts.append(f"{jobs_ahead} before it" if jobs_ahead else "next")
    elif not job.is_finished and job.stage:
        parts += [f"{job.done} of {job.total}"] if job.total > 1 else []
        parts += (
            [f"about {format_seconds(job.seconds_left + (job.seconds_after_training or 0))} left"]
            if job.seconds_left and job.done < job.total
            else []
        )
        parts += (
            [f"{format_seconds(job.seconds_after_training)} of it to draw the result"]
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
    """A job with its progress bar; one that is done, with what has changed in the project since then."""
    old = describe_outdated(job.project_state, state) if job.state == "done" and job.kind in PROJECT_JOB_KINDS else ""
    value = 'value="1"' if job.state == "done" else f'value="{job.done / job.total:.4f}"' if job.total > 1 else ""
    bar = (
        f'<progress aria-label="{KIND_LABELS[job.kind]}" max="1" {value}></progress>' if not job.is_finished or job.state == "done" else ""
    )
    detail = f"<span class='detail'>{html.escape(job.detail)}</span>" if job.detail and not job.is_finished else ""
    fault = render_messages(simplify_message(job.error), "fault") if job.error else ""
    words = html.escape(describe_job(job, jobs_ahead, bool(old)))
    return f'<div class="job {job.state}"><strong>{words}</strong>{detail}{bar}{fault}{render_messages(old, "warning")}</div>'


def _render_training_preview(job: Job | None) -> str:
    if job is None or job.preview is None or job.is_finished:
        return ""
    return render_figure(
        pictures.encode_jpeg(pictures.join_frames(job.preview)), f"What it draws after {job.done} step{'' if job.done == 1 else 's'}"
    )


def _update_preview_video(job: Job | None, state: ProjectState) -> Any:
    if job is None or job.state != "done" or describe_outdated(job.project_state, state):
        return gr.Video(visible=False)
    return gr.Video(str(job.result), visible=True)
