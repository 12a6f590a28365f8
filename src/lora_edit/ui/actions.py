"""Actions behind the page's buttons: build a project's settings, start its jobs, and read its results."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from lora_edit import pipeline
from lora_edit.atomic_files import replace_file
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.errors import MaskError, SettingsError
from lora_edit.estimate import Estimate
from lora_edit.masks.files import save_mask
from lora_edit.masks.overlay import draw_region
from lora_edit.reporting import PreviewReporter, Reporter
from lora_edit.run import Run
from lora_edit.types import Video
from lora_edit.ui.jobs import Job, JobQueue
from lora_edit.ui.pictures import shrink_frame
from lora_edit.ui.projects import Project, ProjectResult, ProjectState, UnfinishedEdit
from lora_edit.ui.region import compute_region, has_region, read_clip
from lora_edit.ui.single_flight import single_flight_cache
from lora_edit.video.disocclusion import compute_unseen_shares, suggest_next_frame
from lora_edit.video.read import read_video
from lora_edit.video.write import write_video

PROGRESS_WRITE_INTERVAL = 1.0
"""Minimum seconds between two writes of an edit's progress."""

EXCLUDED_RUN_PARTS = {"checkpoints", "cache", ".lock", ".lock-process", ".owner"}
"""Parts of a run folder that a packed project leaves out."""


def build_settings(project: Project, state: ProjectState) -> EditSettings:
    """Build an edit's settings from a project state and save its region as a mask. Raises a subclass of `InputError`."""
    if not state.clip:
        raise SettingsError("there is no clip yet; drop one in the first step")
    if not state.first_frame:
        raise MaskError("the edited first frame is missing; drop it in the third step")
    later = state.select_later_frames(read_clip(project, state).num_frames)
    images = {kind: [{"frame": each.frame, "image": str(project.path / each.file)} for each in later if each.kind == kind]
             for kind in ("reference", "anchor")}  # fmt: skip
    tables = {
        "input": {
            "source": str(project.path / state.clip),
            "first_frame": str(project.path / state.first_frame),
            "references": images["reference"],
            "anchors": images["anchor"],
            **({"mask": str(_write_region(project, state))} if has_region(state) else {}),
        },
        "model": state.model,
        "preset": state.preset,
        "prompt": state.prompt,
        "seed": state.seed,
        "video": {"start": state.start, **({"frames": state.frames} if state.frames else {})},
        # The mask is shaped already: the edit uses exactly the region that the page shows.
        "masks": {"shape": "as-is"} if has_region(state) else {"shape": state.shape, "expand": state.expand},
        "compositing": {"feather": state.feather},
    }
    return resolve_settings(tables, state.assignments)


def _write_region(project: Project, state: ProjectState) -> Path:
    region = compute_region(project, state).edit_mask
    if not region.frames.any():
        raise MaskError("the region is empty; mark what changes in the second step")
    target = project.path / "masks" / hashlib.sha256(region.frames.numpy().tobytes()).hexdigest()[:12]
    if not target.is_dir():
        save_mask(target, region)
    return target


def check_project(project: Project, state: ProjectState) -> tuple[str, ...]:
    """Check every input of the edit before it starts; returns notes on them. Raises a subclass of `InputError`."""
    return pipeline.check(build_settings(project, state)).notes


def start_estimate(queue: JobQueue, project: Project) -> Job:
    """Start a job that estimates time and memory of the edit; its result is an `Estimate`. Raises a subclass of `InputError`."""
    settings = build_settings(project, project.read_state())
    clip = pipeline.check(settings)

    def work(reporter: Reporter) -> Estimate:
        for note in clip.notes:
            reporter.note(note)
        reporter.step("measuring one step", 0, 1)
        return pipeline.estimate(settings, clip)

    return queue.submit(project.id, "estimate", work, project.log, project.read_state())


def get_planned_seconds(queue: JobQueue, project: Project) -> tuple[float, float] | None:
    """Return the estimated seconds of training and generation, or None without an estimate for the current state."""
    job = queue.get_latest_job(project.id)
    if job is None or job.project_state != project.read_state():
        return None
    return (job.result.seconds_train, job.result.seconds_generate) if isinstance(job.result, Estimate) else job.planned_seconds


def start_preview(queue: JobQueue, project: Project) -> Job:
    """Start a job that predicts the edited clip without a diffusion model; its result is the video's path.

    Raises a subclass of `InputError`.
    """
    settings = build_settings(project, project.read_state())

    def work(reporter: Reporter) -> Path:
        return pipeline.preview(settings, project.path / "preview.mp4", reporter, overwrite=True)

    return queue.submit(project.id, "preview", work, project.log, project.read_state())


def start_overlay(queue: JobQueue, project: Project) -> Job:
    """Start a job that draws the region over the clip; its result is the video's path. Raises a subclass of `InputError`."""
    state = project.read_state()
    video, region = read_clip(project, state), compute_region(project, state)

    def work(reporter: Reporter) -> Path:
        overlays = []
        for number, frame in enumerate(video.frames):
            reporter.step("drawing the region", number, video.num_frames)
            overlays.append(shrink_frame(draw_region(frame, region.edit_mask.frames[number], region.base_mask.frames[number])))
        reporter.step("writing the video", 0, 1)
        target = project.path / "region.mp4"
        write_video(target, Video(torch.stack(overlays), video.fps, video.times), overwrite=True)
        return target

    return queue.submit(project.id, "overlay", work, project.log, state)


def start_edit(queue: JobQueue, project: Project) -> Job:
    """Start a job that trains and generates; an unchanged project resumes from its checkpoint. Raises a subclass of `InputError`."""
    settings = build_settings(project, project.read_state())
    run = project.path / "runs" / hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]
    run.parent.mkdir(exist_ok=True)
    state = project.read_state()

    def work(reporter: Reporter) -> ProjectResult:
        project.record_unfinished_edit(UnfinishedEdit(state=state))
        pipeline.create_run(settings, run)
        result = _generate(project, run, ProgressRecorder(project, state, reporter), settings.seed, state=state)
        project.record_unfinished_edit(None)
        return result

    return queue.submit(project.id, "edit", work, project.log, state, get_planned_seconds(queue, project))


class ProgressRecorder:
    """A reporter that also writes an edit's progress to disk, so that the page can show it after an interruption."""

    def __init__(self, project: Project, state: ProjectState, reporter: Reporter) -> None:
        self.project, self.state, self.reporter = project, state, reporter
        self._next_write_time = 0.0

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Forward the progress; write it at most once per `PROGRESS_WRITE_INTERVAL`, and at the end of a stage."""
        if time.monotonic() >= self._next_write_time or done == total:
            self._next_write_time = time.monotonic() + PROGRESS_WRITE_INTERVAL
            self.project.record_unfinished_edit(UnfinishedEdit(state=self.state, stage=stage, done=done, total=total))
        self.reporter.step(stage, done, total, detail, seconds_left)

    def note(self, text: str) -> None:
        """Forward the note."""
        self.reporter.note(text)

    def show_preview(self, draw: Callable[[], torch.Tensor]) -> None:
        """Forward the preview if the job's reporter accepts previews."""
        if isinstance(self.reporter, PreviewReporter):
            self.reporter.show_preview(draw)


def start_regeneration(queue: JobQueue, project: Project, number: int, seed: int, first_frame: Path | None) -> Job:
    """Start a job that generates with the LoRA of result `number`, without training: another seed or edited first frame."""
    previous = project.read_results()[number]
    run = project.path / previous.run

    def work(reporter: Reporter) -> ProjectResult:
        return _generate(project, run, reporter, seed, first_frame, again=True, state=previous.state)

    return queue.submit(project.id, "again", work, project.log, previous.state)


def _generate(
    project: Project,
    run: Path,
    reporter: Reporter,
    seed: int,
    first_frame: Path | None = None,
    again: bool = False,
    state: ProjectState | None = None,
) -> ProjectResult:
    target = project.path / "results" / f"edited-{len(project.read_results()) + 1}.mp4"
    output = pipeline.generate(run, reporter, target, True, seed, first_frame)
    paths = {"file": str(target.relative_to(project.path)), "run": str(run.relative_to(project.path))}
    result = ProjectResult(**paths, seed=seed, seconds=output.seconds, notes=output.notes, again=again, state=state)
    project.add_result(result)
    return result


def find_lora_file(project: Project, result: ProjectResult) -> Path | None:
    """Return the LoRA file of a result, or None if it has none."""
    return next(iter(Run(project.path / result.run).list_lora_files()), None)


def read_result_clips(project: Project, result: ProjectResult) -> tuple[Video, Video]:
    """Read the source and the edit of a result, with the same number of frames."""
    settings = Run(project.path / result.run).read_settings()
    return _read_source(settings.input.source, settings.video.start, settings.video.frames), _read_result(project.path / result.file)


def _read_source(path: Path, start: int, frames: int | None) -> Video:
    return read_clip(Project(path.parents[1]), ProjectState(clip=str(path.relative_to(path.parents[1])), start=start, frames=frames))


@single_flight_cache(4)
def _read_result(path: Path) -> Video:
    return read_video(path)


def suggest_frame(project: Project, state: ProjectState) -> int | None:
    """Suggest the frame to edit next: the one whose region shows the largest area that no edited frame shows.

    Returns None if the edited frames show nearly all of it.
    """
    edited_frames = (0, *(each.frame for each in state.select_later_frames(read_clip(project, state).num_frames)))
    return _suggest_frame(
        project, ProjectState.model_validate(state.model_dump(exclude={"prompt", "seed", "assignments", "model", "preset"})), edited_frames
    )


@single_flight_cache(16)
def _suggest_frame(project: Project, state: ProjectState, edited_frames: tuple[int, ...]) -> int | None:
    region = compute_region(project, state).edit_mask.frames
    return suggest_next_frame(compute_unseen_shares(read_clip(project, state).frames, region, edited_frames), region)


def pack_project(project: Project, result: ProjectResult) -> Path:
    """Pack a result into a ZIP file: video, LoRA, settings, region and report, without the files that only resuming needs."""
    run, target = project.path / result.run, project.path / f"project-{Path(result.file).stem}.zip"
    with replace_file(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        archive.write(project.path / result.file, Path(result.file).name)
        for file in sorted(run.rglob("*")):
            if file.is_file() and not EXCLUDED_RUN_PARTS & set(file.relative_to(run).parts):
                archive.write(file, f"run/{file.relative_to(run)}")
        archive.writestr("project.json", json.dumps(project.read_state().model_dump(mode="json"), indent=2))
    return target


def save_frame(project: Project, frame: torch.Tensor, number: int) -> Path:
    """Save a frame `[H, W, 3]` of the clip as a PNG for an image editor; returns its path."""
    from lora_edit.video.sheet import save_image

    target = project.path / f"frame_{number:05d}.png"
    save_image(target, frame)
    return target
