"""Studies on cases without truth: two tiny clips, a tiny random model, and errors before any work."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from typer.testing import CliRunner

from lora_edit.cli.main import app
from lora_edit.errors import SettingsError
from lora_edit.evaluation.manifest import read_cases
from lora_edit.evaluation.registry import METRICS
from lora_edit.masks.files import save_mask
from lora_edit.reporting import SilentReporter
from lora_edit.studies import case_study, jobs
from lora_edit.studies.case_study import CaseJob, run_case_job, run_on_cases, score_case_outcome
from lora_edit.studies.case_table import READING_NOTES, Facts, average_seeds, render_page
from lora_edit.studies.case_trial import CaseTrial, check_cases, open_case
from lora_edit.studies.registry import STUDIES
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import render_true_edit
from lora_edit.studies.study import find_study, gather_scores
from lora_edit.studies.trial import Outcome
from lora_edit.types import Size, Video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from tiny_random import tiny_random_family

QUICK = ("training.motion_steps=1", "training.appearance_steps=1", "training.recolour_variants=1", "generation.steps=1")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest with two cases: `one` has a mask and two later frames, `two` has neither. An empty line separates them."""
    lines = []
    for name, kind in (("one", "recolour"), ("two", "retexture")):
        edit = render_true_edit(draw_scenes(1, 0, [kind])[0], Size(32, 48), 5)
        video = Video(edit.source, Fraction(8), tuple(i / 8 for i in range(5)))
        write_video(tmp_path / f"{name}.mkv", video, "ffv1")
        for number in (0, 2, 4):
            save_image(tmp_path / f"{name}{number}.png", edit.truth[number])
        line: dict[str, Any] = {"id": name, "source": f"{name}.mkv", "first_frame": f"{name}0.png", "prompt": "a thing"}
        if name == "one":
            save_mask(tmp_path / "one_mask", edit.mask)
            line |= {"mask": "one_mask", "later": [{"frame": n, "image": f"one{n}.png"} for n in (4, 2)]}
        lines.append(line)
    return write_lines(tmp_path / "cases.jsonl", *lines)


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("\n\n".join(json.dumps(line) for line in lines), "utf-8")
    return path


def read_lines(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text("utf-8").splitlines() if line]


def test_case_trial_uses_settings_of_edit(manifest: Path) -> None:
    one, two = (open_case(tiny_random_family(), case, 3, QUICK) for case in read_cases(manifest))
    settings = one.resolve_settings("lora.rank=2")
    assert (settings.prompt, settings.seed, settings.lora.rank, settings.compositing.crop) == ("a thing", 3, 2, True)
    assert (one.max_references, two.max_references) == (2, 0)
    assert [list(one.build_clip(settings, count).references) for count in range(3)] == [[], [4], [2, 4]]
    box = one.build_clip(settings).edit_mask.frames
    assert (box & one.full_clip.edit_mask.frames).sum() == one.full_clip.edit_mask.frames.sum() < box.sum()
    assert two.build_clip(settings).edit_mask.frames.all() and one.reconstruct_true_edit() == ()
    with pytest.raises(SettingsError, match=r"lora\.rank"):
        one.resolve_settings("lora.rank=0")


def test_generated_outcome_is_scored(manifest: Path) -> None:
    trial = open_case(tiny_random_family(), read_cases(manifest)[0], 0, QUICK)
    outcome, clip = trial.generate("generated"), trial.build_clip(trial.resolve_settings())
    assert outcome.raw_frames is not None
    box = clip.edit_mask.frames
    assert torch.equal(outcome.frames[1:][~box[1:]], clip.video.frames[1:][~box[1:]])
    values = score_case_outcome(outcome, clip, trial.full_clip.edit_mask.frames, None)
    assert set(values) == {"background_psnr", "background_ssim", "flicker", "leak", "first_psnr"}
    assert 0 < values["first_psnr"] < 60 and 0 < values["background_psnr"] < 60
    warped = score_case_outcome(trial.run_flow_warp(), clip, trial.full_clip.edit_mask.frames, None)
    assert (warped["first_psnr"], warped["background_psnr"]) == (math.inf, math.inf)


def test_trivial_results_have_known_scores(manifest: Path) -> None:
    """No edit has an exact background and full leak; the frozen first frame is nearer to the edited one and has no flicker."""
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=8, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = {METRICS["clip_score"].loader: CLIPVisionModelWithProjection(config).eval()}
    trial = open_case(tiny_random_family(), read_cases(manifest)[0], 0, QUICK)
    clip, edit_mask = trial.build_clip(trial.resolve_settings()), trial.full_clip.edit_mask.frames
    no_edit, frozen = (score_case_outcome(each, clip, edit_mask, networks) for each in (trial.copy_source(), trial.repeat_first_frame()))
    assert (no_edit["background_psnr"], no_edit["leak"], no_edit["input_similarity"]) == (math.inf, pytest.approx(1), pytest.approx(1))
    assert (frozen["flicker"], frozen["clip_score"]) == (pytest.approx(0), pytest.approx(1))
    assert frozen["first_psnr"] > no_edit["first_psnr"]
    whole_frame = open_case(tiny_random_family(), read_cases(manifest)[1], 0, QUICK)
    values = score_case_outcome(
        whole_frame.copy_source(), whole_frame.build_clip(whole_frame.resolve_settings()), whole_frame.full_clip.edit_mask.frames, None
    )
    assert math.isnan(values["background_psnr"]) and not math.isnan(values["flicker"])


@pytest.mark.parametrize("name", sorted(set(STUDIES) - {"frames"}))
def test_every_study_runs_without_truth(name: str, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and generation are replaced; studies that need later frames run on cases that have them."""
    study = find_study(STUDIES[name])
    for case in read_cases(manifest):
        trial = open_case(tiny_random_family(), case, 0, QUICK)
        counts: list[int] = []

        def generate(self: CaseTrial, *_: object, num_references: int = 0, counts: list[int] = counts) -> Outcome:
            counts.append(num_references)
            return self.copy_source()

        def train(self: CaseTrial, *_: object, num_references: int = 0, counts: list[int] = counts) -> int:
            counts.append(num_references)
            return 1

        monkeypatch.setattr(CaseTrial, "train", train)
        monkeypatch.setattr(CaseTrial, "generate", generate)
        monkeypatch.setattr(CaseTrial, "learn_appearance", lambda self, count, *_, train=train: train(self, num_references=count))
        if len(case.later) >= study.min_references:
            assert "truth through the codec" not in {outcome.label for outcome in study.run_rows(trial)}
            assert max(counts, default=0) <= trial.max_references
            assert (max(counts, default=0) == 2) == (
                trial.max_references == 2 and name in ("baselines", "methods", "references", "mask-schedule", "fewer-steps")
            )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "none.mkv"}, "source "),
        ({"frames": 9}, "9 frames from start 0 pass the end"),
        ({"later": [{"frame": 5, "image": "two4.png"}]}, "later frame 5="),
        ({"mask": "small"}, "export the mask at the source's size"),
        ({"first_frame": "cases.jsonl"}, "cases.jsonl"),
        ({"frames": 1}, "give two frames or more"),
        ({"frist": 1}, "a case has the keys"),
    ],
)
def test_invalid_manifest_raises_before_loading_a_model(change: dict[str, Any], words: str, manifest: Path, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(jobs, "load_family", fail)
    monkeypatch.setattr(case_study, "run_jobs", fail)
    save_image(manifest.parent / "small" / "00000.png", torch.full((8, 8, 3), 255, dtype=torch.uint8))
    one, two = read_lines(manifest)
    write_lines(manifest, one, two | change)
    output = manifest.parent / "out"
    outcome = CliRunner().invoke(app, ["study", "methods", "--cases", str(manifest), "--output", str(output)])
    errors = [line for line in outcome.stderr.splitlines() if not line.startswith(("check ", "note: "))]
    assert (outcome.exit_code, outcome.stdout, len(errors)) == (2, "", 1)
    assert errors[0].startswith(f"error: {manifest}, line 3") and words in errors[0]
    assert not output.exists()


def test_cases_with_too_few_later_frames_are_skipped(manifest: Path) -> None:
    assert [case.id for case in check_cases(manifest, 2, "tiny", (), SilentReporter())] == ["one"]
    assert [case.id for case in check_cases(manifest, 0, "tiny", (), SilentReporter())] == ["one", "two"]
    with pytest.raises(SettingsError, match=r"cases\.jsonl: none of its 2 cases has 3 edited later frames.*`later`"):
        check_cases(manifest, 3, "tiny", (), SilentReporter())
    with pytest.raises(SettingsError, match="draws clips of several lengths"):
        run_on_cases("frames", STUDIES["frames"], manifest.parent / "out", manifest, 1, SilentReporter(), "tiny", 1, ())


def test_case_scored_without_clip_is_repeated_with_clip(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_study, "get_family", lambda model: tiny_random_family())
    monkeypatch.setattr(case_study, "load_similarity_networks", lambda: None)
    scores = {"clip_score": 0.5, "input_similarity": 0.25}
    monkeypatch.setattr(case_study, "measure_learned_metrics", lambda *a, **k: scores)
    job = CaseJob("mask-configurations", STUDIES["mask-configurations"], read_cases(manifest)[0], 0, "random", tmp_path, QUICK, 1)
    record = run_case_job(job)
    assert list(record["rows"])[:3] == ["no edit", "first frame, frozen", "first frame given (default)"]
    assert (record["likeness"], record["kind"], record["facts"]["later"]) == (False, "one", 2)
    assert job.file.with_suffix(".png").is_file()
    assert run_case_job(job)["seconds"] == record["seconds"]
    monkeypatch.setattr(case_study, "load_similarity_networks", dict)
    record = run_case_job(job)
    assert record["rows"]["no edit"]["clip_score"] == 0.5
    monkeypatch.setattr(case_study, "load_similarity_networks", lambda: None)
    assert run_case_job(job) == record


def test_page_lists_unmeasured_metrics_and_no_claims() -> None:
    assert average_seeds([1.0, 3.0, math.inf, math.nan, math.nan, math.nan], 2) == [2.0, math.inf, pytest.approx(math.nan, nan_ok=True)]
    partial = {"rows": {"base": {"flicker": 1.0, "first_psnr": math.inf}}}
    complete = {"rows": {"base": {"flicker": 3.0, "first_psnr": 20.0}, "2 references": {"flicker": 2.0, "first_psnr": 30.0}}}
    scores = gather_scores([partial, complete])
    assert list(scores) == ["base", "2 references"] and math.isnan(scores["2 references"]["flicker"][0])
    facts = {"swan": Facts(5, "48x32", 0.25, 0), "duck": Facts(5, "48x32", 1.0, 2)}
    page = render_page("Title", scores, 1, facts, {}, "lora-edit study x", {"swan": "x.png"})
    assert "|  | cases | CLIP score | input similarity | flicker | second frame, dB |" in page
    assert "| base | 2 | not measured | not measured | 2.00 ± 12.71 | 20.00 (1 more exact) |" in page
    assert "| 2 references | 1 | not measured | not measured | 2.00 | 30.00 |" in page
    assert "hf download openai/clip-vit-large-patch14" in page and "whole frame in every case" in page
    assert "| duck | 5 | 48x32 | 100% | 2 |" in page and "![swan](x.png)" in page and READING_NOTES[0] in page
    assert "reproduced" not in page and "truth, dB" not in page


@pytest.mark.slow
def test_command_writes_page(manifest: Path) -> None:
    """Two cases run in two processes with the embedded model; a second call only reads the records."""
    output = manifest.parent / "out"
    arguments = ["study", "windows", "--cases", str(manifest), "--workers", "2", "--output", str(output)]
    arguments += [argument for text in QUICK for argument in ("--set", text)]
    outcome = CliRunner().invoke(app, arguments)
    assert (outcome.exit_code, outcome.stdout) == (0, f"{output / 'windows-cases.md'}\n"), outcome.stderr
    page = (output / "windows-cases.md").read_text("utf-8")
    assert all(f"| {row} |" in page for row in ("no edit", "first frame, frozen", "whole clip", "windows of 9", "one", "two"))
    assert (output / "windows-cases.csv").is_file() and (output / "windows-cases.png").is_file()
    record_file = output / "cases" / "windows_0_two.json"
    modified = record_file.stat().st_mtime_ns
    assert CliRunner().invoke(app, arguments).exit_code == 0 and record_file.stat().st_mtime_ns == modified
