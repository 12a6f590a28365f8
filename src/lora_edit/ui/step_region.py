"""Step 2: the edit region, from clicks, boxes, brush strokes or an imported mask, propagated through the clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from lora_edit.errors import MaskError
from lora_edit.masks.overlay import draw_region
from lora_edit.masks.segmenter_registry import takes_text
from lora_edit.masks.settings import MaskSettings
from lora_edit.reporting import Reporter
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
from lora_edit.ui.jobs import Job
from lora_edit.ui.projects import Mark, Project, ProjectState
from lora_edit.ui.region import (
    PROMPT_KINDS,
    Region,
    compute_region,
    find_described_marks,
    has_region,
    parse_mark,
    propagate_marks,
    read_clip,
    segment_object,
    select_mark_fields,
)

SHAPE_CHOICES = [
    ("Loose box", "box"),
    ("Close to the outline", "tight"),
    ("Rough blocks", "noisy"),
    ("Exactly as drawn", "as-is"),
]
OBJECT_NAMES = ["1", "2", "3", "4"]
MASK_USE_CHOICES = [("Instead of the marks", "instead"), ("Added to the marks", "add"), ("Subtracted from the marks", "subtract")]
MASK_LABEL = "A video or one image; white is edited"

PROPAGATING_MESSAGE = "Following it through the clip"

MARK_NUMBER_LABELS = ("X", "Y", "Width", "Height", "On frame")
"""Labels of the fields of a typed mark: a point, or a box with a width and a height."""


class RegionStep:
    """The step that marks objects, propagates their masks and corrects them."""

    def __init__(self, app_state: AppState) -> None:
        self.app_state, self.current_frame, self.propagation_done = app_state, gr.State(0), gr.State(False)
        self.cancel_counts: Counter[str] = Counter()  # per project: the number of times that all pending marks were cancelled
        create_heading(
            "What changes?", "Click on the object. On a frame where the mask is wrong, click again: it is corrected from there on."
        )
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.view = create_viewer("region-view", "Edit region")
                self.error_message = create_message()
                self.notes = create_message()
                self.propagation_error, self.refresh_error = create_message(), create_message()
                self.resume_button = gr.Button("Follow on", visible=False, elem_id="region-on")
                self.frame_outputs = [self.current_frame, self.view, self.notes, self.resume_button]
            with gr.Column(scale=2):
                self._build_sidebar()

    def _build_sidebar(self) -> None:
        self.object_choice = gr.Dropdown(OBJECT_NAMES, value="1", label="Object of the next marks", elem_id="region-object")
        with gr.Row():
            self.remove_button = gr.Button("Remove last mark", elem_id="region-last")
            self.clear_button = gr.Button("Clear all", elem_id="region-clear")
        self.shape = gr.Radio(
            SHAPE_CHOICES, value="box", label="Shape of the region", info="A loose box works best for most edits", elem_id="region-shape"
        )
        self.expand = gr.Slider(
            0, 1, MaskSettings().expand, step=0.05, label="Room around it", info="Share of its size", buttons=[], elem_id="region-expand"
        )
        with gr.Accordion("Grow, soften, steady, leave out, invert", open=False):
            self.grow = gr.Slider(0, 100, 0, step=1, label="Grow by (pixels)", buttons=[], elem_id="region-grow")
            self.feather = gr.Slider(0, 0.1, 0.02, step=0.005, label="Soft edge (share of the frame)", buttons=[], elem_id="region-feather")
            self.smooth = gr.Slider(
                1, 31, MaskSettings().smooth, step=2, label="Steady over (frames; 1 is off)", buttons=[], elem_id="region-smooth"
            )
            self.bridge = gr.Checkbox(False, label="Bridge frames in which the object was lost", elem_id="region-bridge")
            self.excluded_objects = gr.CheckboxGroup(OBJECT_NAMES, label="Objects that stay as they are", elem_id="region-out")
            self.invert = gr.Checkbox(False, label="Invert: edit everything else", elem_id="region-invert")
        with gr.Accordion("Type a position instead of clicking", open=False):
            with gr.Row():
                self.mark_numbers = [gr.Number(None, label=each, min_width=110) for each in MARK_NUMBER_LABELS]
            self.add_button = gr.Button("Add", elem_id="region-add")
        with gr.Accordion("Describe it instead of clicking", open=False, visible=takes_text(self.app_state.store.segmenter)):
            self.description = gr.Textbox(label="What is it?", placeholder="the red car", max_length=200, elem_id="region-text")
            self.describe_button = gr.Button("Find it in the first frame", elem_id="region-find")
        with gr.Accordion("Use a mask of your own", open=False):
            self.mask_file = gr.File(label=MASK_LABEL, elem_id="region-mask", height=150)
            self.mask_use = gr.Radio(MASK_USE_CHOICES, value="instead", label="The mask is used", elem_id="region-use")
            self.mask_error = create_message()
        with gr.Accordion("Save the region as a video", open=False):
            self.overlay_button = gr.Button("Make a video of the region", elem_id="region-film")
            self.overlay_download = gr.DownloadButton("Download the video", visible=False, elem_id="region-saved")
        self.controls = {
            "shape": self.shape,
            "expand": self.expand,
            "grow": self.grow,
            "feather": self.feather,
            "smooth": self.smooth,
            "bridged": self.bridge,
            "left_out": self.excluded_objects,
            "inverted": self.invert,
            "imported_use": self.mask_use,
        }
        """Controls by the state field that each sets; `grow` sets all four sides of `grown`."""
        self.sidebar_error = create_message()
        self.next_button = gr.Button("Continue", variant="primary", elem_id="region-next")

    def list_outputs(self) -> list[Any]:
        """List the elements that `show` updates."""
        return [*self.frame_outputs, self.mask_file, self.overlay_download, *self.controls.values()]

    def show(self, project: Project, frame: int = 0) -> Updates:
        """Render the step for the project's current state, at a frame."""
        state = project.read_state()
        if not state.clip:
            return {self.view: None}
        converted = {"grow": min(state.grown), "left_out": list(state.left_out)}
        values = {control: converted[name] if name in converted else getattr(state, name) for name, control in self.controls.items()}
        mask = {self.mask_file: build_file_field(project, state.imported, MASK_LABEL)}
        return {
            **self._render_frame(project, state, frame),
            **values,
            **mask,
            **self.update_overlay_download(project),
        }

    def _render_frame(
        self, project: Project, state: ProjectState, frame: int, known_mask: torch.Tensor | None = None, **extra: Any
    ) -> Updates:
        """Render a frame with its region, or with `known_mask` `[H, W]` bool while the region is still computed."""
        video, job = read_clip(project, state), self._find_unfinished_job(project, state)
        frame = min(frame, video.num_frames - 1)
        is_defined = has_region(state) or bool(state.first_frame)
        region = compute_region(project, state) if is_defined and known_mask is None and job is None else None
        if job is not None and not job.is_finished:
            extra["pending"] = PROPAGATING_MESSAGE
        picture = _draw_region(video, region, frame) if known_mask is None else draw_region(video.frames[frame], known_mask)
        marks = [mark.model_dump() for mark in state.marks if mark.frame == frame and mark.kind in PROMPT_KINDS]
        still = pictures.build_still(picture, frame, video.num_frames, "Edit region", marking=True, marks=marks, **extra)
        is_stopped = job is not None and job.is_finished
        notes = region.notes if region else (["the mask was not propagated to the end of the clip"] if is_stopped else ())
        resume_button = gr.Button(visible=is_stopped)
        return {self.current_frame: frame, self.view: still, self.notes: render_messages(notes), self.resume_button: resume_button}

    def _find_unfinished_job(self, project: Project, state: ProjectState) -> Job | None:
        """Return the propagation job of the current marks if it was stopped or has not finished."""
        job = self.app_state.foreground.get_latest_job(project.id)
        return job if job is not None and job.state != "done" and job.project_state == select_mark_fields(state) else None

    def add_mark(self, project_id: str, object_name: str, event: gr.EventData) -> Updates:
        """Add a click, a box or a stroke: show its mask on the frame at once, then propagate it through the clip."""
        project = self.app_state.open_project(project_id)
        return self._add_marks(project, [parse_mark(event._data, object_name, read_clip(project, project.read_state()).num_frames)])

    def add_described_marks(self, project_id: str, object_name: str, text: str) -> Updates:
        """Mark the objects of the first frame that a text describes, from the chosen object's name on."""
        project = self.app_state.open_project(project_id)
        names = OBJECT_NAMES[OBJECT_NAMES.index(object_name) :] if object_name in OBJECT_NAMES else OBJECT_NAMES
        return self._add_marks(project, find_described_marks(project, project.read_state(), text, names))

    def _add_marks(self, project: Project, new_marks: Sequence[Mark]) -> Updates:
        """Store marks if the region can be computed with them, unless the marks were cleared or undone meanwhile; restart propagation."""
        self.app_state.foreground.stop(project.id)
        cancel_count = self.cancel_counts[project.id]
        marks, mark = project.read_state().marks, new_marks[-1]
        for each in new_marks:
            marks = (*_remove_replaced_box(marks, each), each)
        state = project.read_state().replace_fields(marks=marks)
        mask = self._segment_mark(project, state, mark)
        if cancel_count != self.cancel_counts[project.id]:
            return self._refresh_frame(project, mark.frame)
        project.update_state(marks=state.marks)
        self._register_propagation(project)
        return self._render_frame(project, state, mark.frame, mask, pending=PROPAGATING_MESSAGE)

    def _segment_mark(self, project: Project, state: ProjectState, mark: Mark) -> torch.Tensor | None:
        """Segment the newest mark's object on its frame, `[H, W]` bool; None for a stroke. Raises `MaskError` if no mark locates it."""
        if mark.kind in PROMPT_KINDS:
            return segment_object(project, state, read_clip(project, state), mark.frame, mark.object)
        compute_region(project, state)
        return None

    def cancel_marks(self, project: Project) -> None:
        """Stop the propagation and discard marks that are still processed."""
        self.cancel_counts[project.id] += 1
        self.app_state.foreground.stop(project.id)

    def _register_propagation(self, project: Project) -> None:
        """Register a propagation job, so that the page shows it as pending."""
        state = project.read_state()

        def work(reporter: Reporter) -> Region:
            propagate_marks(project, state, reporter)
            return compute_region(project, state)

        self.app_state.foreground.register_job(project.id, "follow", work, project.log, select_mark_fields(state))

    def run_propagation(self, project_id: str) -> Updates:
        """Run the registered propagation job, if there is one."""
        job = self.app_state.foreground.get_latest_job(self.app_state.open_project(project_id).id)
        is_waiting = job is not None and job.state == "waiting"
        if job is not None and is_waiting:
            self.app_state.foreground.run_job(job)
        return {self.propagation_done: is_waiting}

    def resume_propagation(self, project_id: str, frame: int) -> Updates:
        """Resume a stopped propagation; finished frames are kept."""
        project = self.app_state.open_project(project_id)
        self._register_propagation(project)
        return self._render_frame(project, project.read_state(), frame)

    def show_propagation(self, project_id: str, propagation_done: bool, frame: int) -> Updates:
        """Show the frame after a propagation; nothing while newer marks are propagated."""
        project = self.app_state.open_project(project_id)
        job = self.app_state.foreground.get_latest_job(project.id)
        return self._refresh_frame(project, frame) if propagation_done and (job is None or job.is_finished) else {}

    def check_propagation(self, project: Project) -> None:
        """Raise `MaskError` if the propagation was stopped: the later steps need the whole mask."""
        job = self._find_unfinished_job(project, project.read_state())
        if job is not None and job.is_finished:
            raise MaskError("the mask was not propagated to the end of the clip; press Follow on first, or change the marks")

    def refresh(self, project: Project, frame: int) -> Updates:
        """Update the step on return to it."""
        return self._refresh_frame(project, frame) if project.read_state().clip else {}

    def _refresh_frame(self, project: Project, frame: int) -> Updates:
        """Render the frame after a change of the marks; the controls are not updated, as one may be in use."""
        return {**self._render_frame(project, project.read_state(), frame), **self.update_overlay_download(project)}

    def add_typed_mark(self, project_id: str, object_name: str, *numbers: float | None) -> Updates:
        """Add a typed mark: a point, or a box if it has a width and a height."""
        video = read_clip(self.app_state.open_project(project_id), self.app_state.open_project(project_id).read_state())
        x, y = (
            parse_integer(value, 0, limit, label)
            for value, limit, label in zip(numbers, (video.size.width, video.size.height), "XY", strict=False)
        )
        frame = parse_integer(numbers[4] or 0, 0, video.num_frames - 1, "the frame")
        width, height = (parse_integer(value or 0, 0, 10**7, label) for value, label in zip(numbers[2:4], ("width", "height"), strict=True))
        kind = "box" if width > 0 and height > 0 else "point"
        mark = {"kind": kind, "frame": frame, "x": x, "y": y, "width": width, "height": height}
        return self._add_marks(self.app_state.open_project(project_id), [parse_mark(mark, object_name, video.num_frames)])

    def remove_last_mark(self, project_id: str, frame: int) -> Updates:
        """Remove the last mark."""
        project = self.app_state.open_project(project_id)
        self.app_state.foreground.stop(project.id)
        project.update_state(marks=project.read_state().marks[:-1])
        return self._refresh_frame(project, frame)

    def clear_region(self, project_id: str, frame: int) -> Updates:
        """Reset the region."""
        project = self.app_state.open_project(project_id)
        self.cancel_marks(project)
        project.update_state(marks=(), imported="", imported_use="instead", left_out=(), grown=(0, 0, 0, 0), inverted=False, bridged=False)
        return self.show(project, frame)

    def build_update(self, name: str) -> Callable[..., Updates]:
        """Build the event handler of a control."""
        return lambda project_id, frame, value: self.update_shape(project_id, frame, name, value)

    def update_shape(self, project_id: str, frame: int, name: str, value: Any) -> Updates:
        """Update the region from one control; the others may be in use, or still show the values of an unopened project."""
        project = self.app_state.open_project(project_id)
        new_state = _apply_control(project.read_state(), name, value)
        if has_region(new_state) and self._find_unfinished_job(project, new_state) is None:
            compute_region(project, new_state)
        changed = "grown" if name == "grow" else name
        project.update_state(**{changed: getattr(new_state, changed)})
        return self._refresh_frame(project, frame)

    def import_mask(self, project_id: str, file: str | None) -> Updates:
        """Import a mask."""
        if not file:
            return {}
        project = self.app_state.open_project(project_id)
        with project.stage_file(Path(file)) as stored_file:
            compute_region(project, project.read_state().replace_fields(imported=stored_file))
        project.update_state(imported=stored_file)
        return self.show(project)

    def start_overlay(self, project_id: str) -> Updates:
        """Start the video of the clip with its region."""
        project = self.app_state.open_project(project_id)
        actions.start_overlay(self.app_state.background, project)
        return self.update_overlay_download(project)

    def update_overlay_download(self, project: Project) -> Updates:
        """Offer the video of the region once it is finished, as long as it matches the current state."""
        job = self.app_state.background.get_latest_job(project.id)
        is_current = job is not None and job.kind == "overlay" and job.project_state == project.read_state() and job.state == "done"
        return {
            self.overlay_download: gr.DownloadButton(value=str(job.result), visible=True)
            if job and is_current
            else gr.DownloadButton(visible=False)
        }

    def show_frame(self, project_id: str, event: gr.EventData) -> Updates:
        """Show another frame."""
        project = self.app_state.open_project(project_id)
        return self._render_frame(project, project.read_state(), read_frame_number(event))

    def play_frames(self, project_id: str, event: gr.EventData) -> Updates:
        """Play the clip with the region."""
        project = self.app_state.open_project(project_id)
        state = project.read_state()
        is_computed = has_region(state) and self._find_unfinished_job(project, state) is None
        region = compute_region(project, state).edit_mask.frames if is_computed else None
        return self._render_frame(project, state, read_frame_number(event), film=pictures.build_playback(read_clip(project, state), region))


def _apply_control(state: ProjectState, name: str, value: Any) -> ProjectState:
    """Return the state with the value of one control. Raises `MaskError` if it is no value of that control."""
    try:
        if name != "grow":
            return state.replace_fields(**{name: value})
        grow = int(value)
        return state.replace_fields(grown=state.grown if grow == min(state.grown) else (grow,) * 4)
    except (TypeError, ValueError) as error:
        raise MaskError("a control of the region has no valid value; reload the page") from error


def _draw_region(video: Video, region: Region | None, frame: int) -> Any:
    if region is None:
        return video.frames[frame]
    return draw_region(video.frames[frame], region.edit_mask.frames[frame], region.base_mask.frames[frame])


def _remove_replaced_box(marks: tuple[Mark, ...], new: Mark) -> tuple[Mark, ...]:
    """Return the marks without the box that a new box of the same object and frame replaces."""
    if new.kind != "box":
        return marks
    return tuple(mark for mark in marks if (mark.kind, mark.object, mark.frame) != ("box", new.object, new.frame))
