"""VACE as a row of `study methods`: on a drawn scene and on a case of a manifest, with a tiny random VACE from a folder."""

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
    """A folder that holds a VACE; the model to compare is random."""
    folder = tmp_path / "vace"
    facts = save_tiny_vace(folder)

    def found(source: str) -> Any:
        return load_vace(facts, source, torch.device("cpu"), torch.float32) if source else None

    for module in (study, case_study):
        monkeypatch.setattr(module, "get_family", lambda model: tiny_random_family())
        monkeypatch.setattr(module, "get_vace", found)
    return folder


def test_a_scene_gets_the_row(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the clip's length and size, judged as the others; scores without it are not taken for scores with it."""
    monkeypatch.setattr(study, "find_study", lambda target: study.Study("one row", rows_around_vace, frame_counts=(5,), size=Size(32, 32)))
    (tmp_path / "scenes").mkdir()

    def job(vace: str) -> dict[str, Any]:
        return run_scene_job(SceneJob("methods", STUDIES["methods"], 0, 0, "random", tmp_path, QUICK, 1, vace))

    without, compared = job(""), job(str(models))
    assert list(without["rows"]) == ["no edit"] and list(compared["rows"]) == ["no edit", "VACE"]
    values = compared["rows"]["VACE"]
    assert 0 < values["region_psnr"] < 60 and 0 < values["background_psnr"] < 60 and values != compared["rows"]["no edit"]


def rows_around_vace(trial: Any) -> Any:
    """The rows of `methods` without those that train."""
    yield from (trial.no_edit(), *trial.reference_guided())


def test_a_case_gets_the_row(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the region its finished clip is the source's; the region is not what the random model makes of it."""
    edit = render_true_edit(draw_scenes(1, 0, ["recolour"])[0], Size(32, 48), 5)
    write_video(tmp_path / "one.mkv", Video(edit.source, Fraction(8), tuple(i / 8 for i in range(5))), "ffv1")
    save_image(tmp_path / "one.png", edit.truth[0])
    save_mask(tmp_path / "mask", edit.mask)
    line = '{"id": "one", "source": "one.mkv", "first_frame": "one.png", "mask": "mask", "prompt": "a thing"}'
    (tmp_path / "cases.jsonl").write_text(line, "utf-8")
    (tmp_path / "cases").mkdir()
    monkeypatch.setattr(case_study, "find_study", lambda target: study.Study("one row", rows_around_vace))
    monkeypatch.setattr(case_study, "load_similarity_networks", lambda: None)
    case = read_cases(tmp_path / "cases.jsonl")[0]
    record = run_case_job(CaseJob("methods", STUDIES["methods"], case, 0, "random", tmp_path, QUICK, 1, str(models)))
    assert list(record["rows"]) == ["no edit", "first frame, frozen", "VACE"]
    assert 0 < record["rows"]["VACE"]["background_psnr"] < 60


def test_it_is_sampled_as_published_unless_told(models: Path) -> None:
    """Its own steps, shift and guidance, not the other model's, and no trigger word; what a study sets for all rows holds."""
    vace = study.get_vace(str(models))
    asked: list[Any] = []
    trial = SceneTrial(tiny_random_family(), 0, render_true_edit(draw_scenes(1, 0, ["recolour"])[0], Size(32, 32), 5), vace=vace)

    def note(self: SceneTrial, label: str, settings: Any, num_references: int = 0) -> Any:
        asked.append((label, settings.generation.steps, settings.generation.shift, settings.generation.guidance_scale, settings.trigger))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneTrial, "_generate_outcome", note)
        trial.generate_with_vace()
        SceneTrial(trial.family, 0, trial.edit, base_assignments=QUICK, vace=vace).generate_with_vace()
    assert asked == [("VACE", 50, 16.0, 5.0, ""), ("VACE", 1, 16.0, 5.0, "")]


def test_without_one_there_is_no_row() -> None:
    """And `methods` is as before; its page's command names one that was given."""
    trial = SceneTrial(tiny_random_family(), 0, render_true_edit(draw_scenes(1, 0, ["recolour"])[0], Size(32, 32), 5))
    assert trial.generate_with_vace() == () and METHODS.run_rows.__name__ == "_methods"
    assert format_options(("a.b=1",), "tiny", "") == " --set a.b=1" and format_options((), "m", "v") == " --model m --vace v"
