"""A study on the cases of a manifest: people's own clips and public benchmarks, for which nobody knows the true edit.

Every row is measured by what needs none. None of these figures alone says that an edit is good: the two results that take no work, no
edit and the first frame held still, stand beside the rows and win some column each.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from lora_edit.errors import ModelError, SettingsError
from lora_edit.evaluation.flicker import flicker
from lora_edit.evaluation.leak import leak
from lora_edit.evaluation.learned_metrics import Networks, load_networks, measure_learned_metrics
from lora_edit.evaluation.manifest import Case
from lora_edit.evaluation.psnr import psnr
from lora_edit.evaluation.ssim import ssim
from lora_edit.inputs import Clip
from lora_edit.propagation.flow_warp import warp_with_flow
from lora_edit.reporting import Reporter
from lora_edit.run import write_atomically
from lora_edit.studies.case_table import SIMILARITY_METRICS, Facts, render_page
from lora_edit.studies.case_trial import CaseTrial, caption_cases, check_cases, open_case
from lora_edit.studies.jobs import JobRecord, get_family, get_vace, run_jobs
from lora_edit.studies.study import Study, find_study, format_options, gather_scores
from lora_edit.studies.table import write_csv
from lora_edit.studies.trial import Outcome
from lora_edit.types import EditMask, hash_content
from lora_edit.video.sheet import build_contact_sheet, save_image

SHEET_FRAMES = 9
"""Frames of a contact sheet's rows."""


@dataclass(frozen=True)
class CaseJob:
    """One case and seed of a study."""

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
        """Where its scores are kept."""
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
    """Run (or go on with) a study on a manifest's cases and write `NAME-cases.md` and `.csv` to `output`; returns the page's path.

    Everything is checked before a model is loaded or a file written: raises `SettingsError`, with the manifest's line, for a fault.
    """
    study = find_study(target)
    if len(study.frame_counts) > 1:
        raise SettingsError(f"study {name} draws clips of several lengths, which no case has; leave out --cases, or choose another study")
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
    shutil.copyfile(jobs[0].file.with_suffix(".png"), output / f"{name}-cases.png")
    extra = format_options(base_assignments, model, vace)
    command = f"lora-edit study {name} --cases {manifest.name} --seeds {seeds}{extra} --output ..."
    facts = {record["kind"]: Facts(**record["facts"]) for record in records}
    page = output / f"{name}-cases.md"
    write_atomically(page, render_page(study.title, table, seeds, facts, study.paper, command, pictures))
    return page


def run_case_job(job: CaseJob) -> JobRecord:
    """Every row on one case: writes the scores and a contact sheet, and returns the scores' record. One that was done is read.

    A case that was measured without CLIP is tried again once CLIP is at hand.
    """
    began, study, networks = time.monotonic(), find_study(job.target), load_similarity_networks()
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
    strips = {"source": _select_sheet_frames(clip.video.frames)}
    for outcome in _run_rows(study, trial):
        rows[outcome.label] = score_case_outcome(outcome, clip, trial.full_clip.edit_mask.frames, networks)
        strips[outcome.label] = _select_sheet_frames(outcome.frames)
    trial.unload_lora()
    save_image(job.file.with_suffix(".png"), build_contact_sheet(list(strips.values()), list(strips), SHEET_FRAMES, 96))
    facts = Facts(clip.video.num_frames, str(clip.video.size), float(clip.edit_mask.frames.float().mean()), trial.max_references)
    record = {"key": key, "kind": job.case.id, "likeness": networks is not None, "facts": vars(facts), "rows": rows}
    record["captions"] = dict(trial.full_clip.captions)
    record["seconds"] = time.monotonic() - began
    write_atomically(job.file, json.dumps(record, indent=1))
    return record


@cache
def load_similarity_networks() -> Networks | None:
    """What CLIP score and input similarity need, once per process; None where it was never downloaded to this machine."""
    try:
        return load_networks(SIMILARITY_METRICS)
    except ModelError:
        return None


def _run_rows(study: Study, trial: CaseTrial) -> Iterator[Outcome]:
    """What takes no work, then the study's rows; each once."""
    seen: set[str] = set()
    for outcome in chain((trial.copy_source(), trial.repeat_first_frame()), study.run_rows(trial)):
        if outcome.label not in seen:
            seen.add(outcome.label)
            yield outcome


def score_case_outcome(outcome: Outcome, clip: Clip, edit_mask: torch.Tensor, networks: Networks | None) -> dict[str, float]:
    """One outcome's figures, by what needs no truth; not a number where there is nothing to measure.

    The background is judged on the model's own output, before the source's pixels return, the rest on the finished clip. The region is the
    one of the default settings for every row, whatever mask the row used; leak is judged on the mask as `drawn`. As every finished clip
    opens with the first frame that it was given, fidelity to that is judged on the frame after it.
    """
    own = outcome.frames if outcome.raw_frames is None else outcome.raw_frames
    source, box = clip.video.frames, clip.edit_mask.frames
    outside = ~box[1:]
    values = dict.fromkeys(("background_psnr", "background_ssim", "flicker", "leak", "first_psnr"), math.nan)
    if outside.any():
        values["background_psnr"] = psnr(own[1:], source[1:], outside)
        values["background_ssim"] = ssim(own[1:], source[1:], outside)
    if box[1].any():
        moved = warp_with_flow(source[:2], clip.first_frame, EditMask(box[:2]))
        values["first_psnr"] = psnr(outcome.frames[1:2], moved[1:], box[1:2])
    if box[1:].any():
        values["flicker"] = flicker(outcome.frames, box)
    if edit_mask[0].any():
        values["leak"] = leak(outcome.frames, source, clip.first_frame, edit_mask)
    if networks is not None:
        result = replace(clip.video, frames=outcome.frames)
        values |= measure_learned_metrics(networks, SIMILARITY_METRICS, result, clip.video, first_frame=clip.first_frame)
    return values


def _select_sheet_frames(frames: torch.Tensor) -> torch.Tensor:
    """The frames that a contact sheet shows: a study's rows at full length would not fit in memory."""
    chosen = np.linspace(0, len(frames) - 1, min(SHEET_FRAMES, len(frames))).round().astype(int).tolist()
    return frames[chosen]
