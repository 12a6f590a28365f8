"""A study on scenes: several rows on many scenes, in worker processes, stored per scene so that an interrupted study resumes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch

from lora_edit.atomic_files import copy_file, write_text
from lora_edit.evaluation.leak import leak
from lora_edit.evaluation.psnr import psnr
from lora_edit.evaluation.ssim import ssim
from lora_edit.reporting import Reporter
from lora_edit.studies.extra_metrics import measure_extra_metrics
from lora_edit.studies.jobs import JobRecord, get_family, get_vace, run_jobs
from lora_edit.studies.scene_folder import SceneFolder
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import TrueEdit, render_true_edit
from lora_edit.studies.table import Claim, draw_bars, render_markdown, write_csv
from lora_edit.studies.trial import Outcome, SceneTrial, Trial
from lora_edit.types import EditMask, Size, hash_content
from lora_edit.video.sheet import build_contact_sheet, save_image

SCENE_SIZE = Size(96, 96)
EXAMPLE_KIND = "rotation"
"""The kind of scene on the page of a study that includes it."""


@dataclass(frozen=True)
class Study:
    """A study.

    - `run_rows`: yields an outcome for every row on one trial.
    - `claims`: the claims that the page judges; `paper`: the paper's figures per row.
    - `kinds`: kinds of scenes (`studies/scene_kinds.py`), all when empty.
    - `frame_counts`, `size`: the lengths and the size of the scenes.
    - `base_assignments`: settings of every row, as `section.setting=value`.
    - `min_references`: number of edited later frames that a case of a manifest needs (`case_study.py`); scenes always have enough.
    """

    title: str
    run_rows: Callable[[Trial], Iterator[Outcome]]
    claims: tuple[Claim, ...] = ()
    paper: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    frame_counts: tuple[int, ...] = (17,)
    size: Size = SCENE_SIZE
    base_assignments: tuple[str, ...] = ()
    min_references: int = 0


@dataclass(frozen=True)
class SceneJob:
    """One scene and seed of a study. The study is referenced by name so that another process can run the job.

    Scene `number` is drawn from the seed, or read from `scene_folder` if there is one.
    """

    study: str
    target: str
    number: int
    seed: int
    model: str
    folder: Path
    base_assignments: tuple[str, ...]
    threads: int
    vace: str = ""
    scene_folder: SceneFolder | None = None

    @property
    def file(self) -> Path:
        """The path of the scores."""
        return self.folder / "scenes" / f"{self.study}_{self.seed}_{self.number:02d}.json"


def find_study(target: str) -> Study:
    """Import the study behind `module:NAME`."""
    module, _, name = target.partition(":")
    study = getattr(import_module(module), name)
    assert isinstance(study, Study)
    return study


def run_scene_job(job: SceneJob) -> JobRecord:
    """Run every row on one scene, write the scores and a contact sheet, and return the record. A finished job only reads its record."""
    start_time, study = time.monotonic(), find_study(job.target)
    torch.set_num_threads(job.threads)
    family, vace, key = get_family(job.model), get_vace(job.vace), ""
    rows: dict[str, dict[str, float]] = {}
    for edit in build_true_edits(job, study):
        trial = SceneTrial(family, job.seed, edit, base_assignments=(*study.base_assignments, *job.base_assignments), vace=vace)
        if not rows:
            models = [each.fingerprint() for each in (family, vace) if each is not None]
            key = hash_content(trial.edit.source, trial.edit.truth, *models, repr(trial.resolve_settings()))
            if job.file.is_file() and (record := json.loads(job.file.read_text("utf-8")))["key"] == key:
                return dict(record)
        outcomes = list(study.run_rows(trial))
        trial.unload_lora()
        length = f", {len(edit.source)} frames" if len(study.frame_counts) > 1 else ""
        frame_indices = select_scored_frames(outcomes, len(edit.source))
        rows |= {outcome.label + length: score_scene_outcome(outcome, trial, frame_indices) for outcome in outcomes}
        save_scene_sheet(
            job.file.with_name(f"{job.file.stem}_{edit.name}{length.replace(', ', '_').replace(' ', '_')}.png"), trial.edit, outcomes
        )
    record = {"key": key, "kind": edit.name, "rows": rows, "seconds": time.monotonic() - start_time}
    write_text(job.file, json.dumps(record, indent=1))
    return record


def build_true_edits(job: SceneJob, study: Study) -> Iterator[TrueEdit]:
    """Yield the scene of the job at every length of the study.

    A scene of a folder is cut to those lengths that it has, and stays whole when the study has a single length.
    """
    if job.scene_folder is None:
        scene = draw_scenes(job.number + 1, job.seed, study.kinds)[job.number]
        yield from (render_true_edit(scene, study.size, frames) for frames in study.frame_counts)
        return
    scene_edit = job.scene_folder.read_scene(job.scene_folder.select_lines(study.kinds)[job.number])
    count = len(scene_edit.source)
    lengths = [frames for frames in study.frame_counts if frames <= count] if len(study.frame_counts) > 1 else []
    for frames in lengths or [count]:
        yield TrueEdit(scene_edit.name, scene_edit.source[:frames], scene_edit.truth[:frames], EditMask(scene_edit.mask.frames[:frames]))


def save_scene_sheet(path: Path, edit: TrueEdit, outcomes: Sequence[Outcome]) -> None:
    """Save a contact sheet of source, every row and truth, one below the other."""
    rows = {"source": edit.source} | {outcome.label: outcome.frames for outcome in outcomes} | {"truth": edit.truth}
    save_image(path, build_contact_sheet(list(rows.values()), list(rows), 9, 64))


def select_scored_frames(outcomes: Sequence[Outcome], num_frames: int) -> list[int]:
    """Select the frames that are scored, the same for every row: all but frame 0 and the edited frames that any row used as a reference."""
    references = {0}.union(*(outcome.reference_indices for outcome in outcomes))
    return [number for number in range(num_frames) if number not in references]


def score_scene_outcome(outcome: Outcome, trial: SceneTrial, frame_indices: Sequence[int]) -> dict[str, float]:
    """Score an outcome over the frames `frame_indices`.

    The region is the loose box of the default settings for every row, whichever mask the row used: a model that paints the whole box in
    the object's colours would score well on the object alone. The background is everything outside it. Leak is measured on the object,
    over the whole clip.
    """
    edit, mask, scored = trial.edit, trial.edit.mask.frames, list(frame_indices)
    clip = trial.build_clip(trial.resolve_settings())
    box = clip.edit_mask.frames
    values = {
        "region_psnr": psnr(outcome.frames[scored], edit.truth[scored], box[scored]),
        "region_ssim": ssim(outcome.frames[scored], edit.truth[scored], box[scored]),
        "object_psnr": psnr(outcome.frames[scored], edit.truth[scored], mask[scored]),
        "leak": leak(outcome.frames, edit.source, edit.truth[0], mask) if mask[0].any() else math.nan,
    }
    if outcome.steps is not None:
        values["steps"] = outcome.steps
    if outcome.raw_frames is not None and not box[scored].all():
        values["background_psnr"] = psnr(outcome.raw_frames[scored], edit.source[scored], ~box[scored])
    return values | measure_extra_metrics(outcome.frames, clip, edit.truth)


def run_study(
    name: str,
    target: str,
    output: Path,
    scenes: int | SceneFolder,
    seeds: int,
    reporter: Reporter,
    model: str,
    workers: int,
    base_assignments: Sequence[str],
    vace: str = "",
) -> Path:
    """Run or resume a study, write `NAME.md`, `.csv` and `.png` to `output`, and return the path of the page.

    `scenes` is the number of scenes to draw for each seed, or a folder of scenes. Raises `SettingsError` for a folder without a scene of
    the study's kinds.
    """
    study = find_study(target)
    scene_folder, count = (None, scenes) if isinstance(scenes, int) else (scenes, len(scenes.select_lines(study.kinds)))
    (output / "scenes").mkdir(parents=True, exist_ok=True)
    threads = max(1, torch.get_num_threads() // workers)
    jobs = [
        SceneJob(name, target, n, seed, model, output, tuple(base_assignments), threads, vace, scene_folder)
        for seed in range(seeds)
        for n in range(count)
    ]
    records = run_jobs(name, run_scene_job, jobs, workers, reporter)
    table, kinds = gather_scores(records), [str(record["kind"]) for record in records]
    options = format_options(base_assignments, model, vace)
    scene_options = scene_folder.format_options() if scene_folder else f"--scenes {count}"
    command = f"lora-edit study {name} {scene_options} --seeds {seeds}{options} --output ..."
    page = output / f"{name}.md"
    pictures = {"Region PSNR of every row: mean, 95 % interval, and every scene as a dot": f"{name}.png"}
    if sheet := _find_example_sheet(jobs, kinds):
        copy_file(sheet, output / f"{name}-scene.png")
        pictures[f"One scene ({sheet.stem.split('_')[3]}): source, every row, and the truth"] = f"{name}-scene.png"
    write_text(page, render_markdown(study.title, table, kinds, study.claims, study.paper, command, pictures))
    write_csv(output / f"{name}.csv", table, [f"{job.seed}.{job.number}.{kind}" for job, kind in zip(jobs, kinds, strict=True)])
    draw_bars(output / f"{name}.png", table)
    return page


def format_options(base_assignments: Sequence[str], model: str, vace: str) -> str:
    """Format the options of a study's command for its page."""
    options = "".join(f" --set {text}" for text in base_assignments) + ("" if model == "tiny" else f" --model {model}")
    return options + (f" --vace {vace}" if vace else "")


def _find_example_sheet(jobs: Sequence[SceneJob], kinds: Sequence[str]) -> Path | None:
    """Find the contact sheet of the first scene of `EXAMPLE_KIND`, or of the first scene."""
    file = jobs[kinds.index(EXAMPLE_KIND) if EXAMPLE_KIND in kinds else 0].file
    return next(iter(sorted(file.parent.glob(f"{file.stem}_*.png"))), None)


def gather_scores(records: Sequence[JobRecord]) -> dict[str, dict[str, list[float]]]:
    """Collect records as row -> metric -> values, in the order of the records; NaN where a record lacks the row."""
    table: dict[str, dict[str, list[float]]] = {}
    # The record with the most rows comes first, so that the table has the rows in the order in which they run.
    indexed_rows = [(index, record["rows"]) for index, record in enumerate(records)]
    for index, rows in sorted(indexed_rows, key=lambda each: -len(each[1])):
        for label, values in rows.items():
            for metric, value in values.items():
                table.setdefault(label, {}).setdefault(metric, [math.nan] * len(records))[index] = float(value)
    return table
