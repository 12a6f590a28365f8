"""Step 1: import and trim the clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.types import Video
from lora_edit.ui import pictures
from lora_edit.ui.changes import describe_trim, trim_state
from lora_edit.ui.components import (
    AppState,
    Updates,
    build_file_field,
    create_heading,
    create_message,
    create_viewer,
    parse_integer,
    read_frame_number,
    render_messages,
)
from lora_edit.ui.projects import Project, ProjectState
from lora_edit.ui.region import check_range, choose_initial_length, read_clip

FILE_LABEL = "Drop a video or GIF here"

CLIP_DEPENDENT_FIELDS = ("marks", "imported", "imported_use", "left_out", "grown", "inverted", "bridged", "first_frame", "later")
"""State fields that are reset for another clip."""

CLIP_REPLACED_MESSAGE = "This is another clip: the marks and edited frames of the previous clip were removed. Undo restores them."


class ClipStep:
    """The step that imports a clip and trims it."""

    def __init__(self, app_state: AppState, project_id: Any) -> None:
        self.app_state, self.project_id, self.current_frame = app_state, project_id, gr.State(0)
        create_heading("Your clip", "A few seconds of video. It stays on the computer that runs this page; sound, size and rate are kept.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.file = gr.File(label=FILE_LABEL, elem_id="clip-file", height=150)
                self.error_message = create_message()
                self.view = create_viewer("clip-view", "Clip")
                self.frame_outputs = [self.current_frame, self.view]
            with gr.Column(scale=2, visible=False) as self.sidebar:
                self.facts = gr.HTML("", elem_classes="facts")
                self.start = gr.Number(0, label="First frame", info="Counted from 0", minimum=0, elem_id="clip-start")
                self.frames = gr.Number(None, label="Frames", info="Empty: all to the end", minimum=0, elem_id="clip-frames")
                self.trim_button = gr.Button("Trim", elem_id="clip-trim")
                self.trim_error = create_message()
                self.next_button = gr.Button("Continue", variant="primary", elem_id="clip-next")

    def list_outputs(self) -> list[Any]:
        """List the elements that `show` updates."""
        return [
            self.project_id,
            self.current_frame,
            self.view,
            self.sidebar,
            self.facts,
            self.start,
            self.frames,
            self.file,
            self.trim_error,
        ]

    def show(self, project: Project) -> Updates:
        """Render the step for the project's current state."""
        state = project.read_state()
        if not state.clip:
            return {self.view: None, self.sidebar: gr.Column(visible=False), self.file: build_file_field(project, "", FILE_LABEL)}
        return {
            self.project_id: project.id,
            **self._render_frame(project, 0),
            self.sidebar: gr.Column(visible=True),
            self.facts: render_messages(_describe_clip(state, read_clip(project, state))),
            self.start: state.start,
            self.frames: state.frames,
            self.file: build_file_field(project, state.clip, FILE_LABEL),
            self.trim_error: "",
        }

    def refresh(self, project: Project, frame: int) -> Updates:
        """Update the step on return to it."""
        return self._render_frame(project, frame) if project.read_state().clip else {}

    def import_clip(self, project_id: str, file: str | None) -> Updates:
        """Import a dropped clip: into a new project, or in place of the project's clip."""
        if not file:
            return {}
        length = choose_initial_length(Path(file))
        project = self.app_state.open_project(project_id) if project_id else self.app_state.store.create_project()
        with project.stage_file(Path(file)) as stored_file:
            check_range(project, ProjectState(clip=stored_file, frames=length))
        before = project.read_state()
        defaults = {key: ProjectState.model_fields[key].default for key in CLIP_DEPENDENT_FIELDS}
        project.update_state(clip=stored_file, clip_name=project.read_original_name(stored_file), start=0, frames=length, **defaults)
        was_reset = any(getattr(before, key) != value for key, value in defaults.items())
        return {**self.show(project), self.trim_error: render_messages(CLIP_REPLACED_MESSAGE, "warning") if was_reset else ""}

    def trim_clip(self, project_id: str, start: float | None, frames: float | None) -> Updates:
        """Set the range of the clip; marks and edited frames stay on their source frames."""
        project = self.app_state.open_project(project_id)
        length = parse_integer(frames, 1, 10**7, "frames") if frames else None
        before = project.read_state()
        after = trim_state(before, parse_integer(start, 0, 10**7, "the first frame"), length)
        num_frames = check_range(project, after)
        project.update_state(**{key: getattr(after, key) for key in ProjectState.model_fields})
        return {**self.show(project), self.trim_error: render_messages(describe_trim(before, after, num_frames), "warning")}

    def show_frame(self, project_id: str, event: gr.EventData) -> Updates:
        """Show another frame."""
        return self._render_frame(self.app_state.open_project(project_id), read_frame_number(event))

    def _render_frame(self, project: Project, frame: int, **extra: Any) -> Updates:
        video = read_clip(project, project.read_state())
        frame = min(frame, video.num_frames - 1)
        return {self.current_frame: frame, self.view: pictures.build_still(video.frames[frame], frame, video.num_frames, "Clip", **extra)}

    def play_frames(self, project_id: str, event: gr.EventData) -> Updates:
        """Play the clip."""
        project = self.app_state.open_project(project_id)
        return self._render_frame(project, read_frame_number(event), film=pictures.build_playback(read_clip(project, project.read_state())))


def _describe_clip(state: ProjectState, video: Video) -> str:
    """Describe the clip: name, frames, size, rate and sound."""
    sound = "with sound" if video.has_sound else "without sound"
    return f"{state.clip_name}: {video.num_frames} frames, {video.size}, {float(video.fps):.4g} per second, {sound}"
