"""Step 6: source and edit under a slider, what to edit next, downloads, and the same again without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.errors import InputError
from lora_edit.reporting import format_seconds
from lora_edit.ui import pictures, work
from lora_edit.ui.changes import outdated
from lora_edit.ui.parts import Office, Updates, figure, frame_asked_for, heading, message, number_in, said, viewer
from lora_edit.ui.projects import Folder
from lora_edit.video.read import read_image


class ResultStep:
    """Compare, download, do it again."""

    def __init__(self, office: Office) -> None:
        self.office, self.at = office, gr.State(0)
        heading("Result", "Drag the divider. Outside of the region every pixel is the source's own.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.view = viewer("result-view", "Source and edit")
                self.pictured = [self.at, self.view]
                self.fault = message()
                self.sheet = gr.HTML("", elem_id="result-sheet")
            with gr.Column(scale=2):
                self.which = gr.Dropdown([], label="Result", interactive=True, elem_id="result-which")
                self.facts = gr.HTML("", elem_classes="facts")
                self.hint = gr.HTML("", elem_id="result-hint")
                self.take = gr.Button("Edit that frame", visible=False, elem_id="result-take")
                self.video = gr.DownloadButton("Download the video", variant="primary", elem_id="result-video")
                with gr.Row():
                    self.lora = gr.DownloadButton("Download the LoRA", elem_id="result-lora")
                    self.pack = gr.Button("Pack the project", elem_id="result-pack")
                    self.project = gr.DownloadButton("Download the project", visible=False, elem_id="result-project")
                self._again()

    def _again(self) -> None:
        with gr.Accordion("Again, without training", open=False, elem_id="result-again"):
            self.seed = gr.Number(1, label="Seed", precision=0, minimum=0, elem_id="again-seed")
            self.file = gr.File(label="Another edited first frame (or none)", elem_id="again-file", height=150)
            self.again = gr.Button("Generate again", elem_id="again-start")
            self.again_fault = message()

    def outputs(self) -> list[Any]:
        """What `show` may change."""
        return [
            self.at,
            self.view,
            self.sheet,
            self.which,
            self.facts,
            self.hint,
            self.take,
            self.video,
            self.lora,
            self.pack,
            self.project,
        ]

    def show(self, folder: Folder, number: int | None = None) -> Updates:
        """The newest result, or number `number`."""
        every = folder.made()
        if not every:
            return {self.view: None}
        number = len(every) - 1 if number is None else number
        names = [(f"{place + 1}: seed {each.seed}" + (", again" if each.again else ""), place) for place, each in enumerate(every)]
        return {
            **self._pictured(folder, number, 0, autoplay=True),
            self.which: gr.Dropdown(names, value=number),
            **self._files(folder, number),
            **self._hinted(folder),
        }

    def _files(self, folder: Folder, number: int) -> Updates:
        made = folder.made()[number]
        run, lora = folder.path / made.run, work.trained_lora(folder, made)
        words = ", ".join(f"{stage} {format_seconds(seconds)}" for stage, seconds in made.seconds.items())
        return {
            self.facts: said(outdated(made.state, folder.now()), "warning") + said([words, *made.notes]),
            self.sheet: figure(pictures.jpeg(read_image(run / "sheet.png")), "Source, edit region and result"),
            self.video: gr.DownloadButton(value=str(folder.path / made.file)),
            self.lora: gr.DownloadButton(value=str(lora)) if lora else gr.DownloadButton(interactive=False),
            self.pack: gr.Button(visible=True),
            self.project: gr.DownloadButton(visible=False),
        }

    def _hinted(self, folder: Folder) -> Updates:
        frame = work.hint(folder, folder.now())
        if frame is None:
            return {self.hint: said("The edited frames show nearly all of what changes."), self.take: gr.Button(visible=False)}
        words = f"Frame {frame} has the largest area that no edited frame shows. If the result is unsure there, edit that frame too."
        return {self.hint: said(words), self.take: gr.Button(f"Edit frame {frame} too", visible=True)}

    def _pictured(self, folder: Folder, number: int, frame: int, **more: Any) -> Updates:
        source, edit = work.result_clips(folder, folder.made()[number])
        over = {"over": pictures.jpeg(pictures.small(edit.frames[frame])), "over_label": "edited",
                "split": pictures.middle_of_change(source.frames[frame], edit.frames[frame])}  # fmt: skip
        still = pictures.still(source.frames[frame], frame, source.num_frames, "source", **over, **more)
        return {self.at: frame, self.view: still}

    def chosen(self, name: str, number: int | None) -> Updates:
        """Another result."""
        return self.show(self.office.open(name), number)

    def frame(self, name: str, number: int | None, event: gr.EventData) -> Updates:
        """Another frame."""
        return self._pictured(self.office.open(name), number or 0, frame_asked_for(event))

    def film(self, name: str, number: int | None, event: gr.EventData) -> Updates:
        """Play both."""
        folder = self.office.open(name)
        source, edit = work.result_clips(folder, folder.made()[number or 0])
        return self._pictured(folder, number or 0, frame_asked_for(event), film=pictures.film(source, edit=edit))

    def packed(self, name: str, number: int | None) -> Updates:
        """Everything in one file."""
        folder = self.office.open(name)
        file = work.pack(folder, folder.made()[number or 0])
        return {self.pack: gr.Button(visible=False), self.project: gr.DownloadButton(value=str(file), visible=True)}

    def started(self, name: str, number: int | None, seed: float | None, file: str | None) -> Updates:
        """Generate again."""
        folder = self.office.open(name)
        if number is None:
            raise InputError("there is no result yet; train first")
        first = folder.path / folder.keep(Path(file)) if file else None
        work.start_again(self.office.device, folder, number, number_in(seed, 0, 2**62, "the seed"), first)
        return {}
