"""Step 1: the clip, and which part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.types import Video
from lora_edit.ui import pictures
from lora_edit.ui.changes import trim_remarks, trimmed
from lora_edit.ui.parts import Office, Updates, file_field, frame_asked_for, heading, message, number_in, said, viewer
from lora_edit.ui.projects import Folder, Project
from lora_edit.ui.region import check_range, first_range, read_clip

CLIP = "Drop a video or GIF here"

MADE_FOR_A_CLIP = ("marks", "imported", "imported_use", "left_out", "grown", "inverted", "bridged", "first_frame", "later")
"""What of a project means nothing on another clip."""

ANOTHER_CLIP = "This is another clip: the marks and edited frames of the one before are gone. Undo brings both back."


class ClipStep:
    """Drop a clip; trim it."""

    def __init__(self, office: Office, name: Any) -> None:
        self.office, self.name, self.at = office, name, gr.State(0)
        heading("Your clip", "A few seconds of video. It stays on the computer that runs this page; sound, size and rate are kept.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.file = gr.File(label=CLIP, elem_id="clip-file", height=150)
                self.fault = message()
                self.view = viewer("clip-view", "Clip")
                self.pictured = [self.at, self.view]
            with gr.Column(scale=2, visible=False) as self.side:
                self.facts = gr.HTML("", elem_classes="facts")
                self.start = gr.Number(0, label="First frame", info="Counted from 0", precision=0, minimum=0, elem_id="clip-start")
                self.frames = gr.Number(None, label="Frames", info="Empty: all to the end", precision=0, minimum=0, elem_id="clip-frames")
                self.trim = gr.Button("Trim", elem_id="clip-trim")
                self.trim_fault = message()
                self.next = gr.Button("Continue", variant="primary", elem_id="clip-next")

    def outputs(self) -> list[Any]:
        """What `show` may change."""
        return [self.name, self.at, self.view, self.side, self.facts, self.start, self.frames, self.file, self.trim_fault]

    def show(self, folder: Folder) -> Updates:
        """The step as the project is."""
        project = folder.now()
        if not project.clip:
            return {self.view: None, self.side: gr.Column(visible=False), self.file: file_field(folder, "", CLIP)}
        return {
            self.name: folder.id,
            **self._pictured(folder, 0),
            self.side: gr.Column(visible=True),
            self.facts: said(_facts(project, read_clip(folder, project))),
            self.start: project.start,
            self.frames: project.frames,
            self.file: file_field(folder, project.clip, CLIP),
            self.trim_fault: "",
        }

    def revisited(self, folder: Folder, frame: int) -> Updates:
        """The step when it is come to again."""
        return self._pictured(folder, frame) if folder.now().clip else {}

    def dropped(self, name: str, file: str | None) -> Updates:
        """A clip was dropped: it starts a project of its own, unless it replaces the clip of one."""
        if not file:
            return {}
        length = first_range(Path(file))
        folder = self.office.open(name) if name else self.office.shelf.new()
        with folder.keeping(Path(file)) as kept:
            check_range(folder, Project(clip=kept, frames=length))
        before = folder.now()
        made_for_it = {key: Project.model_fields[key].default for key in MADE_FOR_A_CLIP}
        folder.change(clip=kept, clip_name=Path(file).name, start=0, frames=length, **made_for_it)
        gone = any(getattr(before, key) != value for key, value in made_for_it.items())
        return {**self.show(folder), self.trim_fault: said(ANOTHER_CLIP, "warning") if gone else ""}

    def trimmed(self, name: str, start: float | None, frames: float | None) -> Updates:
        """Another range; marks and edited frames stay with the frames that they were made for."""
        folder = self.office.open(name)
        length = number_in(frames, 1, 10**7, "frames") if frames else None
        before = folder.now()
        after = trimmed(before, number_in(start, 0, 10**7, "the first frame"), length)
        count = check_range(folder, after)
        folder.change(**{key: getattr(after, key) for key in Project.model_fields})
        return {**self.show(folder), self.trim_fault: said(trim_remarks(before, after, count), "warning")}

    def frame(self, name: str, event: gr.EventData) -> Updates:
        """Show another frame."""
        return self._pictured(self.office.open(name), frame_asked_for(event))

    def _pictured(self, folder: Folder, frame: int, **film: Any) -> Updates:
        video = read_clip(folder, folder.now())
        frame = min(frame, video.num_frames - 1)
        return {self.at: frame, self.view: pictures.still(video.frames[frame], frame, video.num_frames, "Clip", **film)}

    def film(self, name: str, event: gr.EventData) -> Updates:
        """Play."""
        folder = self.office.open(name)
        return self._pictured(folder, frame_asked_for(event), film=pictures.film(read_clip(folder, folder.now())))


def _facts(project: Project, video: Video) -> str:
    """The clip in words."""
    sound = "with sound" if video.has_sound else "without sound"
    return f"{project.clip_name}: {video.num_frames} frames, {video.size}, {float(video.fps):.4g} per second, {sound}"
