"""Step 2: what changes. Clicks, boxes, paint or a mask of one's own, followed through the clip and shown on every frame."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from lora_edit.errors import MaskError
from lora_edit.masks.overlay import draw_region
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
MASK_USE_CHOICES = [("Instead of what is marked", "instead"), ("Added to it", "add"), ("Taken away from it", "subtract")]
CONTROL_FIELDS = ("shape", "expand", "grow", "feather", "smooth", "bridged", "left_out", "inverted", "imported_use")
"""What `shaped` takes, in the order of `knobs`."""


MASK_LABEL = "A video or one image; white is edited"

PROPAGATING_MESSAGE = "Following it through the clip"

MARK_NUMBER_LABELS = ("X", "Y", "Width", "Height", "On frame")
"""Numbers that say where a thing is: a point, or a box where there is a width and a height."""


class RegionStep:
    """Mark the thing, see the mask follow it, correct it."""

    def __init__(self, app_state: AppState) -> None:
        self.app_state, self.current_frame, self.propagation_done = app_state, gr.State(0), gr.State(False)
        self.cancel_counts: Counter[str] = Counter()  # of each project: how often all that waits was cancelled
        create_heading(
            "What changes?", "Click on the thing. Go to a frame where the mask is off and click again: it is corrected from there."
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
        self.object_choice = gr.Dropdown(OBJECT_NAMES, value="1", label="Object that the next marks are about", elem_id="region-object")
        with gr.Row():
            self.remove_button = gr.Button("Remove last mark", elem_id="region-last")
            self.clear_button = gr.Button("Clear all", elem_id="region-clear")
        self.shape = gr.Radio(
            SHAPE_CHOICES, value="box", label="Shape of the region", info="A loose box suits most edits best", elem_id="region-shape"
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
            self.bridge = gr.Checkbox(False, label="Bridge frames in which it was lost", elem_id="region-bridge")
            self.excluded_objects = gr.CheckboxGroup(OBJECT_NAMES, label="Objects that stay as they are", elem_id="region-out")
            self.invert = gr.Checkbox(False, label="Invert: edit everything but this", elem_id="region-invert")
        with gr.Accordion("Type a place instead of clicking", open=False):
            with gr.Row():
                self.mark_numbers = [gr.Number(None, label=each, precision=0, min_width=110) for each in MARK_NUMBER_LABELS]
            self.add_button = gr.Button("Add", elem_id="region-add")
        with gr.Accordion("Use a mask of your own", open=False):
            self.mask_file = gr.File(label=MASK_LABEL, elem_id="region-mask", height=150)
            self.mask_use = gr.Radio(MASK_USE_CHOICES, value="instead", label="The mask is used", elem_id="region-use")
            self.mask_error = create_message()
        with gr.Accordion("Save what is shown", open=False):
            self.overlay_button = gr.Button("Make a video of the region", elem_id="region-film")
            self.overlay_download = gr.DownloadButton("Download it", visible=False, elem_id="region-saved")
        self.controls = [
            self.shape,
            self.expand,
            self.grow,
            self.feather,
            self.smooth,
            self.bridge,
            self.excluded_objects,
            self.invert,
            self.mask_use,
        ]
        self.sidebar_error = create_message()
        self.next_button = gr.Button("Continue", variant="primary", elem_id="region-next")

    def list_outputs(self) -> list[Any]:
        """What `show` may change."""
        return [*self.frame_outputs, self.mask_file, self.overlay_download, *self.controls]

    def show(self, folder: Project, frame: int = 0) -> Updates:
        """The step as the project is, at a frame."""
        project = folder.read_state()
        if not project.clip:
            return {self.view: None}
        grown = {"grow": min(project.grown), "left_out": list(project.left_out)}
        values = [grown[knob] if knob in grown else getattr(project, knob) for knob in CONTROL_FIELDS]
        mask = {self.mask_file: build_file_field(folder, project.imported, MASK_LABEL)}
        return {
            **self._render_frame(folder, project, frame),
            **dict(zip(self.controls, values, strict=True)),
            **mask,
            **self.update_overlay_download(folder),
        }

    def _render_frame(
        self, folder: Project, state: ProjectState, frame: int, known_mask: torch.Tensor | None = None, **extra: Any
    ) -> Updates:
        """A frame with its region, or with what is known to be `here` while the region is still being made."""
        video, job = read_clip(folder, state), self._find_unfinished_job(folder, state)
        frame = min(frame, video.num_frames - 1)
        known = has_region(state) or bool(state.first_frame)
        region = compute_region(folder, state) if known and known_mask is None and job is None else None
        if job is not None and not job.is_finished:
            extra["pending"] = PROPAGATING_MESSAGE
        picture = _draw_region(video, region, frame) if known_mask is None else draw_region(video.frames[frame], known_mask)
        marks = [mark.model_dump() for mark in state.marks if mark.frame == frame and mark.kind in ("point", "not-point", "box")]
        still = pictures.build_still(picture, frame, video.num_frames, "Edit region", marking=True, marks=marks, **extra)
        stopped = job is not None and job.is_finished
        notes = region.notes if region else (["the mask was not followed to the end"] if stopped else ())
        return {
            self.current_frame: frame,
            self.view: still,
            self.notes: render_messages(notes),
            self.resume_button: gr.Button(visible=stopped),
        }

    def _find_unfinished_job(self, folder: Project, state: ProjectState) -> Job | None:
        """The work on the project's marks as they are, where it was stopped or is not done yet."""
        job = self.app_state.foreground.get_latest_job(folder.id)
        return job if job is not None and job.state != "done" and job.project_state == select_mark_fields(state) else None

    def add_mark(self, project_id: str, object_name: str, event: gr.EventData) -> Updates:
        """A click, a box or a stroke on the frame: what it marks there is shown at once, and followed through the clip after that."""
        folder = self.app_state.open_project(project_id)
        return self._add_mark(folder, parse_mark(event._data, object_name, read_clip(folder, folder.read_state()).num_frames))

    def _add_mark(self, folder: Project, mark: Mark) -> Updates:
        """Keep a mark when the region can be made with it, unless all is cleared or undone meanwhile; what is being followed is followed
        anew with it."""
        self.app_state.foreground.stop(folder.id)
        turn = self.cancel_counts[folder.id]
        project = folder.read_state().replace_fields(marks=(*_remove_replaced_box(folder.read_state().marks, mark), mark))
        here = self._segment_mark(folder, project, mark)
        if turn != self.cancel_counts[folder.id]:
            return self._refresh_frame(folder, mark.frame)
        folder.update_state(marks=project.marks)
        self._register_propagation(folder)
        return self._render_frame(folder, project, mark.frame, here, pending=PROPAGATING_MESSAGE)

    def _segment_mark(self, folder: Project, state: ProjectState, mark: Mark) -> torch.Tensor | None:
        """What the project's newest mark says where it is, `[H, W]` bool; None for a stroke. Raises `MaskError` where it says nothing."""
        if mark.kind in PROMPT_KINDS:
            return segment_object(folder, state, read_clip(folder, state), mark.frame, mark.object)
        compute_region(folder, state)
        return None

    def cancel_marks(self, folder: Project) -> None:
        """End what is done for the marks, and forget the mark that is on its way."""
        self.cancel_counts[folder.id] += 1
        self.app_state.foreground.stop(folder.id)

    def _register_propagation(self, folder: Project) -> None:
        """Say that the marks will be followed, so that the page shows it from now on."""
        project = folder.read_state()

        def made(reporter: Reporter) -> Region:
            propagate_marks(folder, project, reporter)
            return compute_region(folder, project)

        self.app_state.foreground.register_job(folder.id, "follow", made, folder.log, select_mark_fields(project))

    def run_propagation(self, project_id: str) -> Updates:
        """Follow what was announced, if anything was."""
        job = self.app_state.foreground.get_latest_job(self.app_state.open_project(project_id).id)
        waits = job is not None and job.state == "waiting"
        if job is not None and waits:
            self.app_state.foreground.run_job(job)
        return {self.propagation_done: waits}

    def resume_propagation(self, project_id: str, frame: int) -> Updates:
        """Go on with what was stopped; what was followed by then is kept."""
        folder = self.app_state.open_project(project_id)
        self._register_propagation(folder)
        return self._render_frame(folder, folder.read_state(), frame)

    def show_propagation(self, project_id: str, propagation_done: bool, frame: int) -> Updates:
        """The picture after following; nothing while newer marks are followed: what was done last is told last."""
        folder = self.app_state.open_project(project_id)
        job = self.app_state.foreground.get_latest_job(folder.id)
        return self._refresh_frame(folder, frame) if propagation_done and (job is None or job.is_finished) else {}

    def check_propagation(self, folder: Project) -> None:
        """Raise `MaskError` when following was stopped, as all that comes next needs the whole mask."""
        job = self._find_unfinished_job(folder, folder.read_state())
        if job is not None and job.is_finished:
            raise MaskError("the mask was not followed to the end; press Follow on first, or change the marks")

    def refresh(self, folder: Project, frame: int) -> Updates:
        """The step when it is come to again."""
        return self._refresh_frame(folder, frame) if folder.read_state().clip else {}

    def _refresh_frame(self, folder: Project, frame: int) -> Updates:
        """The picture after a change of what is marked; the knobs are left alone, as one may be moved meanwhile."""
        return {**self._render_frame(folder, folder.read_state(), frame), **self.update_overlay_download(folder)}

    def add_typed_mark(self, project_id: str, object_name: str, *numbers: float | None) -> Updates:
        """A place typed in: a point, or a box when it has a width and a height."""
        video = read_clip(self.app_state.open_project(project_id), self.app_state.open_project(project_id).read_state())
        x, y = (
            parse_integer(value, 0, limit, what)
            for value, limit, what in zip(numbers, (video.size.width, video.size.height), "XY", strict=False)
        )
        frame = parse_integer(numbers[4] or 0, 0, video.num_frames - 1, "the frame")
        width, height = (int(value or 0) for value in numbers[2:4])
        kind = "box" if width > 0 and height > 0 else "point"
        return self._add_mark(
            self.app_state.open_project(project_id), Mark(kind=kind, frame=frame, object=object_name, x=x, y=y, width=width, height=height)
        )

    def remove_last_mark(self, project_id: str, frame: int) -> Updates:
        """Take the last mark away."""
        folder = self.app_state.open_project(project_id)
        self.app_state.foreground.stop(folder.id)
        folder.update_state(marks=folder.read_state().marks[:-1])
        return self._refresh_frame(folder, frame)

    def clear_region(self, project_id: str, frame: int) -> Updates:
        """Start the region anew."""
        folder = self.app_state.open_project(project_id)
        self.cancel_marks(folder)
        folder.update_state(marks=(), imported="", imported_use="instead", left_out=(), grown=(0, 0, 0, 0), inverted=False, bridged=False)
        return self.show(folder, frame)

    def update_shape(self, project_id: str, frame: int, *values: Any) -> Updates:
        """Another shape, more room, grown, softer, steadier, bridged, turned over; or the mask is used in another way."""
        folder = self.app_state.open_project(project_id)
        given = dict(zip(CONTROL_FIELDS, values, strict=True))
        grow, grown = int(given.pop("grow")), folder.read_state().grown
        following = folder.read_state().replace_fields(**given, grown=grown if grow == min(grown) else (grow,) * 4)
        if has_region(following) and self._find_unfinished_job(folder, following) is None:
            compute_region(folder, following)
        folder.update_state(**given, grown=following.grown)
        return self._refresh_frame(folder, frame)

    def import_mask(self, project_id: str, file: str | None) -> Updates:
        """A mask of one's own."""
        if not file:
            return {}
        folder = self.app_state.open_project(project_id)
        with folder.stage_file(Path(file)) as kept:
            compute_region(folder, folder.read_state().replace_fields(imported=kept))
        folder.update_state(imported=kept)
        return self.show(folder)

    def start_overlay(self, project_id: str) -> Updates:
        """The clip with its region as a video."""
        folder = self.app_state.open_project(project_id)
        actions.start_overlay(self.app_state.background, folder)
        return self.update_overlay_download(folder)

    def update_overlay_download(self, folder: Project) -> Updates:
        """The video of the region, once it is made and as long as it shows the project as it is."""
        job = self.app_state.background.get_latest_job(folder.id)
        fits = job is not None and job.kind == "overlay" and job.project_state == folder.read_state() and job.state == "done"
        return {
            self.overlay_download: gr.DownloadButton(value=str(job.result), visible=True)
            if job and fits
            else gr.DownloadButton(visible=False)
        }

    def show_frame(self, project_id: str, event: gr.EventData) -> Updates:
        """Show another frame."""
        folder = self.app_state.open_project(project_id)
        return self._render_frame(folder, folder.read_state(), read_frame_number(event))

    def play_frames(self, project_id: str, event: gr.EventData) -> Updates:
        """Play, with the region."""
        folder = self.app_state.open_project(project_id)
        project = folder.read_state()
        known = has_region(project) and self._find_unfinished_job(folder, project) is None
        region = compute_region(folder, project).edit_mask.frames if known else None
        return self._render_frame(
            folder, project, read_frame_number(event), film=pictures.build_playback(read_clip(folder, project), region)
        )


def _draw_region(video: Video, region: Region | None, frame: int) -> Any:
    if region is None:
        return video.frames[frame]
    return draw_region(video.frames[frame], region.edit_mask.frames[frame], region.base_mask.frames[frame])


def _remove_replaced_box(marks: tuple[Mark, ...], new: Mark) -> tuple[Mark, ...]:
    """The marks that a new one leaves standing: an object has one box on a frame."""
    if new.kind != "box":
        return marks
    return tuple(mark for mark in marks if (mark.kind, mark.object, mark.frame) != ("box", new.object, new.frame))
