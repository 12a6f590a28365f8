"""Step 6: comparison of source and edit, the frame to edit next, downloads, and regeneration without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.errors import InputError, RunError
from lora_edit.provenance.signing import summarize_provenance
from lora_edit.reporting import format_seconds
from lora_edit.run import Run
from lora_edit.ui import actions, pictures
from lora_edit.ui.changes import describe_outdated
from lora_edit.ui.components import (
    AppState,
    Updates,
    create_heading,
    create_message,
    create_viewer,
    parse_integer,
    read_frame_number,
    render_figure,
    render_messages,
)
from lora_edit.ui.projects import Project, ProjectResult
from lora_edit.video.read import read_image


def get_result(project: Project, number: int | None) -> ProjectResult:
    """Return a result by its number, by default the first. Raises `RunError` if there is none."""
    results = project.read_results()
    if not 0 <= (number or 0) < len(results):
        raise RunError("there is no result of this number; train first")
    return results[number or 0]


class ResultStep:
    """The step that compares, downloads and regenerates results."""

    def __init__(self, app_state: AppState) -> None:
        self.app_state, self.current_frame = app_state, gr.State(0)
        create_heading("Result", "Drag the divider. Outside of the region every pixel is unchanged.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.view = create_viewer("result-view", "Source and edit")
                self.frame_outputs = [self.current_frame, self.view]
                self.error_message = create_message()
                self.sheet = gr.HTML("", elem_id="result-sheet")
            with gr.Column(scale=2):
                self.result_choice = gr.Dropdown([], label="Result", interactive=True, elem_id="result-which")
                self.facts = gr.HTML("", elem_classes="facts")
                self.frame_hint = gr.HTML("", elem_id="result-hint")
                self.edit_frame_button = gr.Button("Edit that frame", visible=False, elem_id="result-take")
                self.video_download = gr.DownloadButton("Download the video", variant="primary", elem_id="result-video")
                with gr.Row():
                    self.lora_download = gr.DownloadButton("Download the LoRA", elem_id="result-lora")
                    self.pack_button = gr.Button("Pack the project", elem_id="result-pack")
                    self.project_download = gr.DownloadButton("Download the project", visible=False, elem_id="result-project")
                self._build_regeneration_section()

    def _build_regeneration_section(self) -> None:
        with gr.Accordion("Again, without training", open=False, elem_id="result-again"):
            self.seed = gr.Number(1, label="Seed", minimum=0, elem_id="again-seed")
            self.file = gr.File(label="Another edited first frame (optional)", elem_id="again-file", height=150)
            self.regenerate_button = gr.Button("Generate again", elem_id="again-start")
            self.regeneration_error = create_message()

    def list_outputs(self) -> list[Any]:
        """List the elements that `show` updates."""
        return [
            self.current_frame,
            self.view,
            self.sheet,
            self.result_choice,
            self.facts,
            self.frame_hint,
            self.edit_frame_button,
            self.video_download,
            self.lora_download,
            self.pack_button,
            self.project_download,
        ]

    def show(self, project: Project, number: int | None = None) -> Updates:
        """Render result `number`, by default the newest."""
        results = project.read_results()
        if not results:
            return {self.view: None}
        number = len(results) - 1 if number is None else number
        names = [(f"{index + 1}: seed {each.seed}" + (", again" if each.again else ""), index) for index, each in enumerate(results)]
        return {
            **self._render_frame(project, number, 0, autoplay=True),
            self.result_choice: gr.Dropdown(names, value=number),
            **self._update_files(project, number),
            **self._render_frame_hint(project),
        }

    def _update_files(self, project: Project, number: int) -> Updates:
        result = get_result(project, number)
        run, lora = project.path / result.run, actions.find_lora_file(project, result)
        durations = ", ".join(f"{stage} {format_seconds(seconds)}" for stage, seconds in result.seconds.items())
        return {
            self.facts: render_messages(describe_outdated(result.state, project.read_state()), "warning")
            + render_messages([durations, *summarize_provenance(Run(run).read_manifest().get("provenance", {})), *result.notes]),
            self.sheet: render_figure(pictures.encode_jpeg(read_image(run / "sheet.png")), "Source, edit region and result"),
            self.video_download: gr.DownloadButton(value=str(project.path / result.file)),
            self.lora_download: gr.DownloadButton(value=str(lora)) if lora else gr.DownloadButton(interactive=False),
            self.pack_button: gr.Button(visible=True),
            self.project_download: gr.DownloadButton(visible=False),
        }

    def _render_frame_hint(self, project: Project) -> Updates:
        frame = actions.suggest_frame(project, project.read_state())
        if frame is None:
            return {
                self.frame_hint: render_messages("The edited frames show nearly the whole region."),
                self.edit_frame_button: gr.Button(visible=False),
            }
        hint = f"Frame {frame} has the largest area that no edited frame shows. If the result is poor there, edit that frame too."
        return {self.frame_hint: render_messages(hint), self.edit_frame_button: gr.Button(f"Edit frame {frame} too", visible=True)}

    def _render_frame(self, project: Project, number: int, frame: int, **extra: Any) -> Updates:
        source, edit = actions.read_result_clips(project, get_result(project, number))
        overlay = {"over": pictures.encode_jpeg(pictures.shrink_frame(edit.frames[frame])), "over_label": "edited",
                "split": pictures.find_divider_position(source.frames[frame], edit.frames[frame])}  # fmt: skip
        still = pictures.build_still(source.frames[frame], frame, source.num_frames, "source", **overlay, **extra)
        return {self.current_frame: frame, self.view: still}

    def select_result(self, project_id: str, number: int | None) -> Updates:
        """Show another result."""
        return self.show(self.app_state.open_project(project_id), number)

    def show_frame(self, project_id: str, number: int | None, event: gr.EventData) -> Updates:
        """Show another frame."""
        return self._render_frame(self.app_state.open_project(project_id), number or 0, read_frame_number(event))

    def play_frames(self, project_id: str, number: int | None, event: gr.EventData) -> Updates:
        """Play source and edit."""
        project = self.app_state.open_project(project_id)
        source, edit = actions.read_result_clips(project, get_result(project, number))
        return self._render_frame(project, number or 0, read_frame_number(event), film=pictures.build_playback(source, edit=edit))

    def pack_project(self, project_id: str, number: int | None) -> Updates:
        """Pack the project into one file for download."""
        project = self.app_state.open_project(project_id)
        file = actions.pack_project(project, get_result(project, number))
        return {self.pack_button: gr.Button(visible=False), self.project_download: gr.DownloadButton(value=str(file), visible=True)}

    def start_regeneration(self, project_id: str, number: int | None, seed: float | None, file: str | None) -> Updates:
        """Start generating with the same LoRA and another seed or first frame."""
        project = self.app_state.open_project(project_id)
        if number is None:
            raise InputError("there is no result yet; train first")
        first_frame = project.path / project.import_file(Path(file)) if file else None
        actions.start_regeneration(self.app_state.device_queue, project, number, parse_integer(seed, 0, 2**62, "the seed"), first_frame)
        return {}
