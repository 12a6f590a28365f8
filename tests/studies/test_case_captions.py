"""Captions of cases without a prompt: once, before any model is loaded, for models that read prompts and for VACE."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit import captions
from lora_edit.errors import ModelError
from lora_edit.evaluation.manifest import read_cases
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.families.vace.loading import load_vace
from lora_edit.models.families.wan.encoders import PromptEncoder
from lora_edit.models.family import load_family
from lora_edit.reporting import SilentReporter
from lora_edit.studies import case_study, study
from lora_edit.studies.case_study import CaseJob, run_case_job, run_on_cases
from lora_edit.studies.case_trial import caption_cases
from lora_edit.studies.trial import Trial
from lora_edit.types import Video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from tiny_florence import plain_frame
from tiny_vace import save_tiny_vace
from tiny_wan import WANS, save_tiny

HEIGHT, WIDTH = 32, 48
QUICK = ("training.motion_steps=1", "training.appearance_steps=1", "training.recolour=0", "training.batch_size=1", "lora.rank=2",
         "generation.steps=1", "generation.guidance_scale=1.0")  # fmt: skip
EXPECTED_PROMPTS = "p3rs0n, a green coat", "p3rs0n, a blue coat", "p3rs0n, a red coat"


def run_rows(trial: Trial) -> Any:
    """Yield a row that trains on a later frame, then VACE."""
    yield trial.train_and_generate("edited", num_references=1)
    yield from trial.generate_with_vace()


STUDY = study.Study("one row", run_rows)


class StudyRunner:
    """Runs a study on a green clip with a red edited first frame and a blue later one, and records the prompts of model and VACE."""

    def __init__(self, folder: Path, captioner: Path) -> None:
        self.folder, self.output, self.prompts = folder, folder / "out", list[str]()
        self.base = (*QUICK, f"caption.model={captioner}")
        clip = plain_frame("green", HEIGHT, WIDTH).expand(5, HEIGHT, WIDTH, 3).contiguous()
        write_video(folder / "source.mkv", Video(clip, Fraction(8), tuple(i / 8 for i in range(5))), "ffv1")
        for colour in ("red", "blue"):
            save_image(folder / f"{colour}.png", plain_frame(colour, HEIGHT, WIDTH))
        self.facts = save_tiny(WANS["wan2.1-i2v-480p"], folder / "model")
        self.model = f"{self.facts.name}@{folder / 'model'}"

    def write_manifest(self, **extra: str) -> Path:
        line = {"id": "one", "source": "source.mkv", "first_frame": "red.png", "later": [{"frame": 3, "image": "blue.png"}], **extra}
        (self.folder / "cases.jsonl").write_text(json.dumps(line), "utf-8")
        return self.folder / "cases.jsonl"

    def run(self, model: str = "", seeds: int = 1, vace: str = "", base: tuple[str, ...] = (), **extra: str) -> list[dict[str, Any]]:
        """Run the study in this process and return its records."""
        self.prompts.clear()
        target = f"{__name__}:STUDY"
        run_on_cases(
            "one",
            target,
            self.output,
            self.write_manifest(**extra),
            seeds,
            SilentReporter(),
            model or self.model,
            1,
            (*self.base, *base),
            vace,
        )
        return [json.loads(file.read_text()) for file in sorted((self.output / "cases").glob("*.json"))]


@pytest.fixture
def runner(tmp_path: Path, captioner: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRunner:
    study_runner = StudyRunner(tmp_path, captioner)
    monkeypatch.setattr(locate, "KNOWN_MODELS", (*KNOWN_MODELS[:1], study_runner.facts))
    vace_facts = save_tiny_vace(tmp_path / "vace")
    cpu = torch.device("cpu")
    families: dict[str, Any] = {}

    def get_family(model: str) -> Any:
        return families.setdefault(model, load_family(model, cpu, torch.float32))

    def get_vace(source: str) -> Any:
        return families.setdefault(source, load_vace(vace_facts, source, cpu, torch.float32)) if source else None

    monkeypatch.setattr(case_study, "get_family", get_family)
    monkeypatch.setattr(case_study, "get_vace", get_vace)
    monkeypatch.setattr(case_study, "load_similarity_networks", lambda: None)
    monkeypatch.setattr(case_study, "run_jobs", lambda name, work, jobs, workers, reporter: [work(job) for job in jobs])
    encode = PromptEncoder.__call__

    def record_prompt(encoder: PromptEncoder, prompt: str) -> torch.Tensor:
        study_runner.prompts.append(prompt)
        return encode(encoder, prompt)

    monkeypatch.setattr(PromptEncoder, "__call__", record_prompt)
    return study_runner


def record_caption_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of pictures of every call of the captioner."""
    batch_sizes: list[int] = []
    caption_frames = captions.caption_frames

    def record_batch(frames: Any, *arguments: Any) -> Any:
        batch_sizes.append(len(frames))
        return caption_frames(frames, *arguments)

    monkeypatch.setattr(captions, "caption_frames", record_batch)
    return batch_sizes


def test_every_picture_has_its_own_prompt(runner: StudyRunner, captioner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of motion, appearance and generation; captioned once for all seeds and calls, stored in the folder of the study."""
    batch_sizes = record_caption_batches(monkeypatch)
    records = runner.run(seeds=2)
    assert batch_sizes == [3] and set(runner.prompts) == set(EXPECTED_PROMPTS)
    assert [runner.prompts.count(text) for text in EXPECTED_PROMPTS] == [2, 2, 2], "once per seed"
    expected = {"source": "a green coat", "first_frame": "a red coat", "reference_3": "a blue coat"}
    assert [record["captions"] for record in records] == [expected, expected]
    stored = json.loads((runner.output / f"captions-{captioner.name}.json").read_text())
    assert sorted(stored.values()) == sorted(expected.values())
    runner.run(seeds=2)
    assert batch_sizes == [3] and runner.prompts == [], "scores and captions are reused"
    (runner.output / f"captions-{captioner.name}.json").write_text(json.dumps(dict.fromkeys(stored, "a coat")))
    runner.run()
    assert batch_sizes == [3] and "p3rs0n, a coat" in runner.prompts, "other captions invalidate the scores"


@pytest.mark.parametrize("condition", ["a prompt", "switched off", "a model that reads none"])
def test_no_captions_when_none_are_needed(condition: str, runner: StudyRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_sizes = record_caption_batches(monkeypatch)
    if condition == "a prompt":
        assert runner.run(prompt="mine")[0]["captions"] == {} and set(runner.prompts) == {"p3rs0n, mine"}
    elif condition == "switched off":
        assert runner.run(base=("caption.enabled=false",))[0]["captions"] == {} and set(runner.prompts) == {"p3rs0n"}
    else:
        runner.output.mkdir()
        caption_cases(read_cases(runner.write_manifest()), runner.output, "tiny", runner.base, False, SilentReporter())
    assert batch_sizes == [] and not list(runner.output.glob("captions*"))


def test_vace_uses_captions_beside_model_without_prompts(runner: StudyRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """VACE uses the caption of the edited first frame, without p*."""
    batch_sizes = record_caption_batches(monkeypatch)
    monkeypatch.setattr(STUDY.run_rows, "__code__", run_vace_row.__code__)
    runner.run("tiny", vace=str(runner.folder / "vace"))
    assert batch_sizes == [3] and runner.prompts == ["a red coat"]


def run_vace_row(trial: Trial) -> Any:
    """Yield VACE alone."""
    yield from trial.generate_with_vace()


def test_study_without_captioner_stays_uncaptioned(runner: StudyRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are p* alone until the file is deleted; a missing captioner of the user raises before anything is written."""
    notes: list[str] = []
    monkeypatch.setattr(SilentReporter, "note", lambda self, text: notes.append(text))
    runner.base = QUICK
    runner.run()
    assert set(runner.prompts) == {"p3rs0n"}
    assert [text for text in notes if "p* alone" in text and "hf download florence-community/Florence-2-large" in text]
    monkeypatch.setattr(captions, "caption_frames", lambda frames, *_: ["a caption"] * len(frames))
    runner.run()
    assert runner.prompts == []
    next(runner.output.glob("captions*")).unlink()
    runner.run()
    assert set(runner.prompts) == {"p3rs0n, a caption"}
    runner.output = runner.folder / "other"
    with pytest.raises(ModelError, match=r"caption\.model"):
        runner.run(base=("caption.model=no/such",))
    assert not runner.output.exists()


def test_job_of_another_process_reads_captions(runner: StudyRunner) -> None:
    """Captions come from the file alone."""
    runner.run()
    case = read_cases(runner.write_manifest())[0]
    job = CaseJob("two", f"{__name__}:STUDY", case, 5, runner.model, runner.output, runner.base, 1)
    (runner.output / "cases").mkdir(exist_ok=True)
    assert run_case_job(job)["captions"]["first_frame"] == "a red coat"
