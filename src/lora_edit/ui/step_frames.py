"""Step 3: the edited first frame, and edited later frames for an object that turns or opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.errors import InputError
from lora_edit.masks.overlay import draw_region
from lora_edit.types import Video
from lora_edit.ui import actions, pictures
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
from lora_edit.ui.projects import EditedFrame, Project, ProjectState
from lora_edit.ui.region import (
    check_edit,
    compute_covering_growth,
    compute_growth,
    compute_region,
    describe_conversions,
    find_edit_outside_region,
    has_region,
    read_clip,
    read_edited_frame,
)

KIND_DESCRIPTIONS = {"reference": "learned from", "anchor": "shown as it is"}
KIND_CHOICES = [("Learn from it", "reference"), ("Show it exactly as it is", "anchor")]

FIRST_FRAME_LABEL, LATER_FRAME_LABEL = "Drop the edited first frame here", "Drop the edited frame here"

MISSING_FIRST_FRAME_MESSAGE = (
    "The clip's first frame is not edited, only later frames are. Download it, edit it the same way, and drop it here."
)


class FramesStep:
    """The step that exports frames for editing and imports them again."""

    def __init__(self, app_state: AppState) -> None:
        self.app_state, self.current_frame = app_state, gr.State(0)
        create_heading("The edited first frame", "Download the first frame, edit it with any image tool, drop it back. Keep its size.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.view = create_viewer("frames-view", "Source and edited frame")
            with gr.Column(scale=2):
                self.download_button = gr.DownloadButton("Download the first frame", elem_id="frames-download")
                self.file = gr.File(label=FIRST_FRAME_LABEL, elem_id="frames-file", height=150)
                self.error_message = create_message()
                self.notes = create_message()
                self.cover_button = gr.Button("Grow the region to cover it", visible=False, elem_id="frames-cover")
                self._build_later_section()
                self.frame_outputs = [self.current_frame, self.view, self.later_number, self.later_download_button]
                self.next_button = gr.Button("Continue", variant="primary", elem_id="frames-next")

    def _build_later_section(self) -> None:
        with gr.Accordion("Edit a later frame too", open=False, elem_id="frames-later") as self.later_accordion:
            gr.HTML("<p class='lead'>If the object turns or opens, the first frame does not show all of it. Edit a later frame too.</p>")
            with gr.Row():
                self.later_number = gr.Number(None, label="Frame", minimum=1, min_width=90, elem_id="later-number")
                self.later_kind = gr.Radio(KIND_CHOICES, value="reference", label="Use", elem_id="later-kind")
            self.suggest_button = gr.Button("Suggest a frame", elem_id="later-suggest")
            self.later_download_button = gr.DownloadButton("Download this frame", interactive=False, elem_id="later-download")
            self.later_file = gr.File(label=LATER_FRAME_LABEL, elem_id="later-file", height=150)
            self.later_error = create_message()
            self.later_frames = gr.Dropdown([], label="Edited later frames", interactive=True, elem_id="later-list")
            self.remove_button = gr.Button("Remove", elem_id="later-remove")

    def list_outputs(self) -> list[Any]:
        """List the elements that `show` updates."""
        return [
            self.current_frame,
            self.view,
            self.download_button,
            self.notes,
            self.cover_button,
            self.later_frames,
            self.file,
            self.later_file,
        ]

    def show(self, project: Project, frame: int = 0) -> Updates:
        """Render the step for the project's current state."""
        state = project.read_state()
        if not state.clip:
            return {self.view: None}
        video = read_clip(project, state)
        first = actions.save_frame(project, video.frames[0], 0)
        later_frames = state.select_later_frames(video.num_frames)
        names = [(f"frame {each.frame}, {KIND_DESCRIPTIONS[each.kind]}", each.frame) for each in later_frames]
        return {
            **self._render_frame(project, state, frame),
            self.download_button: gr.DownloadButton(value=str(first)),
            **self._render_remarks(project, state),
            self.later_frames: gr.Dropdown(names, value=names[-1][1] if names else None),
            self.file: build_file_field(project, state.first_frame, FIRST_FRAME_LABEL),
            self.later_file: gr.File(None),
        }

    def _render_remarks(self, project: Project, state: ProjectState) -> Updates:
        """Render notes on the edited first frame: conversions, changes outside the region (with a button to grow it), or its absence."""
        if not state.first_frame and state.later:
            return {self.notes: render_messages(MISSING_FIRST_FRAME_MESSAGE, "warning"), self.cover_button: gr.Button(visible=False)}
        conversions = (
            render_messages(describe_conversions(project, state.first_frame, read_clip(project, state).size)) if state.first_frame else ""
        )
        change = find_edit_outside_region(project, state)
        if change is None or compute_growth(project, state, change.suggested_box) == state.grown:
            return {self.notes: conversions, self.cover_button: gr.Button(visible=False)}
        warning = f"The edited first frame also changes {change.share:.1%} of the picture outside of the region; the source is shown there."
        return {self.notes: conversions + render_messages(warning, "warning"), self.cover_button: gr.Button(visible=True)}

    def _render_frame(self, project: Project, state: ProjectState, frame: int, **extra: Any) -> Updates:
        video = read_clip(project, state)
        frame = min(frame, video.num_frames - 1)
        edited = {0: state.first_frame, **{each.frame: each.file for each in state.later}}.get(frame, "")
        overlay = _render_edited_frame(project, edited, video, frame) if edited else {}
        region = compute_region(project, state).edit_mask.frames[frame] if (has_region(state) or state.first_frame) and not edited else None
        picture = video.frames[frame] if region is None else draw_region(video.frames[frame], region)
        return {self.current_frame: frame, self.view: pictures.build_still(picture, frame, video.num_frames, "source", **overlay, **extra)}

    def import_first_frame(self, project_id: str, file: str | None) -> Updates:
        """Import the edited first frame."""
        if not file:
            return {}
        project = self.app_state.open_project(project_id)
        with project.stage_file(Path(file)) as stored_file:
            check_edit(project, project.read_state().replace_fields(first_frame=stored_file))
        project.update_state(first_frame=stored_file)
        return self.show(project)

    def grow_region(self, project_id: str) -> Updates:
        """Grow the region over the change of the edited first frame outside of it."""
        project = self.app_state.open_project(project_id)
        project.update_state(grown=compute_covering_growth(project, project.read_state()))
        return self.show(project)

    def show_search_message(self, project_id: str) -> Updates:
        """Show a message during the search for a frame, which takes a while."""
        return {self.later_error: render_messages("Searching the clip…")}

    def suggest_frame(self, project_id: str) -> Updates:
        """Suggest the later frame that shows the largest area that no edited frame shows."""
        project = self.app_state.open_project(project_id)
        number = actions.suggest_frame(project, project.read_state())
        if number is None:
            return {self.later_error: render_messages("The edited frames show nearly all of what changes; no other frame is needed.")}
        return {self.later_number: number, **self.select_frame(project_id, number)}

    def select_frame(self, project_id: str, number: float | None) -> Updates:
        """Select a later frame to edit and offer it for download."""
        project = self.app_state.open_project(project_id)
        video = read_clip(project, project.read_state())
        frame = parse_integer(number, 1, video.num_frames - 1, "a later frame")
        file = actions.save_frame(project, video.frames[frame], frame)
        return {
            self.later_download_button: gr.DownloadButton(value=str(file), interactive=True),
            **self._render_frame(project, project.read_state(), frame),
        }

    def import_later_frame(self, project_id: str, number: float | None, kind: str, file: str | None) -> Updates:
        """Import an edited later frame."""
        if not file:
            return {}
        project = self.app_state.open_project(project_id)
        video = read_clip(project, project.read_state())
        frame = parse_integer(number, 1, video.num_frames - 1, "a later frame")
        if kind not in KIND_DESCRIPTIONS:
            raise InputError("the use of the frame is missing; choose one")
        with project.stage_file(Path(file)) as stored_file:
            note = describe_conversions(project, stored_file, video.size)
        others = [each for each in project.read_state().later if each.frame != frame]
        project.update_state(
            later=tuple(sorted([*others, EditedFrame(frame=frame, file=stored_file, kind=kind)], key=lambda each: each.frame))
        )
        return {**self.show(project, frame), self.later_error: render_messages(note)}

    def remove_later_frame(self, project_id: str, number: int | None) -> Updates:
        """Remove an edited later frame."""
        project = self.app_state.open_project(project_id)
        if number is None:
            raise InputError("no edited later frame is selected; select the one to remove")
        project.update_state(later=tuple(each for each in project.read_state().later if each.frame != number))
        return self.show(project)

    def show_frame(self, project_id: str, event: gr.EventData) -> Updates:
        """Show another frame and select it for editing."""
        project = self.app_state.open_project(project_id)
        if number := read_frame_number(event):
            return {self.later_number: number, **self.select_frame(project_id, number)}
        return {
            self.later_number: None,
            self.later_download_button: gr.DownloadButton(interactive=False),
            **self._render_frame(project, project.read_state(), 0),
        }

    def play_frames(self, project_id: str, event: gr.EventData) -> Updates:
        """Play the source."""
        project = self.app_state.open_project(project_id)
        video = read_clip(project, project.read_state())
        return self._render_frame(project, project.read_state(), read_frame_number(event), film=pictures.build_playback(video))


def _render_edited_frame(project: Project, file: str, video: Video, frame: int) -> dict[str, Any]:
    """Render an edited frame for the viewer, with the divider on its change."""
    picture = read_edited_frame(project, file, video.size)[0]
    split = pictures.find_divider_position(video.frames[frame], picture)
    return {"over": pictures.encode_jpeg(pictures.shrink_frame(picture)), "over_label": "edited", "split": split}
