"""Scenes with a true edit in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lora_edit.errors import SettingsError
from lora_edit.masks.files import save_mask
from lora_edit.reporting import SilentReporter
from lora_edit.studies.scene_folder import SceneFolder, read_scenes
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import TrueEdit, render_true_edit
from lora_edit.studies.study import SceneJob, Study, build_true_edits, run_study, score_scene_outcome
from lora_edit.studies.trial import BEST_BASELINE, SceneTrial
from lora_edit.types import EditMask, Size
from lora_edit.video.png_frames import save_frames
from studies.small_study import TARGET
from tiny_random import tiny_random_family

QUICK = ("training.motion_steps=1", "training.recolour_variants=1", "generation.steps=1")
LINES = [
    {"name": "a-seen-0", "kind": "a", "half": "seen", "licence": "CC0"},
    {"name": "a-seen-1", "kind": "a", "half": "seen"},
    {"name": "b-unseen-0", "kind": "b", "half": "unseen"},
    {"name": "b-seen-0", "kind": "b", "half": "seen"},
]


def draw_edit(name: str) -> TrueEdit:
    """Draw a small scene, seeded with its name."""
    return render_true_edit(draw_scenes(1, sum(map(ord, name)))[0], Size(32, 40), 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four scenes."""
    for line in LINES:
        edit = draw_edit(line["name"])
        save_frames(tmp_path / line["name"] / "source", edit.source)
        save_frames(tmp_path / line["name"] / "truth", edit.truth)
        save_mask(tmp_path / line["name"] / "mask", edit.mask)
    (tmp_path / "scenes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + "\n")
    return tmp_path


def test_scenes_are_read_unchanged(folder: Path) -> None:
    scenes = read_scenes(folder)
    assert [scene.name for scene in scenes] == ["a", "b", "a"]
    expected = draw_edit("b-seen-0")
    assert torch.equal(scenes[1].source, expected.source) and torch.equal(scenes[1].truth, expected.truth)
    assert torch.equal(scenes[1].mask.frames, expected.mask.frames)


def test_selection_by_half_count_and_kind(folder: Path) -> None:
    names = lambda *arguments, kinds=(): [line.name for line in SceneFolder(folder, *arguments).select_lines(kinds)]  # noqa: E731
    assert names() == ["a-seen-0", "b-seen-0", "a-seen-1"]
    assert names("unseen") == ["b-unseen-0"]
    assert names("all", 3) == ["a-seen-0", "b-unseen-0", "a-seen-1"]
    assert names("all", kinds=("b",)) == ["b-unseen-0", "b-seen-0"]
    with pytest.raises(SettingsError, match="no scene of the half unseen of a"):
        names("unseen", kinds=("a",))


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "line 1: the line: invalid json"), ('{"name": "../x", "kind": "a", "half": "seen"}', "line 1: name"), ("\n", "has no scene")],
)
def test_damaged_list_error_has_line_number(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "scenes.jsonl").write_text(text)
    with pytest.raises(SettingsError, match=words):
        SceneFolder(tmp_path).select_lines()


def test_damaged_scene_error_has_name(folder: Path) -> None:
    sorted((folder / "a-seen-1" / "truth").glob("*.png"))[-1].unlink()
    with pytest.raises(SettingsError, match="a-seen-1: truth and source differ"):
        read_scenes(folder)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_scenes(folder / "a-seen-0")


def test_study_of_several_lengths_skips_longer_ones(folder: Path) -> None:
    job = SceneJob("s", "", 1, 0, "tiny", folder, (), 1, scene_folder=SceneFolder(folder))

    def lengths(*frames: int) -> list[int]:
        study = Study("", lambda trial: iter(()), frame_counts=frames)
        return [len(edit.mask.frames) for edit in build_true_edits(job, study)]

    assert (lengths(17), lengths(3, 5, 9), lengths(9, 13)) == ([5], [3, 5], [5])


def test_scene_without_background_is_scored() -> None:
    """An edit of the whole frame, such as a change of style, has no background."""
    edit = draw_edit("x")
    style_edit = TrueEdit("style", edit.source, 255 - edit.source, EditMask(torch.ones_like(edit.mask.frames)))
    trial = SceneTrial(tiny_random_family(), 0, style_edit, base_assignments=QUICK)
    scores = score_scene_outcome(trial.generate("base"), trial, range(1, 5))
    assert "background_psnr" not in scores and scores["region_psnr"] > 0


def test_best_outcome_is_nearest_to_truth() -> None:
    trial = SceneTrial(tiny_random_family(), 0, draw_edit("y"), base_assignments=QUICK)
    outcomes = (trial.copy_source(), trial.run_colour_map(), trial.run_moving_layer(), trial.run_flow_warp())
    (best,) = trial.select_best(outcomes)
    scores = [score_scene_outcome(outcome, trial, range(1, 5))["region_psnr"] for outcome in (*outcomes, best)]
    assert best.label == BEST_BASELINE and scores[-1] == max(scores)


@pytest.mark.slow
def test_study_runs_on_folder(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "study"
    scenes = SceneFolder(folder, "seen", 2)
    page = run_study("snapping", TARGET, output, scenes, 1, SilentReporter(), model="tiny", workers=1, base_assignments=QUICK).read_text()
    assert f"lora-edit study snapping --scenes-from {folder.name} --seeds 1" in page and "|  | a | b |" in page
