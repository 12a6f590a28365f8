"""A study on the cases of a manifest: people's own clips and public benchmarks, whose true edit is unknown.

Every row is scored by metrics that need no true edit. No single one of them shows that an edit is good: the two trivial results, no edit
and the first frame repeated, are rows of the table too, and each wins some columns.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from lora_edit.atomic_files import copy_file, write_text
from lora_edit.errors import ModelError, SettingsError
from lora_edit.evaluation.flicker import flicker
from lora_edit.evaluation.leak import leak
from lora_edit.evaluation.learned_metrics import Networks, load_networks, measure_learned_metrics
from lora_edit.evaluation.manifest import Case
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.evaluation.psnr import psnr
from lora_edit.evaluation.ssim import ssim
from lora_edit.inputs import Clip
from lora_edit.propagation.flow_warp import warp_with_flow
from lora_edit.reporting import Reporter
from lora_edit.studies.case_table import SIMILARITY_METRICS, Facts, render_page
from lora_edit.studies.case_trial import CaseTrial, caption_cases, check_cases, open_case
from lora_edit.studies.extra_metrics import measure_extra_metrics
from lora_edit.studies.jobs import JobRecord, get_family, get_vace, run_jobs
from lora_edit.studies.study import Study, find_study, format_options, gather_scores
from lora_edit.studies.table import write_csv
from lora_edit.studies.trial import Outcome
from lora_edit.types import EditMask, hash_content
from lora_edit.video.sheet import build_contact_sheet, save_image

SHEET_FRAMES = 9
"""Number of frames in a row of a contact sheet."""


@dataclass(frozen=True)
class CaseJob:
    """One case and seed of a study, run by a worker process."""

    study: str
    target: str
    case: Case
    seed: int
    model: str
    folder: Path
    base_assignments: tuple[str, ...]
    threads: int
    vace: str = ""

    @property
    def file(self) -> Path:
        """The path of the scores."""
        return self.folder / "cases" / f"{self.study}_{self.seed}_{self.case.id}.json"


def run_on_cases(
    name: str,
    target: str,
    output: Path,
    manifest: Path,
    seeds: int,
    reporter: Reporter,
    model: str,
    workers: int,
    base_assignments: Sequence[str],
    vace: str = "",
) -> Path:
    """Run or resume a study on the cases of a manifest, write `NAME-cases.md` and `.csv` to `output`, and return the path of the page.

    Everything is checked before a model is loaded or a file is written. Raises `SettingsError`, with the line of the manifest, for a
    fault.
    """
    study = find_study(target)
    if len(study.frame_counts) > 1:
        raise SettingsError(
            f"study {name} draws clips of several lengths, which a case does not have; leave out --cases, or choose another study"
        )
    cases = check_cases(manifest, study.min_references, model, (*study.base_assignments, *base_assignments), reporter)
    caption_cases(cases, output, model, (*study.base_assignments, *base_assignments), bool(vace), reporter)
    (output / "cases").mkdir(parents=True, exist_ok=True)
    threads = max(1, torch.get_num_threads() // workers)
    jobs = [
        CaseJob(name, target, case, seed, model, output, tuple(base_assignments), threads, vace) for case in cases for seed in range(seeds)
    ]
    records = run_jobs(name, run_case_job, jobs, workers, reporter)
    table = gather_scores(records)
    write_csv(output / f"{name}-cases.csv", table, [f"{job.seed}.{job.case.id}" for job in jobs])
    pictures = {f"{cases[0].id}: the source, and every row": f"{name}-cases.png"}
    copy_file(jobs[0].file.with_suffix(".png"), output / f"{name}-cases.png")
    options = format_options(base_assignments, model, vace)
    command = f"lora-edit study {name} --cases {manifest.name} --seeds {seeds}{options} --output ..."
    facts = {record["kind"]: Facts(**record["facts"]) for record in records}
    page = output / f"{name}-cases.md"
    write_text(page, render_page(study.title, table, seeds, facts, study.paper, command, pictures))
    return page


def run_case_job(job: CaseJob) -> JobRecord:
    """Run every row on one case, write the scores and a contact sheet, and return the record. A finished job only reads its record.

    A case that was scored without CLIP is repeated once CLIP is on this machine.
    """
    start_time, study, networks = time.monotonic(), find_study(job.target), load_similarity_networks()
    torch.set_num_threads(job.threads)
    family, vace = get_family(job.model), get_vace(job.vace)
    trial = open_case(family, job.case, job.seed, (*study.base_assignments, *job.base_assignments), job.folder, vace)
    clip = trial.build_clip(trial.resolve_settings())
    models = [each.fingerprint() for each in (family, vace) if each is not None]
    key = hash_content(
        trial.full_clip.compute_hash(),
        *trial.full_clip.captions.values(),
        *models,
        repr(trial.resolve_settings().model_dump(exclude={"input"})),
    )
    if job.file.is_file():
        record: JobRecord = json.loads(job.file.read_text("utf-8"))
        if record["key"] == key and (networks is None or record["likeness"]):
            return record
    rows: dict[str, dict[str, float]] = {}
    sheet_rows = {"source": _select_sheet_frames(clip.video.frames)}
    for outcome in _run_rows(study, trial):
        rows[outcome.label] = score_case_outcome(outcome, clip, trial.full_clip.edit_mask.frames, networks)
        sheet_rows[outcome.label] = _select_sheet_frames(outcome.frames)
    trial.unload_lora()
    save_image(job.file.with_suffix(".png"), build_contact_sheet(list(sheet_rows.values()), list(sheet_rows), SHEET_FRAMES, 96))
    facts = Facts(clip.video.num_frames, str(clip.video.size), float(clip.edit_mask.frames.float().mean()), trial.max_references)
    record = {"key": key, "kind": job.case.id, "likeness": networks is not None, "facts": vars(facts), "rows": rows}
    record["captions"] = dict(trial.full_clip.captions)
    record["seconds"] = time.monotonic() - start_time
    write_text(job.file, json.dumps(record, indent=1))
    return record


@cache
def load_similarity_networks() -> Networks | None:
    """Load the network of CLIP score and input similarity, once per process; None when it is not on this machine."""
    try:
        return load_networks(SIMILARITY_METRICS)
    except ModelError:
        return None


def _run_rows(study: Study, trial: CaseTrial) -> Iterator[Outcome]:
    """Yield the trivial results, then the rows of the study; each label once."""
    labels: set[str] = set()
    for outcome in chain((trial.copy_source(), trial.repeat_first_frame()), study.run_rows(trial)):
        if outcome.label not in labels:
            labels.add(outcome.label)
            yield outcome


def score_case_outcome(outcome: Outcome, clip: Clip, edit_mask: torch.Tensor, networks: Networks | None) -> dict[str, float]:
    """Score an outcome by metrics that need no true edit; NaN where there is nothing to measure.

    The background is measured on the model's own output, before compositing restores the source's pixels; everything else is measured on
    the finished clip. The region is that of the default settings for every row, whichever mask the row used; leak is measured on
    `edit_mask`, the mask as drawn. Every finished clip starts with the edited first frame, so fidelity to that frame is measured on the
    second frame.
    """
    raw_frames = outcome.frames if outcome.raw_frames is None else outcome.raw_frames
    source, box = clip.video.frames, clip.edit_mask.frames
    background = ~box[1:]
    values = dict.fromkeys(("background_psnr", "background_ssim", "flicker", "leak", "first_psnr"), math.nan)
    if background.any():
        values["background_psnr"] = psnr(raw_frames[1:], source[1:], background)
        values["background_ssim"] = ssim(raw_frames[1:], source[1:], background)
    if box[1].any():
        warped = warp_with_flow(source[:2], clip.first_frame, EditMask(box[:2]))
        values["first_psnr"] = psnr(outcome.frames[1:2], warped[1:], box[1:2])
    if box[1:].any():
        values["flicker"] = flicker(outcome.frames, box)
    if edit_mask[0].any():
        values["leak"] = leak(outcome.frames, source, clip.first_frame, edit_mask)
    if networks is not None:
        inputs = MetricInputs(replace(clip.video, frames=outcome.frames), clip.video, first_frame=clip.first_frame)
        values |= measure_learned_metrics(networks, SIMILARITY_METRICS, inputs)
    return values | measure_extra_metrics(outcome.frames, clip)


def _select_sheet_frames(frames: torch.Tensor) -> torch.Tensor:
    """Select the frames of a contact sheet; all rows of a study at full length would not fit in memory."""
    indices = np.linspace(0, len(frames) - 1, min(SHEET_FRAMES, len(frames))).round().astype(int).tolist()
    return frames[indices]
