"""Prompts that write themselves: which frame is described for what, once, and what is asked of the model with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Florence2ForConditionalGeneration

from lora_edit import captions, pipeline
from lora_edit.captions import add_captions, build_prompt
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.errors import ModelError
from lora_edit.inputs import load_inputs
from lora_edit.loras.header import read_header
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.families.wan.encoders import PromptEncoder
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.training.dataset import list_training_key_parts
from lora_edit.types import Video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from tiny_florence import plain_frame
from tiny_wan import WANS, save_tiny

QUICK = ("training.motion_steps=1", "training.appearance_steps=1", "training.batch_size=1", "lora.rank=2", "generation.steps=1",
         "generation.negative_prompt=coat", "video.codec=ffv1")  # fmt: skip
HEIGHT, WIDTH = 40, 56
GREEN, RED, BLUE = (f"p3rs0n, a {colour} coat" for colour in ("green", "red", "blue"))


@dataclass
class Heard(SilentReporter):
    """A reporter that remembers."""

    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class Place:
    """A green clip, a red edited first frame, a blue edited frame 3, and a small model that reads prompts."""

    folder: Path
    captioner: Path
    prompts: list[str]
    """What the model was asked with, in order, each once per load."""
    model: str = ""

    def settings(self, *assignments: str, **given: Any) -> EditSettings:
        """Captions by the tiny captioner unless assigned otherwise."""
        picture = {"source": str(self.folder / "source.mkv"), "first_frame": str(self.folder / "red.png")}
        picture |= {"boxes": [{"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}]}
        later = [{"frame": 3, "image": str(self.folder / "blue.png")}]
        tables = {"input": {**picture, "references": later}, "model": self.model, "caption": {"model": str(self.captioner)}, **given}
        return resolve_settings(tables, (*QUICK, *assignments))


@pytest.fixture
def place(tmp_path: Path, captioner: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    clip = plain_frame("green", HEIGHT, WIDTH).expand(5, HEIGHT, WIDTH, 3).contiguous()
    write_video(tmp_path / "source.mkv", Video(clip, Fraction(8), tuple(i / 8 for i in range(5))), "ffv1")
    for colour in ("red", "blue"):
        save_image(tmp_path / f"{colour}.png", plain_frame(colour, HEIGHT, WIDTH))
    facts = save_tiny(WANS["wan2.1-i2v-480p"], tmp_path / "model")
    monkeypatch.setattr(locate, "KNOWN_MODELS", (*KNOWN_MODELS[:1], facts))
    out = Place(tmp_path, captioner, [], f"{facts.name}@{tmp_path / 'model'}")
    encode = PromptEncoder.__call__

    def asked(encoder: PromptEncoder, prompt: str) -> torch.Tensor:
        if not out.prompts or out.prompts[-1] != prompt:
            out.prompts.append(prompt)
        return encode(encoder, prompt)

    monkeypatch.setattr(PromptEncoder, "__call__", asked)
    return out


def no_captioner(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, describing anything is a fault."""
    monkeypatch.setattr(captions, "caption_frames", lambda *_: pytest.fail("a frame was described"))


def test_every_frame_is_asked_for_in_its_own_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Motion with the source's first frame, each edited later frame with its own, generation with the edited first frame (3.1)."""
    loaded: list[int] = []
    load, open_family = Florence2ForConditionalGeneration.from_pretrained, pipeline.open_family

    def spy(*given: Any, **named: Any) -> Any:
        loaded.append(len(place.prompts))
        return load(*given, **named)

    def opened(*given: Any) -> Any:
        loaded.append(-1)
        return open_family(*given)

    monkeypatch.setattr(Florence2ForConditionalGeneration, "from_pretrained", spy)
    monkeypatch.setattr(pipeline, "open_family", opened)
    heard = Heard()
    result = pipeline.edit(place.settings(), place.folder / "out.mkv", place.folder / "run", heard)
    assert place.prompts == [GREEN, BLUE, RED, "coat"]
    assert loaded == [0, -1], "one captioner for all frames, before the model"
    run = Run(place.folder / "run")
    said = {"source": "a green coat", "first_frame": "a red coat", "reference_3": "a blue coat"}
    assert run.read_manifest()["captions"] == said and run.read_manifest()["captioner"] == str(place.captioner)
    assert sorted(json.loads((run.folder / "captions.json").read_text()).values()) == sorted(said.values())
    assert any("a red coat" in note for note in heard.notes) and any("a red coat" in note for note in result.notes)
    assert f"prompts: {GREEN} | edited: {RED}" in run.log_file.read_text()
    report = (run.folder / "report.html").read_text()
    assert all(text in report for text in (GREEN, RED, BLUE))
    metadata = read_header(run.lora_file()).metadata
    assert (metadata["prompt"], metadata["reference_3_prompt"]) == (GREEN, BLUE) and RED not in str(metadata)


def test_a_run_is_described_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed asks nobody; another first frame gets a caption of its own, and the LoRA stays."""
    pipeline.edit(place.settings(), place.folder / "out.mkv", place.folder / "run", SilentReporter())
    lora = Run(place.folder / "run").lora_file()
    before, place.prompts[:] = lora.read_bytes(), []
    described: list[int] = []
    describe = captions.caption_frames

    def spy(frames: Any, *given: Any) -> Any:
        described.append(len(frames))
        return describe(frames, *given)

    monkeypatch.setattr(captions, "caption_frames", spy)
    pipeline.generate(place.folder / "run", SilentReporter(), first_frame=place.folder / "blue.png")
    assert described == [], "the same picture was described as frame 3"
    assert place.prompts == [BLUE, "coat"]
    picture = plain_frame("green", HEIGHT, WIDTH)
    picture[:2] = 0
    save_image(place.folder / "other.png", picture)
    place.prompts.clear()
    pipeline.generate(place.folder / "run", SilentReporter(), first_frame=place.folder / "other.png")
    assert described == [1] and place.prompts == [GREEN, "coat"]
    no_captioner(monkeypatch)
    place.prompts.clear()
    pipeline.generate(place.folder / "run", SilentReporter(), seed=3)
    assert place.prompts == [RED, "coat"] and lora.read_bytes() == before


def test_a_prompt_of_ones_own_takes_the_place_of_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training and generation; and p* is a person's to choose."""
    no_captioner(monkeypatch)
    settings = place.settings(prompt="a red coat", trigger="green")
    pipeline.edit(settings, place.folder / "out.mkv", place.folder / "run", SilentReporter())
    assert place.prompts == ["green, a red coat", "coat"]
    assert not (place.folder / "run" / "captions.json").exists()
    assert build_prompt("source", place.settings(trigger=""), {"source": "a coat"}) == "a coat"


def test_captions_can_be_switched_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is then p*."""
    no_captioner(monkeypatch)
    pipeline.edit(place.settings("caption.enabled=false"), place.folder / "out.mkv", place.folder / "run", SilentReporter())
    assert place.prompts == ["p3rs0n", "coat"]


def test_without_the_captioner_the_prompt_is_p_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a note that says how to get it. A run that began so stays so: it is asked as it was trained."""
    heard = Heard()
    settings = place.settings(caption={})
    pipeline.edit(settings, place.folder / "out.mkv", place.folder / "run", heard)
    assert place.prompts == ["p3rs0n", "coat"]
    note = [text for text in heard.notes if "p* alone" in text]
    assert len(note) == 1 and "hf download florence-community/Florence-2-large" in note[0] and "--prompt TEXT" in note[0]
    lora = Run(place.folder / "run").lora_file().read_bytes()
    monkeypatch.setattr(captions, "caption_frames", lambda frames, *_: ["now it is here"] * len(frames))
    place.prompts.clear()
    pipeline.generate(place.folder / "run", heard, first_frame=place.folder / "blue.png")
    assert place.prompts == ["p3rs0n", "coat"] and Run(place.folder / "run").lora_file().read_bytes() == lora


def test_a_captioner_of_ones_own_has_to_be_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out before anything is written."""
    monkeypatch.setattr(pipeline, "open_family", lambda *_: pytest.fail("a model was loaded"))
    for model in ("no/such", str(place.folder)):
        with pytest.raises(ModelError, match=r"caption\.model"):
            pipeline.create_run(place.settings(caption={"model": model}), place.folder / "run")
    assert not (place.folder / "run").exists()
    pipeline.check(place.settings(prompt="mine", caption={"model": "no/such"}))


def test_the_embedded_model_never_asks_for_captions(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores prompts: no captioner, no note, no prompt in the report; so does a model without a text encoder."""
    no_captioner(monkeypatch)
    heard = Heard()
    settings = place.settings(model="tiny", caption={"model": "no/such"})
    run = pipeline.create_run(settings, place.folder / "run")
    clip = add_captions(load_inputs(run), run, settings, heard)
    assert clip.captions == {} and heard.notes == [] and not (run.folder / "captions.json").exists()
    assert captions.build_prompt_rows(settings, clip) == []
    assert build_prompt("source", settings, clip.captions) == "p3rs0n"
    assert [facts.name for facts in KNOWN_MODELS if not facts.reads_prompts] == ["tiny"]


def test_captions_of_what_is_trained_on_are_part_of_the_training_key(place: Place) -> None:
    """Those of the source and of each later frame; not that of the edited first frame, of which there may be many."""
    settings = place.settings()
    said = {"source": "a green coat", "first_frame": "a red coat", "reference_3": "a blue coat"}
    clip = replace(pipeline.check(settings), captions=said)
    facts = list_training_key_parts(settings, clip)
    for name, same in (("source", False), ("reference_3", False), ("first_frame", True)):
        assert (list_training_key_parts(settings, replace(clip, captions={**said, name: "something else"})) == facts) == same, name
