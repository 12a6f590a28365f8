"""What the page's buttons do, without the page: a project's settings, its jobs, and what its results show."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from lora_edit import pipeline
from lora_edit.config import EditSettings, resolve
from lora_edit.errors import MaskError, SettingsError
from lora_edit.estimate import Estimate
from lora_edit.masks.files import save_mask
from lora_edit.masks.overlay import with_region
from lora_edit.reporting import Reporter, Watcher
from lora_edit.run import Run
from lora_edit.types import Video
from lora_edit.ui.jobs import Desk, Job
from lora_edit.ui.once import once
from lora_edit.ui.pictures import small
from lora_edit.ui.projects import Folder, Made, Project, Unfinished
from lora_edit.ui.region import has_region, read_clip, region_of
from lora_edit.video.read import read_video
from lora_edit.video.unseen import next_to_edit, unseen_shares
from lora_edit.video.write import write_video

WRITTEN_EVERY = 1.0
"""Seconds between two notes of how far an edit is."""

KEPT_OUT = {"checkpoints", "cache", ".lock"}
"""Parts of a run folder that a downloaded project does without."""


def settings_of(folder: Folder, project: Project) -> EditSettings:
    """The project as an edit's settings; its region is written down as a mask. Raises `InputError` kin."""
    if not project.clip:
        raise SettingsError("there is no clip yet; drop one in the first step")
    if not project.first_frame:
        raise MaskError("the edited first frame is missing; drop it in the third step")
    later = project.later_of(read_clip(folder, project).num_frames)
    kinds = {kind: [{"frame": each.frame, "image": str(folder.path / each.file)} for each in later if each.kind == kind]
             for kind in ("reference", "anchor")}  # fmt: skip
    tables = {
        "input": {
            "source": str(folder.path / project.clip),
            "first_frame": str(folder.path / project.first_frame),
            "references": kinds["reference"],
            "anchors": kinds["anchor"],
            **({"mask": str(_write_region(folder, project))} if has_region(project) else {}),
        },
        "model": project.model,
        "preset": project.preset,
        "prompt": project.prompt,
        "seed": project.seed,
        "video": {"start": project.start, **({"frames": project.frames} if project.frames else {})},
        # The region is shaped already, so that what was seen on the page is what is edited.
        "masks": {"shape": "as-is"} if has_region(project) else {"shape": project.shape, "expand": project.expand},
        "compositing": {"feather": project.feather},
    }
    return resolve(tables, project.assignments)


def _write_region(folder: Folder, project: Project) -> Path:
    region = region_of(folder, project).shaped
    if not region.frames.any():
        raise MaskError("the region is empty; mark what changes in the second step")
    target = folder.path / "masks" / hashlib.sha256(region.frames.numpy().tobytes()).hexdigest()[:12]
    if not target.is_dir():
        save_mask(target, region)
    return target


def check(folder: Folder, project: Project) -> tuple[str, ...]:
    """Check everything that the edit will read, before anything is started; the remarks on it. Raises `InputError` kin."""
    return pipeline.check(settings_of(folder, project)).notes


def start_estimate(desk: Desk, folder: Folder) -> Job:
    """Measure what the edit will need. The job's result is an `Estimate`. Raises `InputError` kin."""
    settings = settings_of(folder, folder.now())
    clip = pipeline.check(settings)

    def work(reporter: Reporter) -> Estimate:
        for note in clip.notes:
            reporter.note(note)
        reporter.step("measuring one step", 0, 1)
        return pipeline.estimate(settings, clip)

    return desk.hand_in(folder.id, "estimate", work, folder.log, folder.now())


def planned_seconds(desk: Desk, folder: Folder) -> tuple[float, float] | None:
    """What training and drawing were estimated to take, where that was done for the project as it is."""
    job = desk.newest(folder.id)
    if job is None or job.about != folder.now():
        return None
    return (job.result.seconds_train, job.result.seconds_generate) if isinstance(job.result, Estimate) else job.planned


def start_preview(desk: Desk, folder: Folder) -> Job:
    """Predict the edited clip without a diffusion model. The job's result is the video's path. Raises `InputError` kin."""
    settings = settings_of(folder, folder.now())

    def work(reporter: Reporter) -> Path:
        return pipeline.preview(settings, folder.path / "preview.mp4", reporter, overwrite=True)

    return desk.hand_in(folder.id, "preview", work, folder.log, folder.now())


def start_overlay(desk: Desk, folder: Folder) -> Job:
    """Write the clip with its region shown as a video. The job's result is the video's path. Raises `InputError` kin."""
    project = folder.now()
    video, region = read_clip(folder, project), region_of(folder, project)

    def work(reporter: Reporter) -> Path:
        pictured = []
        for number, frame in enumerate(video.frames):
            reporter.step("drawing the region", number, video.num_frames)
            pictured.append(small(with_region(frame, region.shaped.frames[number], region.drawn.frames[number])))
        reporter.step("writing the video", 0, 1)
        target = folder.path / "region.mp4"
        write_video(target, Video(torch.stack(pictured), video.fps, video.times), overwrite=True)
        return target

    return desk.hand_in(folder.id, "overlay", work, folder.log, project)


def start_edit(desk: Desk, folder: Folder) -> Job:
    """Train and generate; the same project goes on where it was stopped. Raises `InputError` kin."""
    settings = settings_of(folder, folder.now())
    run = folder.path / "runs" / hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]
    run.parent.mkdir(exist_ok=True)
    project = folder.now()

    def work(reporter: Reporter) -> Made:
        folder.note_unfinished(Unfinished(state=project))
        pipeline.create_run(settings, run)
        made = _generate(folder, run, Remembering(folder, project, reporter), settings.seed, state=project)
        folder.note_unfinished(None)
        return made

    return desk.hand_in(folder.id, "edit", work, folder.log, project, planned_seconds(desk, folder))


class Remembering:
    """A job's reporter that writes down how far an edit is, so that the page can say it when the edit was cut off."""

    def __init__(self, folder: Folder, project: Project, reporter: Reporter) -> None:
        self.folder, self.project, self.reporter = folder, project, reporter
        self._next = 0.0

    def step(self, stage: str, done: int, total: int, detail: str = "", left: float | None = None) -> None:
        """Write it down now and then, and at the end of a stage."""
        if time.monotonic() >= self._next or done == total:
            self._next = time.monotonic() + WRITTEN_EVERY
            self.folder.note_unfinished(Unfinished(state=self.project, stage=stage, done=done, total=total))
        self.reporter.step(stage, done, total, detail, left)

    def note(self, text: str) -> None:
        """Pass the remark on."""
        self.reporter.note(text)

    def look(self, draw: Callable[[], torch.Tensor]) -> None:
        """Pass the look on, where the job's reporter takes looks."""
        if isinstance(self.reporter, Watcher):
            self.reporter.look(draw)


def start_again(desk: Desk, folder: Folder, number: int, seed: int, first_frame: Path | None) -> Job:
    """Generate again with the LoRA of result `number`: another seed, another edited first frame, no training."""
    made = folder.made()[number]
    run = folder.path / made.run

    def work(reporter: Reporter) -> Made:
        return _generate(folder, run, reporter, seed, first_frame, again=True, state=made.state)

    return desk.hand_in(folder.id, "again", work, folder.log, made.state)


def _generate(
    folder: Folder,
    run: Path,
    reporter: Reporter,
    seed: int,
    first_frame: Path | None = None,
    again: bool = False,
    state: Project | None = None,
) -> Made:
    target = folder.path / "results" / f"edited-{len(folder.made()) + 1}.mp4"
    result = pipeline.generate(run, reporter, target, True, seed, first_frame)
    shown = {"file": str(target.relative_to(folder.path)), "run": str(run.relative_to(folder.path))}
    made = Made(**shown, seed=seed, seconds=result.seconds, notes=result.notes, again=again, state=state)
    folder.add_made(made)
    return made


def trained_lora(folder: Folder, made: Made) -> Path | None:
    """The LoRA file behind a result."""
    return next(iter(Run(folder.path / made.run).lora_files()), None)


def result_clips(folder: Folder, made: Made) -> tuple[Video, Video]:
    """Source and edit, frame by frame."""
    settings = Run(folder.path / made.run).settings()
    return _source(settings.input.source, settings.video.start, settings.video.frames), _result(folder.path / made.file)


def _source(path: Path, start: int, frames: int | None) -> Video:
    return read_clip(Folder(path.parents[1]), Project(clip=str(path.relative_to(path.parents[1])), start=start, frames=frames))


@once(4)
def _result(path: Path) -> Video:
    return read_video(path)


def hint(folder: Folder, project: Project) -> int | None:
    """Which frame to edit next: the one with the most in its region that no edited frame shows. None when they show nearly all of it."""
    given = (0, *(each.frame for each in project.later_of(read_clip(folder, project).num_frames)))
    return _hint(folder, Project.model_validate(project.model_dump(exclude={"prompt", "seed", "assignments", "model", "preset"})), given)


@once(16)
def _hint(folder: Folder, project: Project, given: tuple[int, ...]) -> int | None:
    region = region_of(folder, project).shaped.frames
    return next_to_edit(unseen_shares(read_clip(folder, project).frames, region, given), region)


def pack(folder: Folder, made: Made) -> Path:
    """The project as one file: result, LoRA, settings, region, report; everything but what only resuming needs."""
    run, target = folder.path / made.run, folder.path / f"project-{Path(made.file).stem}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.write(folder.path / made.file, Path(made.file).name)
        for file in sorted(run.rglob("*")):
            if file.is_file() and not KEPT_OUT & set(file.relative_to(run).parts):
                archive.write(file, f"run/{file.relative_to(run)}")
        archive.writestr("project.json", json.dumps(folder.now().model_dump(mode="json"), indent=2))
    return target


def save_frame(folder: Folder, frame: torch.Tensor, number: int) -> Path:
    """Write a frame of the clip as a lossless picture for an image editor."""
    from lora_edit.video.sheet import save_image

    target = folder.path / f"frame_{number:05d}.png"
    save_image(target, frame)
    return target
