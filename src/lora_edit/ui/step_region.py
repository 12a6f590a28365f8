"""Step 2: what changes. Clicks, boxes, paint or a mask of one's own, followed through the clip and shown on every frame."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from lora_edit.errors import MaskError
from lora_edit.masks.overlay import with_region
from lora_edit.reporting import Reporter
from lora_edit.types import Video
from lora_edit.ui import pictures, work
from lora_edit.ui.jobs import Job
from lora_edit.ui.parts import Office, Updates, file_field, frame_asked_for, heading, message, number_in, said, viewer
from lora_edit.ui.projects import Folder, Mark, Project
from lora_edit.ui.region import PLACES, Region, drawn_mark, follow, followed_part, has_region, read_clip, region_of, seen_at

SHAPES = [
    ("Loose box", "box"),
    ("Close to the outline", "tight"),
    ("Rough blocks", "noisy"),
    ("Exactly as drawn", "as-is"),
]
OBJECTS = ["1", "2", "3", "4"]
USES = [("Instead of what is marked", "instead"), ("Added to it", "add"), ("Taken away from it", "subtract")]
KNOBS = ("shape", "expand", "grow", "feather", "smooth", "bridged", "left_out", "inverted", "imported_use")
"""What `shaped` takes, in the order of `knobs`."""


MASK = "A video or one image; white is edited"

FOLLOWING = "Following it through the clip"

PLACE = ("X", "Y", "Width", "Height", "On frame")
"""Numbers that say where a thing is: a point, or a box where there is a width and a height."""


class RegionStep:
    """Mark the thing, see the mask follow it, correct it."""

    def __init__(self, office: Office) -> None:
        self.office, self.at, self.did = office, gr.State(0), gr.State(False)
        self.turns: Counter[str] = Counter()  # of each project: how often all that waits was cancelled
        heading("What changes?", "Click on the thing. Go to a frame where the mask is off and click again: it is corrected from there.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.view = viewer("region-view", "Edit region")
                self.fault = message()
                self.notes = message()
                self.fault_followed, self.fault_settled = message(), message()
                self.on = gr.Button("Follow on", visible=False, elem_id="region-on")
                self.pictured = [self.at, self.view, self.notes, self.on]
            with gr.Column(scale=2):
                self._sidebar()

    def _sidebar(self) -> None:
        self.object = gr.Dropdown(OBJECTS, value="1", label="Object that the next marks are about", elem_id="region-object")
        with gr.Row():
            self.last = gr.Button("Remove last mark", elem_id="region-last")
            self.clear = gr.Button("Clear all", elem_id="region-clear")
        self.shape = gr.Radio(
            SHAPES, value="box", label="Shape of the region", info="A loose box suits most edits best", elem_id="region-shape"
        )
        self.expand = gr.Slider(0, 1, 0.1, step=0.05, label="Room around it", info="Share of its size", buttons=[], elem_id="region-expand")
        with gr.Accordion("Grow, soften, steady, leave out, invert", open=False):
            self.grow = gr.Slider(0, 100, 0, step=1, label="Grow by (pixels)", buttons=[], elem_id="region-grow")
            self.feather = gr.Slider(0, 0.1, 0.02, step=0.005, label="Soft edge (share of the frame)", buttons=[], elem_id="region-feather")
            self.smooth = gr.Slider(1, 31, 5, step=2, label="Steady over (frames; 1 is off)", buttons=[], elem_id="region-smooth")
            self.bridge = gr.Checkbox(False, label="Bridge frames in which it was lost", elem_id="region-bridge")
            self.out = gr.CheckboxGroup(OBJECTS, label="Objects that stay as they are", elem_id="region-out")
            self.invert = gr.Checkbox(False, label="Invert: edit everything but this", elem_id="region-invert")
        with gr.Accordion("Type a place instead of clicking", open=False):
            with gr.Row():
                self.numbers = [gr.Number(None, label=each, precision=0, min_width=110) for each in PLACE]
            self.typed = gr.Button("Add", elem_id="region-add")
        with gr.Accordion("Use a mask of your own", open=False):
            self.mask = gr.File(label=MASK, elem_id="region-mask", height=150)
            self.use = gr.Radio(USES, value="instead", label="The mask is used", elem_id="region-use")
            self.mask_fault = message()
        with gr.Accordion("Save what is shown", open=False):
            self.make = gr.Button("Make a video of the region", elem_id="region-film")
            self.saved = gr.DownloadButton("Download it", visible=False, elem_id="region-saved")
        self.knobs = [self.shape, self.expand, self.grow, self.feather, self.smooth, self.bridge, self.out, self.invert, self.use]
        self.fault_side = message()
        self.next = gr.Button("Continue", variant="primary", elem_id="region-next")

    def outputs(self) -> list[Any]:
        """What `show` may change."""
        return [*self.pictured, self.mask, self.saved, *self.knobs]

    def show(self, folder: Folder, frame: int = 0) -> Updates:
        """The step as the project is, at a frame."""
        project = folder.now()
        if not project.clip:
            return {self.view: None}
        grown = {"grow": min(project.grown), "left_out": list(project.left_out)}
        values = [grown[knob] if knob in grown else getattr(project, knob) for knob in KNOBS]
        mask = {self.mask: file_field(folder, project.imported, MASK)}
        return {**self._pictured(folder, project, frame), **dict(zip(self.knobs, values, strict=True)), **mask, **self.filmed(folder)}

    def _pictured(self, folder: Folder, project: Project, frame: int, here: torch.Tensor | None = None, **more: Any) -> Updates:
        """A frame with its region, or with what is known to be `here` while the region is still being made."""
        video, job = read_clip(folder, project), self._unfollowed(folder, project)
        frame = min(frame, video.num_frames - 1)
        known = has_region(project) or bool(project.first_frame)
        region = region_of(folder, project) if known and here is None and job is None else None
        if job is not None and not job.over:
            more["pending"] = FOLLOWING
        picture = _tinted(video, region, frame) if here is None else with_region(video.frames[frame], here)
        marks = [mark.model_dump() for mark in project.marks if mark.frame == frame and mark.kind in ("point", "not-point", "box")]
        still = pictures.still(picture, frame, video.num_frames, "Edit region", marking=True, marks=marks, **more)
        stopped = job is not None and job.over
        notes = region.notes if region else (["the mask was not followed to the end"] if stopped else ())
        return {self.at: frame, self.view: still, self.notes: said(notes), self.on: gr.Button(visible=stopped)}

    def _unfollowed(self, folder: Folder, project: Project) -> Job | None:
        """The work on the project's marks as they are, where it was stopped or is not done yet."""
        job = self.office.hands.newest(folder.id)
        return job if job is not None and job.state != "done" and job.about == followed_part(project) else None

    def marked(self, name: str, object_name: str, event: gr.EventData) -> Updates:
        """A click, a box or a stroke on the frame: what it marks there is shown at once, and followed through the clip after that."""
        folder = self.office.open(name)
        return self._mark(folder, drawn_mark(event._data, object_name, read_clip(folder, folder.now()).num_frames))

    def _mark(self, folder: Folder, mark: Mark) -> Updates:
        """Keep a mark when the region can be made with it, unless all is cleared or undone meanwhile; what is being followed is followed
        anew with it."""
        self.office.hands.stop(folder.id)
        turn = self.turns[folder.id]
        project = folder.now().having(marks=(*_without(folder.now().marks, mark), mark))
        here = self._outlined(folder, project, mark)
        if turn != self.turns[folder.id]:
            return self._redrawn(folder, mark.frame)
        folder.change(marks=project.marks)
        self._announce(folder)
        return self._pictured(folder, project, mark.frame, here, pending=FOLLOWING)

    def _outlined(self, folder: Folder, project: Project, mark: Mark) -> torch.Tensor | None:
        """What the project's newest mark says where it is, `[H, W]` bool; None for a stroke. Raises `MaskError` where it says nothing."""
        if mark.kind in PLACES:
            return seen_at(folder, project, read_clip(folder, project), mark.frame, mark.object)
        region_of(folder, project)
        return None

    def cancel(self, folder: Folder) -> None:
        """End what is done for the marks, and forget the mark that is on its way."""
        self.turns[folder.id] += 1
        self.office.hands.stop(folder.id)

    def _announce(self, folder: Folder) -> None:
        """Say that the marks will be followed, so that the page shows it from now on."""
        project = folder.now()

        def made(reporter: Reporter) -> Region:
            follow(folder, project, reporter)
            return region_of(folder, project)

        self.office.hands.announce(folder.id, "follow", made, folder.log, followed_part(project))

    def followed(self, name: str) -> Updates:
        """Follow what was announced, if anything was."""
        job = self.office.hands.newest(self.office.open(name).id)
        waits = job is not None and job.state == "waiting"
        if job is not None and waits:
            self.office.hands.do(job)
        return {self.did: waits}

    def resumed(self, name: str, frame: int) -> Updates:
        """Go on with what was stopped; what was followed by then is kept."""
        folder = self.office.open(name)
        self._announce(folder)
        return self._pictured(folder, folder.now(), frame)

    def settled(self, name: str, did: bool, frame: int) -> Updates:
        """The picture after following; nothing while newer marks are followed: what was done last is told last."""
        folder = self.office.open(name)
        job = self.office.hands.newest(folder.id)
        return self._redrawn(folder, frame) if did and (job is None or job.over) else {}

    def check_followed(self, folder: Folder) -> None:
        """Raise `MaskError` when following was stopped, as all that comes next needs the whole mask."""
        job = self._unfollowed(folder, folder.now())
        if job is not None and job.over:
            raise MaskError("the mask was not followed to the end; press Follow on first, or change the marks")

    def revisited(self, folder: Folder, frame: int) -> Updates:
        """The step when it is come to again."""
        return self._redrawn(folder, frame) if folder.now().clip else {}

    def _redrawn(self, folder: Folder, frame: int) -> Updates:
        """The picture after a change of what is marked; the knobs are left alone, as one may be moved meanwhile."""
        return {**self._pictured(folder, folder.now(), frame), **self.filmed(folder)}

    def added(self, name: str, object_name: str, *numbers: float | None) -> Updates:
        """A place typed in: a point, or a box when it has a width and a height."""
        video = read_clip(self.office.open(name), self.office.open(name).now())
        x, y = (
            number_in(value, 0, limit, what)
            for value, limit, what in zip(numbers, (video.size.width, video.size.height), "XY", strict=False)
        )
        frame = number_in(numbers[4] or 0, 0, video.num_frames - 1, "the frame")
        width, height = (int(value or 0) for value in numbers[2:4])
        kind = "box" if width > 0 and height > 0 else "point"
        return self._mark(self.office.open(name), Mark(kind=kind, frame=frame, object=object_name, x=x, y=y, width=width, height=height))

    def removed(self, name: str, frame: int) -> Updates:
        """Take the last mark away."""
        folder = self.office.open(name)
        self.office.hands.stop(folder.id)
        folder.change(marks=folder.now().marks[:-1])
        return self._redrawn(folder, frame)

    def cleared(self, name: str, frame: int) -> Updates:
        """Start the region anew."""
        folder = self.office.open(name)
        self.cancel(folder)
        folder.change(marks=(), imported="", imported_use="instead", left_out=(), grown=(0, 0, 0, 0), inverted=False, bridged=False)
        return self.show(folder, frame)

    def shaped(self, name: str, frame: int, *values: Any) -> Updates:
        """Another shape, more room, grown, softer, steadier, bridged, turned over; or the mask is used in another way."""
        folder = self.office.open(name)
        given = dict(zip(KNOBS, values, strict=True))
        grow, grown = int(given.pop("grow")), folder.now().grown
        following = folder.now().having(**given, grown=grown if grow == min(grown) else (grow,) * 4)
        if has_region(following) and self._unfollowed(folder, following) is None:
            region_of(folder, following)
        folder.change(**given, grown=following.grown)
        return self._redrawn(folder, frame)

    def imported(self, name: str, file: str | None) -> Updates:
        """A mask of one's own."""
        if not file:
            return {}
        folder = self.office.open(name)
        with folder.keeping(Path(file)) as kept:
            region_of(folder, folder.now().having(imported=kept))
        folder.change(imported=kept)
        return self.show(folder)

    def film_started(self, name: str) -> Updates:
        """The clip with its region as a video."""
        folder = self.office.open(name)
        work.start_overlay(self.office.quick, folder)
        return self.filmed(folder)

    def filmed(self, folder: Folder) -> Updates:
        """The video of the region, once it is made and as long as it shows the project as it is."""
        job = self.office.quick.newest(folder.id)
        fits = job is not None and job.kind == "overlay" and job.about == folder.now() and job.state == "done"
        return {self.saved: gr.DownloadButton(value=str(job.result), visible=True) if job and fits else gr.DownloadButton(visible=False)}

    def frame(self, name: str, event: gr.EventData) -> Updates:
        """Show another frame."""
        folder = self.office.open(name)
        return self._pictured(folder, folder.now(), frame_asked_for(event))

    def film(self, name: str, event: gr.EventData) -> Updates:
        """Play, with the region."""
        folder = self.office.open(name)
        project = folder.now()
        known = has_region(project) and self._unfollowed(folder, project) is None
        region = region_of(folder, project).shaped.frames if known else None
        return self._pictured(folder, project, frame_asked_for(event), film=pictures.film(read_clip(folder, project), region))


def _tinted(video: Video, region: Region | None, frame: int) -> Any:
    if region is None:
        return video.frames[frame]
    return with_region(video.frames[frame], region.shaped.frames[frame], region.drawn.frames[frame])


def _without(marks: tuple[Mark, ...], new: Mark) -> tuple[Mark, ...]:
    """The marks that a new one leaves standing: an object has one box on a frame."""
    if new.kind != "box":
        return marks
    return tuple(mark for mark in marks if (mark.kind, mark.object, mark.frame) != ("box", new.object, new.frame))
