"""Step 5: a preview in seconds; then training, watched, stopped and resumed."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from lora_edit.reporting import format_seconds
from lora_edit.ui import pictures, work
from lora_edit.ui.changes import outdated
from lora_edit.ui.jobs import Job
from lora_edit.ui.parts import Office, Updates, figure, heading, message, plain, said
from lora_edit.ui.projects import Folder, Project, Unfinished

KINDS = {"edit": "Edit", "again": "New result", "estimate": "Estimate", "preview": "Preview", "overlay": "Video of the region",
         "follow": "Mask"}  # fmt: skip
STAGES = {
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

GOES_ON = "Resume goes on from the last state that was kept."

OF_THE_WHOLE = ("edit", "again", "preview")
"""Jobs whose result is out of date once anything of the project changes."""

STATES = {
    "waiting": "waiting",
    "running": "running",
    "stopping": "stopping after this step",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
}


class RunStep:
    """Train and generate."""

    def __init__(self, office: Office) -> None:
        self.office = office
        heading("Train and generate", "A small LoRA learns how your clip moves; then the edit is drawn. You may close this page meanwhile.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.progress = gr.HTML("", elem_id="run-progress")
                self.fault = message()
                self.look = gr.HTML("", elem_id="run-look")
                self.video = gr.Video(
                    None, label="Preview: the edit predicted without the model", visible=False, elem_id="run-preview", buttons=[]
                )
            with gr.Column(scale=2):
                self.remarks = gr.HTML("", elem_classes="facts")
                self.preview = gr.Button("Preview in seconds", elem_id="run-try")
                self.start = gr.Button("Train and generate", variant="primary", elem_id="run-start")
                self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="run-stop")
                self.next = gr.Button("See the result", variant="primary", visible=False, elem_id="run-next")

    def outputs(self) -> list[Any]:
        """What `show` may change."""
        return [self.progress, self.look, self.video, self.remarks, self.preview, self.start, self.stop, self.next]

    def show(self, folder: Folder) -> Updates:
        """The step as its jobs are."""
        job, quick = self.office.device.newest(folder.id), self.office.quick.newest(folder.id)
        quick = None if quick is not None and quick.kind != "preview" else quick
        now, jobs = folder.now(), [each for each in (job, quick) if each is not None]
        return {
            self.progress: "".join(card(each, self.office.device.ahead(each), now) for each in jobs) or _interrupted(folder, now),
            self.look: _look(job),
            self.video: _video(quick, now),
            self.remarks: said([note for each in jobs for note in each.notes]),
            self.preview: gr.Button(interactive=quick is None or quick.over),
            **self._buttons(folder, job, now),
        }

    def _buttons(self, folder: Folder, job: Job | None, now: Project) -> Updates:
        """What comes next is the one primary button: to train, or to see the result where that is of the project as it is."""
        busy, made = job is not None and not job.over, folder.made()
        stopped = unfinished_of(folder, now) is not None
        fresh = bool(made) and not stopped and not outdated(made[-1].state, now)
        primary, secondary = ("secondary", "primary") if fresh else ("primary", "secondary")
        words = "Resume" if stopped else "Train and generate"
        return {
            self.start: gr.Button(words, visible=not busy, variant=primary),
            self.stop: gr.Button(visible=busy, interactive=job is not None and job.state != "stopping"),
            self.next: gr.Button("See the result" if fresh else "See the last result", visible=not busy and bool(made), variant=secondary),
        }

    def started(self, name: str) -> Updates:
        """Train and generate, or go on."""
        folder = self.office.open(name)
        work.start_edit(self.office.device, folder)
        return self.show(folder)

    def tried(self, name: str) -> Updates:
        """The preview."""
        folder = self.office.open(name)
        work.start_preview(self.office.quick, folder)
        return self.show(folder)

    def stopped(self, name: str) -> Updates:
        """Stop at the next step."""
        self.office.device.stop(name)
        return self.show(self.office.open(name))


def unfinished_of(folder: Folder, now: Project) -> Unfinished | None:
    """The edit of the project as it is, where it was begun and has not ended."""
    edit = folder.unfinished()
    return edit if edit is not None and not outdated(edit.state, now) else None


def _interrupted(folder: Folder, now: Project) -> str:
    """What to say of an edit that was cut off, as when the server was ended."""
    edit = unfinished_of(folder, now)
    if edit is None:
        return ""
    where = f" at step {edit.done} of {edit.total} ({STAGES.get(edit.stage, edit.stage)})" if edit.total > 1 else ""
    return f'<div class="job stopped"><strong>{html.escape(f"Edit: interrupted{where}")}</strong>{said(GOES_ON)}</div>'


def line(job: Job, ahead: int, old: bool = False) -> str:
    """A job in one line; an `old` one was done before the project changed."""
    doing = job.state == "running" and bool(job.stage)
    parts = [f"{KINDS[job.kind]}: {STAGES.get(job.stage, job.stage) if doing else STATES[job.state]}"]
    if job.state == "waiting":
        parts.append(f"{ahead} before it" if ahead else "next")
    elif not job.over and job.stage:
        parts += [f"{job.done} of {job.total}"] if job.total > 1 else []
        parts += [f"about {format_seconds(job.left + (job.after or 0))} left"] if job.left and job.done < job.total else []
        parts += [f"{format_seconds(job.after)} of it to draw the result"] if job.left and job.after else []
    elif job.over and job.started:
        parts += [f"at step {job.done} of {job.total}"] if job.state != "done" and job.total > 1 else []
        parts.append(f"after {format_seconds(job.seconds())}")
    if old:
        parts.append("out of date")
    return ", ".join(parts)


def card(job: Job, ahead: int, now: Project) -> str:
    """A job with its progress bar; one that is done, with what has changed in the project since then."""
    old = outdated(job.about, now) if job.state == "done" and job.kind in OF_THE_WHOLE else ""
    value = 'value="1"' if job.state == "done" else f'value="{job.done / job.total:.4f}"' if job.total > 1 else ""
    bar = f'<progress aria-label="{KINDS[job.kind]}" max="1" {value}></progress>' if not job.over or job.state == "done" else ""
    detail = f"<span class='detail'>{html.escape(job.detail)}</span>" if job.detail and not job.over else ""
    fault = said(plain(job.fault), "fault") if job.fault else ""
    words = html.escape(line(job, ahead, bool(old)))
    return f'<div class="job {job.state}"><strong>{words}</strong>{detail}{bar}{fault}{said(old, "warning")}</div>'


def _look(job: Job | None) -> str:
    if job is None or job.look is None or job.over:
        return ""
    return figure(pictures.jpeg(pictures.strip(job.look)), f"What it draws after {job.done} step{'' if job.done == 1 else 's'}")


def _video(job: Job | None, now: Project) -> Any:
    if job is None or job.state != "done" or outdated(job.about, now):
        return gr.Video(visible=False)
    return gr.Video(str(job.result), visible=True)
