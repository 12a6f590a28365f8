"""Step 3: the edited first frame, and later frames where the edit turns or opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.errors import InputError
from lora_edit.masks.overlay import with_region
from lora_edit.types import Video
from lora_edit.ui import pictures, work
from lora_edit.ui.parts import Office, Updates, file_field, frame_asked_for, heading, message, number_in, said, viewer
from lora_edit.ui.projects import Folder, Later, Project
from lora_edit.ui.region import (
    check_edit,
    conversion_note,
    covering_growth,
    edited_picture,
    growth_to,
    has_region,
    reaches_outside,
    read_clip,
    region_of,
)

WORDS = {"reference": "learned from", "anchor": "shown as it is"}
KINDS = [("Learn from it", "reference"), ("Show it exactly as it is", "anchor")]

FIRST, LATER = "Drop the edited first frame here", "Drop the edited frame here"

NOT_THIS_ONE = "The clip's first frame is not edited, only frames elsewhere are. Download it, edit it likewise, and drop it here."


class FramesStep:
    """Download a frame, edit it anywhere, drop it back."""

    def __init__(self, office: Office) -> None:
        self.office, self.at = office, gr.State(0)
        heading("The edited first frame", "Download the first frame, edit it with any image tool, drop it back. Keep its size.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.view = viewer("frames-view", "Source and edited frame")
            with gr.Column(scale=2):
                self.download = gr.DownloadButton("Download the first frame", elem_id="frames-download")
                self.file = gr.File(label=FIRST, elem_id="frames-file", height=150)
                self.fault = message()
                self.notes = message()
                self.cover = gr.Button("Grow the region to cover it", visible=False, elem_id="frames-cover")
                self._later()
                self.pictured = [self.at, self.view, self.number, self.take]
                self.next = gr.Button("Continue", variant="primary", elem_id="frames-next")

    def _later(self) -> None:
        with gr.Accordion("Edit a later frame too", open=False, elem_id="frames-later") as self.more:
            gr.HTML("<p class='lead'>Where the thing turns or opens, the first frame cannot show it. Edit a frame that does.</p>")
            with gr.Row():
                self.number = gr.Number(None, label="Frame", precision=0, minimum=1, min_width=90, elem_id="later-number")
                self.kind = gr.Radio(KINDS, value="reference", label="Use", elem_id="later-kind")
            self.suggest = gr.Button("Suggest a frame", elem_id="later-suggest")
            self.take = gr.DownloadButton("Download this frame", interactive=False, elem_id="later-download")
            self.later_file = gr.File(label=LATER, elem_id="later-file", height=150)
            self.later_fault = message()
            self.list = gr.Dropdown([], label="Edited later frames", interactive=True, elem_id="later-list")
            self.remove = gr.Button("Remove", elem_id="later-remove")

    def outputs(self) -> list[Any]:
        """What `show` may change."""
        return [self.at, self.view, self.download, self.notes, self.cover, self.list, self.file, self.later_file]

    def show(self, folder: Folder, frame: int = 0) -> Updates:
        """The step as the project is."""
        project = folder.now()
        if not project.clip:
            return {self.view: None}
        video = read_clip(folder, project)
        first = work.save_frame(folder, video.frames[0], 0)
        names = [(f"frame {each.frame}, {WORDS[each.kind]}", each.frame) for each in project.later_of(video.num_frames)]
        return {
            **self._pictured(folder, project, frame),
            self.download: gr.DownloadButton(value=str(first)),
            **self._remarks(folder, project),
            self.list: gr.Dropdown(names, value=names[-1][1] if names else None),
            self.file: file_field(folder, project.first_frame, FIRST),
            self.later_file: gr.File(None),
        }

    def _remarks(self, folder: Folder, project: Project) -> Updates:
        """What was converted of the edited first frame; does it keep to the region? If not: say so, and offer to grow it. Or was it another
        frame's?"""
        if not project.first_frame and project.later:
            return {self.notes: said(NOT_THIS_ONE, "warning"), self.cover: gr.Button(visible=False)}
        converted = said(conversion_note(folder, project.first_frame, read_clip(folder, project).size)) if project.first_frame else ""
        change = reaches_outside(folder, project)
        if change is None or growth_to(folder, project, change.suggested) == project.grown:
            return {self.notes: converted, self.cover: gr.Button(visible=False)}
        words = f"The edited first frame also changes {change.share:.1%} of the picture outside of the region; the source is shown there."
        return {self.notes: converted + said(words, "warning"), self.cover: gr.Button(visible=True)}

    def _pictured(self, folder: Folder, project: Project, frame: int, **film: Any) -> Updates:
        video = read_clip(folder, project)
        frame = min(frame, video.num_frames - 1)
        edited = {0: project.first_frame, **{each.frame: each.file for each in project.later}}.get(frame, "")
        more = _over(folder, edited, video, frame) if edited else {}
        region = region_of(folder, project).shaped.frames[frame] if (has_region(project) or project.first_frame) and not edited else None
        picture = video.frames[frame] if region is None else with_region(video.frames[frame], region)
        return {self.at: frame, self.view: pictures.still(picture, frame, video.num_frames, "source", **more, **film)}

    def dropped(self, name: str, file: str | None) -> Updates:
        """The edited first frame came back."""
        if not file:
            return {}
        folder = self.office.open(name)
        with folder.keeping(Path(file)) as kept:
            check_edit(folder, folder.now().having(first_frame=kept))
        folder.change(first_frame=kept)
        return self.show(folder)

    def covered(self, name: str) -> Updates:
        """Grow the region over what the edited first frame changes outside of it."""
        folder = self.office.open(name)
        folder.change(grown=covering_growth(folder, folder.now()))
        return self.show(folder)

    def looking(self, name: str) -> Updates:
        """Say that a frame is looked for, which takes a while."""
        return {self.later_fault: said("Looking through the clip…")}

    def suggested(self, name: str) -> Updates:
        """Which later frame shows most that no edited frame has shown."""
        folder = self.office.open(name)
        number = work.hint(folder, folder.now())
        if number is None:
            return {self.later_fault: said("The edited frames show nearly all of what changes; no other frame is needed.")}
        return {self.number: number, **self.chosen(name, number)}

    def chosen(self, name: str, number: float | None) -> Updates:
        """A later frame to edit."""
        folder = self.office.open(name)
        video = read_clip(folder, folder.now())
        frame = number_in(number, 1, video.num_frames - 1, "a later frame")
        file = work.save_frame(folder, video.frames[frame], frame)
        return {self.take: gr.DownloadButton(value=str(file), interactive=True), **self._pictured(folder, folder.now(), frame)}

    def dropped_later(self, name: str, number: float | None, kind: str, file: str | None) -> Updates:
        """An edited later frame came back."""
        if not file:
            return {}
        folder = self.office.open(name)
        video = read_clip(folder, folder.now())
        frame = number_in(number, 1, video.num_frames - 1, "a later frame")
        with folder.keeping(Path(file)) as kept:
            note = conversion_note(folder, kept, video.size)
        others = [each for each in folder.now().later if each.frame != frame]
        folder.change(later=tuple(sorted([*others, Later(frame=frame, file=kept, kind=kind)], key=lambda each: each.frame)))
        return {**self.show(folder, frame), self.later_fault: said(note)}

    def removed(self, name: str, number: int | None) -> Updates:
        """Take an edited later frame away."""
        folder = self.office.open(name)
        if number is None:
            raise InputError("no edited later frame is chosen; there is nothing to remove")
        folder.change(later=tuple(each for each in folder.now().later if each.frame != number))
        return self.show(folder)

    def frame(self, name: str, event: gr.EventData) -> Updates:
        """Show another frame, which is then the one to edit, too."""
        folder = self.office.open(name)
        if number := frame_asked_for(event):
            return {self.number: number, **self.chosen(name, number)}
        return {self.number: None, self.take: gr.DownloadButton(interactive=False), **self._pictured(folder, folder.now(), 0)}

    def film(self, name: str, event: gr.EventData) -> Updates:
        """Play the source."""
        folder = self.office.open(name)
        video = read_clip(folder, folder.now())
        return self._pictured(folder, folder.now(), frame_asked_for(event), film=pictures.film(video))


def _over(folder: Folder, file: str, video: Video, frame: int) -> dict[str, Any]:
    """The edited frame for the viewer, with the divider on what it changes."""
    picture = edited_picture(folder, file, video.size)[0]
    split = pictures.middle_of_change(video.frames[frame], picture)
    return {"over": pictures.jpeg(pictures.small(picture)), "over_label": "edited", "split": split}
