"""A study: rows on many scenes, in worker processes, kept scene by scene so that a stopped one goes on."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch

from lora_edit.evaluation.leak import leak
from lora_edit.evaluation.psnr import psnr
from lora_edit.evaluation.ssim import ssim
from lora_edit.reporting import Reporter
from lora_edit.run import write_atomically
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
"""The kind of scene that a study's page shows, where it was run."""


@dataclass(frozen=True)
class Study:
    """`rows` tries a scene in every way; `claims` are held against the table; `paper` gives what the paper reports per row.

    `kinds` are the kinds of scenes (`studies/scene_kinds.py`), all when empty; `frames` the lengths to try and `size` their size; `base`
    settings of every row; `later` is how many edited later frames a case of a manifest needs (`case_study.py`), which scenes always have.
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
    """One scene and seed of a study, by names only, so that another process can do it.

    Scene `number` is drawn from the seed, or is that of a folder where one is given.
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
        """Where its scores are kept."""
        return self.folder / "scenes" / f"{self.study}_{self.seed}_{self.number:02d}.json"


def find_study(target: str) -> Study:
    """The study behind `module:NAME`."""
    module, _, name = target.partition(":")
    found = getattr(import_module(module), name)
    assert isinstance(found, Study)
    return found


def run_scene_job(job: SceneJob) -> JobRecord:
    """Every row on one scene: writes the scores and a contact sheet, and returns the scores' record. One that was done is read."""
    began, study = time.monotonic(), find_study(job.target)
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
        hidden = select_scored_frames(outcomes, len(edit.source))
        rows |= {outcome.label + length: score_scene_outcome(outcome, trial, hidden) for outcome in outcomes}
        save_scene_sheet(
            job.file.with_name(f"{job.file.stem}_{edit.name}{length.replace(', ', '_').replace(' ', '_')}.png"), trial.edit, outcomes
        )
    record = {"key": key, "kind": edit.name, "rows": rows, "seconds": time.monotonic() - began}
    write_atomically(job.file, json.dumps(record, indent=1))
    return record


def build_true_edits(job: SceneJob, study: Study) -> Iterator[TrueEdit]:
    """The job's scene at every length that the study tries; one of a folder at those that it has, or whole where the study tries one."""
    if job.scene_folder is None:
        scene = draw_scenes(job.number + 1, job.seed, study.kinds)[job.number]
        yield from (render_true_edit(scene, study.size, frames) for frames in study.frame_counts)
        return
    whole = job.scene_folder.read_scene(job.scene_folder.select_lines(study.kinds)[job.number])
    count = len(whole.source)
    lengths = [frames for frames in study.frame_counts if frames <= count] if len(study.frame_counts) > 1 else []
    for frames in lengths or [count]:
        yield TrueEdit(whole.name, whole.source[:frames], whole.truth[:frames], EditMask(whole.mask.frames[:frames]))


def save_scene_sheet(path: Path, edit: TrueEdit, outcomes: Sequence[Outcome]) -> None:
    """Source, every row and truth, below each other."""
    rows = {"source": edit.source} | {outcome.label: outcome.frames for outcome in outcomes} | {"truth": edit.truth}
    save_image(path, build_contact_sheet(list(rows.values()), list(rows), 9, 64))


def select_scored_frames(outcomes: Sequence[Outcome], num_frames: int) -> list[int]:
    """The frames that are judged, for every row alike: those that no row was shown truly edited, frame 0 least of all."""
    shown = {0}.union(*(outcome.reference_indices for outcome in outcomes))
    return [number for number in range(num_frames) if number not in shown]


def score_scene_outcome(outcome: Outcome, trial: SceneTrial, frame_indices: Sequence[int]) -> dict[str, float]:
    """One outcome's figures over the frames `judged`.

    The region is the loose box of the default settings for every row, whatever mask the row used: a model that paints the box in the
    object's colours would look good on the object alone. The background is the rest. Leak is judged on the object, over the whole clip.
    """
    edit, mask, some = trial.edit, trial.edit.mask.frames, list(frame_indices)
    box = trial.build_clip(trial.resolve_settings()).edit_mask.frames
    values = {
        "region_psnr": psnr(outcome.frames[some], edit.truth[some], box[some]),
        "region_ssim": ssim(outcome.frames[some], edit.truth[some], box[some]),
        "object_psnr": psnr(outcome.frames[some], edit.truth[some], mask[some]),
        "leak": leak(outcome.frames, edit.source, edit.truth[0], mask) if mask[0].any() else math.nan,
    }
    if outcome.steps is not None:
        values["steps"] = outcome.steps
    if outcome.raw_frames is not None and not box[some].all():
        values["background_psnr"] = psnr(outcome.raw_frames[some], edit.source[some], ~box[some])
    return values


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
    """Run (or go on with) a study and write `NAME.md`, `.csv` and `.png` to `output`; returns the page's path.

    `scenes` is how many are drawn for each seed, or a folder of them. Raises `SettingsError` for a folder without a scene that fits.
    """
    study = find_study(target)
    given, count = (None, scenes) if isinstance(scenes, int) else (scenes, len(scenes.select_lines(study.kinds)))
    (output / "scenes").mkdir(parents=True, exist_ok=True)
    threads = max(1, torch.get_num_threads() // workers)
    jobs = [
        SceneJob(name, target, n, seed, model, output, tuple(base_assignments), threads, vace, given)
        for seed in range(seeds)
        for n in range(count)
    ]
    done = run_jobs(name, run_scene_job, jobs, workers, reporter)
    table, kinds = gather_scores(done), [str(record["kind"]) for record in done]
    extra = format_options(base_assignments, model, vace)
    which = given.format_options() if given else f"--scenes {count}"
    command = f"lora-edit study {name} {which} --seeds {seeds}{extra} --output ..."
    page = output / f"{name}.md"
    pictures = {"Region PSNR of every row: mean, 95 % interval, and every scene as a dot": f"{name}.png"}
    if sheet := _find_example_sheet(jobs, kinds):
        shutil.copyfile(sheet, output / f"{name}-scene.png")
        pictures[f"One scene ({sheet.stem.split('_')[3]}): source, every row, and the truth"] = f"{name}-scene.png"
    write_atomically(page, render_markdown(study.title, table, kinds, study.claims, study.paper, command, pictures))
    write_csv(output / f"{name}.csv", table, [f"{job.seed}.{job.number}.{kind}" for job, kind in zip(jobs, kinds, strict=True)])
    draw_bars(output / f"{name}.png", table)
    return page


def format_options(base_assignments: Sequence[str], model: str, vace: str) -> str:
    """Of a study's command, as its page shows it."""
    extra = "".join(f" --set {text}" for text in base_assignments) + ("" if model == "tiny" else f" --model {model}")
    return extra + (f" --vace {vace}" if vace else "")


def _find_example_sheet(jobs: Sequence[SceneJob], kinds: Sequence[str]) -> Path | None:
    """A contact sheet that says much: of the scene that turns, or of the first."""
    chosen = jobs[kinds.index(EXAMPLE_KIND) if EXAMPLE_KIND in kinds else 0].file
    return next(iter(sorted(chosen.parent.glob(f"{chosen.stem}_*.png"))), None)


def gather_scores(records: Sequence[JobRecord]) -> dict[str, dict[str, list[float]]]:
    """Records to row -> metric -> values, in the records' order; not a number where a record lacks the row."""
    table: dict[str, dict[str, list[float]]] = {}
    # The fullest record first, so that rows stand in the order in which they are tried.
    found = [(index, record["rows"]) for index, record in enumerate(records)]
    for index, rows in sorted(found, key=lambda each: -len(each[1])):
        for label, values in rows.items():
            for metric, value in values.items():
                table.setdefault(label, {}).setdefault(metric, [math.nan] * len(records))[index] = float(value)
    return table
