"""VACE as a row of `study methods`, on a drawn scene and on a case of a manifest, with a tiny random VACE from a folder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit.evaluation.manifest import read_cases
from lora_edit.masks.files import save_mask
from lora_edit.models.families.vace.loading import load_vace
from lora_edit.studies import case_study, study
from lora_edit.studies.case_study import CaseJob, run_case_job
from lora_edit.studies.experiments import METHODS
from lora_edit.studies.registry import STUDIES
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import render_true_edit
from lora_edit.studies.study import SceneJob, format_options, run_scene_job
from lora_edit.studies.trial import SceneTrial
from lora_edit.types import Size, Video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from tiny_random import tiny_random_family
from tiny_vace import save_tiny_vace

QUICK = ("training.motion_steps=1", "training.appearance_steps=1", "training.recolour_variants=1", "generation.steps=1")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a VACE; the other model is random."""
    folder = tmp_path / "vace"
    facts = save_tiny_vace(folder)

    def get_vace(source: str) -> Any:
        return load_vace(facts, source, torch.device("cpu"), torch.float32) if source else None

    for module in (study, case_study):
        monkeypatch.setattr(module, "get_family", lambda model: tiny_random_family())
        monkeypatch.setattr(module, "get_vace", get_vace)
    return folder


def test_scene_has_vace_row(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VACE runs at the clip's length and size and is scored like other rows; records without VACE are not reused with it."""
    monkeypatch.setattr(
        study, "find_study", lambda target: study.Study("one row", run_rows_without_training, frame_counts=(5,), size=Size(32, 32))
    )
    (tmp_path / "scenes").mkdir()

    def run_job(vace: str) -> dict[str, Any]:
        return run_scene_job(SceneJob("methods", STUDIES["methods"], 0, 0, "random", tmp_path, QUICK, 1, vace))

    without, compared = run_job(""), run_job(str(models))
    assert list(without["rows"]) == ["no edit"] and list(compared["rows"]) == ["no edit", "VACE"]
    values = compared["rows"]["VACE"]
    assert 0 < values["region_psnr"] < 60 and 0 < values["background_psnr"] < 60 and values != compared["rows"]["no edit"]


def run_rows_without_training(trial: Any) -> Any:
    """Yield the rows of `methods` that need no training."""
    yield from (trial.copy_source(), *trial.generate_with_vace())


def test_case_has_vace_row(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finished clip equals the source outside the region; the region differs from that of the random model."""
    edit = render_true_edit(draw_scenes(1, 0, ["recolour"])[0], Size(32, 48), 5)
    write_video(tmp_path / "one.mkv", Video(edit.source, Fraction(8), tuple(i / 8 for i in range(5))), "ffv1")
    save_image(tmp_path / "one.png", edit.truth[0])
    save_mask(tmp_path / "mask", edit.mask)
    line = '{"id": "one", "source": "one.mkv", "first_frame": "one.png", "mask": "mask", "prompt": "a thing"}'
    (tmp_path / "cases.jsonl").write_text(line, "utf-8")
    (tmp_path / "cases").mkdir()
    monkeypatch.setattr(case_study, "find_study", lambda target: study.Study("one row", run_rows_without_training))
    monkeypatch.setattr(case_study, "load_similarity_networks", lambda: None)
    case = read_cases(tmp_path / "cases.jsonl")[0]
    record = run_case_job(CaseJob("methods", STUDIES["methods"], case, 0, "random", tmp_path, QUICK, 1, str(models)))
    assert list(record["rows"]) == ["no edit", "first frame, frozen", "VACE"]
    assert 0 < record["rows"]["VACE"]["background_psnr"] < 60


def test_vace_is_sampled_as_published_by_default(models: Path) -> None:
    """VACE has its own steps, shift and guidance and no trigger word; assignments of the study override them."""
    vace = study.get_vace(str(models))
    calls: list[Any] = []
    trial = SceneTrial(tiny_random_family(), 0, render_true_edit(draw_scenes(1, 0, ["recolour"])[0], Size(32, 32), 5), vace=vace)

    def record_call(self: SceneTrial, label: str, settings: Any, num_references: int = 0) -> Any:
        calls.append((label, settings.generation.steps, settings.generation.shift, settings.generation.guidance_scale, settings.trigger))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneTrial, "_generate_outcome", record_call)
        trial.generate_with_vace()
        SceneTrial(trial.family, 0, trial.edit, base_assignments=QUICK, vace=vace).generate_with_vace()
    assert calls == [("VACE", 50, 16.0, 5.0, ""), ("VACE", 1, 16.0, 5.0, "")]


def test_no_row_without_vace() -> None:
    """`methods` has no VACE row; the command on the page has `--vace` only when it was used."""
    trial = SceneTrial(tiny_random_family(), 0, render_true_edit(draw_scenes(1, 0, ["recolour"])[0], Size(32, 32), 5))
    assert trial.generate_with_vace() == () and METHODS.run_rows.__name__ == "_run_methods"
    assert format_options(("a.b=1",), "tiny", "") == " --set a.b=1" and format_options((), "m", "v") == " --model m --vace v"
