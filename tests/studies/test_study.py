"""Studies: their rows and claims, their records per scene, and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lora_edit.reporting import SilentReporter
from lora_edit.studies import experiments
from lora_edit.studies.registry import STUDIES
from lora_edit.studies.scene_kinds import SCENE_KINDS, draw_scenes
from lora_edit.studies.scenes import render_true_edit
from lora_edit.studies.study import SceneJob, Study, find_study, run_study
from lora_edit.studies.trial import SceneTrial, Trial, select_reference_indices
from lora_edit.types import Size
from studies.small_study import TARGET
from tiny_random import tiny_random_family

QUICK = ("training.motion_steps=1", "training.appearance_steps=1", "training.recolour_variants=1", "generation.steps=1")


def quick_trial(kind: str = "recolour") -> SceneTrial:
    """Make a trial of a random model on a small scene."""
    return SceneTrial(tiny_random_family(), 0, render_true_edit(draw_scenes(1, 0, [kind])[0], Size(32, 32), 5), base_assignments=QUICK)


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_every_study_has_rows_for_its_claims(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is replaced, and every row returns the true edit."""
    study = find_study(STUDIES[name])
    trial = quick_trial()
    monkeypatch.setattr(Trial, "train", lambda self, *a, **k: [self.resolve_settings(*a)])
    monkeypatch.setattr(Trial, "learn_appearance", lambda self, n, *a: [self.resolve_settings(*a)])
    monkeypatch.setattr(Trial, "generate", lambda self, label, *a, **k: experiments.Outcome(label, self.edit.truth, self.edit.truth))
    labels = [outcome.label for outcome in study.run_rows(trial)]
    assert len(labels) == len(set(labels)) >= 2
    assert {c.better_row for c in study.claims} | {c.worse_row for c in study.claims} | set(study.paper) <= set(labels)
    assert set(study.kinds) | {kind for c in study.claims for kind in c.kinds} <= set(SCENE_KINDS)


def test_trial_trains_and_generates() -> None:
    """A trained LoRA changes the result; outside the box the finished clip equals the source, the raw output does not."""
    trial = quick_trial()
    trial.unload_lora()
    base = trial.generate("base")
    trained = trial.train_and_generate("trained", "training.motion_steps=3", "training.learning_rate=0.05", num_references=1)
    assert trained.raw_frames is not None and base.raw_frames is not None and not torch.equal(trained.raw_frames, base.raw_frames)
    box = trial.build_clip(trial.resolve_settings()).edit_mask.frames
    assert torch.equal(trained.frames[~box], trial.edit.source[~box]) and not torch.equal(trained.raw_frames[~box], trial.edit.source[~box])


def test_references_are_evenly_spaced() -> None:
    """The last frame is always included."""
    assert [select_reference_indices(17, n) for n in (0, 1, 2, 4)] == [[], [16], [8, 16], [4, 8, 12, 16]]


def test_studies_in_one_folder_have_separate_records(tmp_path: Path) -> None:
    """Most studies draw the same scenes, so each has its own files."""
    files = {SceneJob(name, STUDIES[name], 0, 0, "tiny", tmp_path, (), 1).file for name in ("windows", "snapping")}
    assert len(files) == 2


@pytest.mark.slow
def test_interrupted_study_resumes(tmp_path: Path) -> None:
    """Records of finished scenes are read, not repeated; the page lists every row."""
    run = lambda: run_study("snapping", TARGET, tmp_path, 2, 1, SilentReporter(), model="tiny", workers=1, base_assignments=QUICK)  # noqa: E731
    page = run().read_text()
    assert "| mask as drawn |" in page and "snapped" in page and (tmp_path / "snapping.png").is_file()
    record_file = tmp_path / "scenes" / "snapping_0_00.json"
    record = json.loads(record_file.read_text())
    record["rows"]["mask as drawn"]["region_psnr"] = 99.0
    record_file.write_text(json.dumps(record))
    (tmp_path / "scenes" / "snapping_0_01.json").unlink()
    assert "99.0" in run().read_text()


def test_registry_targets_are_studies() -> None:
    """Each target is a study."""
    assert all(isinstance(find_study(target), Study) for target in STUDIES.values())
