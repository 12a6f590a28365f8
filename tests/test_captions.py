"""Automatic prompts: which frame is captioned for which prompt, that captions are generated once, and which prompts the model gets."""

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
class NoteRecorder(SilentReporter):
    """A reporter that records notes."""

    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class Workspace:
    """A green clip, a red edited first frame, a blue edited frame 3, and a small model that reads prompts."""

    folder: Path
    captioner: Path
    prompts: list[str]
    """The prompts of the model in order, without repetitions."""
    model: str = ""

    def settings(self, *assignments: str, **given: Any) -> EditSettings:
        """Settings with the tiny captioner by default."""
        picture = {"source": str(self.folder / "source.mkv"), "first_frame": str(self.folder / "red.png")}
        picture |= {"boxes": [{"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}]}
        later = [{"frame": 3, "image": str(self.folder / "blue.png")}]
        tables = {"input": {**picture, "references": later}, "model": self.model, "caption": {"model": str(self.captioner)}, **given}
        return resolve_settings(tables, (*QUICK, *assignments))


@pytest.fixture
def workspace(tmp_path: Path, captioner: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    clip = plain_frame("green", HEIGHT, WIDTH).expand(5, HEIGHT, WIDTH, 3).contiguous()
    write_video(tmp_path / "source.mkv", Video(clip, Fraction(8), tuple(i / 8 for i in range(5))), "ffv1")
    for colour in ("red", "blue"):
        save_image(tmp_path / f"{colour}.png", plain_frame(colour, HEIGHT, WIDTH))
    facts = save_tiny(WANS["wan2.1-i2v-480p"], tmp_path / "model")
    monkeypatch.setattr(locate, "KNOWN_MODELS", (*KNOWN_MODELS[:1], facts))
    out = Workspace(tmp_path, captioner, [], f"{facts.name}@{tmp_path / 'model'}")
    encode = PromptEncoder.__call__

    def record_prompt(encoder: PromptEncoder, prompt: str) -> torch.Tensor:
        if not out.prompts or out.prompts[-1] != prompt:
            out.prompts.append(prompt)
        return encode(encoder, prompt)

    monkeypatch.setattr(PromptEncoder, "__call__", record_prompt)
    return out


def forbid_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on generating captions."""
    monkeypatch.setattr(captions, "caption_frames", lambda *_: pytest.fail("a frame was captioned"))


def test_each_frame_has_its_own_caption(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Motion uses the source's first frame, each later edited frame its own caption, generation the edited first frame (3.1)."""
    loaded: list[int] = []
    load, open_family = Florence2ForConditionalGeneration.from_pretrained, pipeline.open_family

    def spy(*given: Any, **named: Any) -> Any:
        loaded.append(len(workspace.prompts))
        return load(*given, **named)

    def opened(*given: Any) -> Any:
        loaded.append(-1)
        return open_family(*given)

    monkeypatch.setattr(Florence2ForConditionalGeneration, "from_pretrained", spy)
    monkeypatch.setattr(pipeline, "open_family", opened)
    reporter = NoteRecorder()
    result = pipeline.edit(workspace.settings(), workspace.folder / "out.mkv", workspace.folder / "run", reporter)
    assert workspace.prompts == [GREEN, BLUE, RED, "coat"]
    assert loaded == [0, -1], "the captioner is loaded once, before the model"
    run = Run(workspace.folder / "run")
    captions_by_name = {"source": "a green coat", "first_frame": "a red coat", "reference_3": "a blue coat"}
    assert run.read_manifest()["captions"] == captions_by_name and run.read_manifest()["captioner"] == str(workspace.captioner)
    assert sorted(json.loads((run.folder / "captions.json").read_text()).values()) == sorted(captions_by_name.values())
    assert any("a red coat" in note for note in reporter.notes) and any("a red coat" in note for note in result.notes)
    assert f"prompts: {GREEN} | edited: {RED}" in run.log_file.read_text()
    report = (run.folder / "report.html").read_text()
    assert all(text in report for text in (GREEN, RED, BLUE))
    metadata = read_header(run.lora_file()).metadata
    assert (metadata["prompt"], metadata["reference_3_prompt"]) == (GREEN, BLUE) and RED not in str(metadata)


def test_captions_are_generated_once_per_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another seed needs no captions; another first frame gets its own caption, and the LoRA stays."""
    pipeline.edit(workspace.settings(), workspace.folder / "out.mkv", workspace.folder / "run", SilentReporter())
    lora = Run(workspace.folder / "run").lora_file()
    before, workspace.prompts[:] = lora.read_bytes(), []
    described: list[int] = []
    describe = captions.caption_frames

    def spy(frames: Any, *given: Any) -> Any:
        described.append(len(frames))
        return describe(frames, *given)

    monkeypatch.setattr(captions, "caption_frames", spy)
    pipeline.generate(workspace.folder / "run", SilentReporter(), first_frame=workspace.folder / "blue.png")
    assert described == [], "the same image was captioned as frame 3"
    assert workspace.prompts == [BLUE, "coat"]
    picture = plain_frame("green", HEIGHT, WIDTH)
    picture[:2] = 0
    save_image(workspace.folder / "other.png", picture)
    workspace.prompts.clear()
    pipeline.generate(workspace.folder / "run", SilentReporter(), first_frame=workspace.folder / "other.png")
    assert described == [1] and workspace.prompts == [GREEN, "coat"]
    forbid_captions(monkeypatch)
    workspace.prompts.clear()
    pipeline.generate(workspace.folder / "run", SilentReporter(), seed=3)
    assert workspace.prompts == [RED, "coat"] and lora.read_bytes() == before


def test_prompt_replaces_all_captions(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training and generation. The trigger p* is a setting."""
    forbid_captions(monkeypatch)
    settings = workspace.settings(prompt="a red coat", trigger="green")
    pipeline.edit(settings, workspace.folder / "out.mkv", workspace.folder / "run", SilentReporter())
    assert workspace.prompts == ["green, a red coat", "coat"]
    assert not (workspace.folder / "run" / "captions.json").exists()
    assert build_prompt("source", workspace.settings(trigger=""), {"source": "a coat"}) == "a coat"


def test_captions_can_be_disabled(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is p* alone."""
    forbid_captions(monkeypatch)
    pipeline.edit(workspace.settings("caption.enabled=false"), workspace.folder / "out.mkv", workspace.folder / "run", SilentReporter())
    assert workspace.prompts == ["p3rs0n", "coat"]


def test_prompt_is_trigger_alone_without_captioner(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a note on how to download the captioner. The run keeps these prompts, as generation uses those of training."""
    reporter = NoteRecorder()
    settings = workspace.settings(caption={})
    pipeline.edit(settings, workspace.folder / "out.mkv", workspace.folder / "run", reporter)
    assert workspace.prompts == ["p3rs0n", "coat"]
    note = [text for text in reporter.notes if "p* alone" in text]
    assert len(note) == 1 and "hf download florence-community/Florence-2-large" in note[0] and "--prompt TEXT" in note[0]
    lora = Run(workspace.folder / "run").lora_file().read_bytes()
    monkeypatch.setattr(captions, "caption_frames", lambda frames, *_: ["now it is here"] * len(frames))
    workspace.prompts.clear()
    pipeline.generate(workspace.folder / "run", reporter, first_frame=workspace.folder / "blue.png")
    assert workspace.prompts == ["p3rs0n", "coat"] and Run(workspace.folder / "run").lora_file().read_bytes() == lora


def test_missing_custom_captioner_is_rejected(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written."""
    monkeypatch.setattr(pipeline, "open_family", lambda *_: pytest.fail("a model was loaded"))
    for model in ("no/such", str(workspace.folder)):
        with pytest.raises(ModelError, match=r"caption\.model"):
            pipeline.create_run(workspace.settings(caption={"model": model}), workspace.folder / "run")
    assert not (workspace.folder / "run").exists()
    pipeline.check(workspace.settings(prompt="mine", caption={"model": "no/such"}))


def test_embedded_model_needs_no_captions(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores prompts: there is no captioner, no note and no prompt in the report."""
    forbid_captions(monkeypatch)
    reporter = NoteRecorder()
    settings = workspace.settings(model="tiny", caption={"model": "no/such"})
    run = pipeline.create_run(settings, workspace.folder / "run")
    clip = add_captions(load_inputs(run), run, settings, reporter)
    assert clip.captions == {} and reporter.notes == [] and not (run.folder / "captions.json").exists()
    assert captions.build_prompt_rows(settings, clip) == []
    assert build_prompt("source", settings, clip.captions) == "p3rs0n"
    assert [facts.name for facts in KNOWN_MODELS if not facts.reads_prompts] == ["tiny"]


def test_training_key_includes_captions_of_training_frames(workspace: Workspace) -> None:
    """Those of the source and of each later edited frame, but not of the edited first frame, which may be replaced."""
    settings = workspace.settings()
    captions_by_name = {"source": "a green coat", "first_frame": "a red coat", "reference_3": "a blue coat"}
    clip = replace(pipeline.check(settings), captions=captions_by_name)
    facts = list_training_key_parts(settings, clip)
    for name, same in (("source", False), ("reference_3", False), ("first_frame", True)):
        assert (list_training_key_parts(settings, replace(clip, captions={**captions_by_name, name: "something else"})) == facts) == same, (
            name
        )
