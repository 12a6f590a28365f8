"""Cases without a prompt get captions as edits do: once, before any model, for models that read prompts and for VACE beside others."""

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
ASKED = "p3rs0n, a green coat", "p3rs0n, a blue coat", "p3rs0n, a red coat"


def rows(trial: Trial) -> Any:
    """One that trains on a later frame, then VACE."""
    yield trial.train_and_generate("edited", num_references=1)
    yield from trial.generate_with_vace()


STUDY = study.Study("one row", rows)


class Place:
    """A green clip with a red edited first frame and a blue later one; a model that reads prompts; what it and VACE were asked."""

    def __init__(self, folder: Path, captioner: Path) -> None:
        self.folder, self.output, self.prompts = folder, folder / "out", list[str]()
        self.base = (*QUICK, f"caption.model={captioner}")
        clip = plain_frame("green", HEIGHT, WIDTH).expand(5, HEIGHT, WIDTH, 3).contiguous()
        write_video(folder / "source.mkv", Video(clip, Fraction(8), tuple(i / 8 for i in range(5))), "ffv1")
        for colour in ("red", "blue"):
            save_image(folder / f"{colour}.png", plain_frame(colour, HEIGHT, WIDTH))
        self.facts = save_tiny(WANS["wan2.1-i2v-480p"], folder / "model")
        self.model = f"{self.facts.name}@{folder / 'model'}"

    def manifest(self, **more: str) -> Path:
        line = {"id": "one", "source": "source.mkv", "first_frame": "red.png", "later": [{"frame": 3, "image": "blue.png"}], **more}
        (self.folder / "cases.jsonl").write_text(json.dumps(line), "utf-8")
        return self.folder / "cases.jsonl"

    def run(self, model: str = "", seeds: int = 1, vace: str = "", base: tuple[str, ...] = (), **more: str) -> list[dict[str, Any]]:
        """The study in this process; its records."""
        self.prompts.clear()
        target = f"{__name__}:STUDY"
        run_on_cases(
            "one", target, self.output, self.manifest(**more), seeds, SilentReporter(), model or self.model, 1, (*self.base, *base), vace
        )
        return [json.loads(file.read_text()) for file in sorted((self.output / "cases").glob("*.json"))]


@pytest.fixture
def place(tmp_path: Path, captioner: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    out = Place(tmp_path, captioner)
    monkeypatch.setattr(locate, "KNOWN_MODELS", (*KNOWN_MODELS[:1], out.facts))
    vace_facts = save_tiny_vace(tmp_path / "vace")
    cpu = torch.device("cpu")
    families: dict[str, Any] = {}

    def loaded(model: str) -> Any:
        return families.setdefault(model, load_family(model, cpu, torch.float32))

    def loaded_vace(source: str) -> Any:
        return families.setdefault(source, load_vace(vace_facts, source, cpu, torch.float32)) if source else None

    monkeypatch.setattr(case_study, "get_family", loaded)
    monkeypatch.setattr(case_study, "get_vace", loaded_vace)
    monkeypatch.setattr(case_study, "load_similarity_networks", lambda: None)
    monkeypatch.setattr(case_study, "run_jobs", lambda name, work, jobs, workers, reporter: [work(job) for job in jobs])
    encode = PromptEncoder.__call__

    def asked(encoder: PromptEncoder, prompt: str) -> torch.Tensor:
        out.prompts.append(prompt)
        return encode(encoder, prompt)

    monkeypatch.setattr(PromptEncoder, "__call__", asked)
    return out


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were described at a time."""
    described: list[int] = []
    describe = captions.caption_frames

    def spy(frames: Any, *given: Any) -> Any:
        described.append(len(frames))
        return describe(frames, *given)

    monkeypatch.setattr(captions, "caption_frames", spy)
    return described


def test_every_picture_is_asked_for_in_its_own_words(place: Place, captioner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Motion, appearance, generation; described once for all seeds and all calls, kept in the study's folder."""
    described = spied(monkeypatch)
    records = place.run(seeds=2)
    assert described == [3] and set(place.prompts) == set(ASKED)
    assert [place.prompts.count(text) for text in ASKED] == [2, 2, 2], "both seeds, each in turn"
    said = {"source": "a green coat", "first_frame": "a red coat", "reference_3": "a blue coat"}
    assert [record["captions"] for record in records] == [said, said]
    kept = json.loads((place.output / f"captions-{captioner.name}.json").read_text())
    assert sorted(kept.values()) == sorted(said.values())
    place.run(seeds=2)
    assert described == [3] and place.prompts == [], "scores and captions were kept"
    (place.output / f"captions-{captioner.name}.json").write_text(json.dumps(dict.fromkeys(kept, "a coat")))
    place.run()
    assert described == [3] and "p3rs0n, a coat" in place.prompts, "scores with other captions are others"


@pytest.mark.parametrize("how", ["a prompt", "switched off", "a model that reads none"])
def test_where_nobody_asks_nobody_describes(how: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    described = spied(monkeypatch)
    if how == "a prompt":
        assert place.run(prompt="mine")[0]["captions"] == {} and set(place.prompts) == {"p3rs0n, mine"}
    elif how == "switched off":
        assert place.run(base=("caption.enabled=false",))[0]["captions"] == {} and set(place.prompts) == {"p3rs0n"}
    else:
        place.output.mkdir()
        caption_cases(read_cases(place.manifest()), place.output, "tiny", place.base, False, SilentReporter())
    assert described == [] and not list(place.output.glob("captions*"))


def test_vace_reads_them_beside_a_model_that_does_not(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The edited first frame's, without p*."""
    described = spied(monkeypatch)
    monkeypatch.setattr(STUDY.run_rows, "__code__", rows_of_vace.__code__)
    place.run("tiny", vace=str(place.folder / "vace"))
    assert described == [3] and place.prompts == ["a red coat"]


def rows_of_vace(trial: Trial) -> Any:
    """VACE alone."""
    yield from trial.generate_with_vace()


def test_a_study_without_the_captioner_says_so_and_stays_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """p* alone, until the file is deleted; a captioner of one's own has to be there before anything is written."""
    notes: list[str] = []
    monkeypatch.setattr(SilentReporter, "note", lambda self, text: notes.append(text))
    place.base = QUICK
    place.run()
    assert set(place.prompts) == {"p3rs0n"}
    assert [text for text in notes if "p* alone" in text and "hf download florence-community/Florence-2-large" in text]
    monkeypatch.setattr(captions, "caption_frames", lambda frames, *_: ["here now"] * len(frames))
    place.run()
    assert place.prompts == []
    next(place.output.glob("captions*")).unlink()
    place.run()
    assert set(place.prompts) == {"p3rs0n, here now"}
    place.output = place.folder / "other"
    with pytest.raises(ModelError, match=r"caption\.model"):
        place.run(base=("caption.model=no/such",))
    assert not place.output.exists()


def test_a_job_of_another_process_finds_them(place: Place) -> None:
    """By the files alone."""
    place.run()
    case = read_cases(place.manifest())[0]
    again = CaseJob("two", f"{__name__}:STUDY", case, 5, place.model, place.output, place.base, 1)
    (place.output / "cases").mkdir(exist_ok=True)
    assert run_case_job(again)["captions"]["first_frame"] == "a red coat"
