"""The settings step without a browser: a chosen model or preset brings its own numbers, whatever events come in which order."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

import gradio as gr

from lora_edit.config import EditSettings, resolve_settings
from lora_edit.errors import InputError
from lora_edit.models.checkpoints.locate import list_models, locate_model
from lora_edit.run import make_run
from lora_edit.ui import actions
from lora_edit.ui.components import AppState, simplify_message
from lora_edit.ui.projects import Mark, Project, ProjectStore
from lora_edit.ui.step_settings import PRESET_CHOICES, SettingsStep, describe_model, list_model_choices
from ui.rendered import write

NAMES = [each.name for each in list_models()]
NUMBERS = ("method", "training", "lora", "generation", "caption", "encodings")
"""What no other step of the page decides."""


class Browser:
    """The step's fields as a browser holds them: events send what stands in them, answers change them."""

    def __init__(self, folder: Path) -> None:
        source, edited = write(folder)
        self.office = AppState(ProjectStore(folder / "runs"))
        self.project = self.office.store.create_project()
        box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
        self.project.update_state(clip=self.project.import_file(source), marks=(box,), first_frame=self.project.import_file(edited))
        with gr.Blocks():
            self.step = SettingsStep(self.office)
        self.fields: dict[Any, Any] = {}
        self.takes(self.step.show(self.project))

    def takes(self, answer: dict[Any, Any]) -> None:
        self.fields |= {field: value for field, value in answer.items() if field in self.step.list_inputs()}

    def sends(self) -> list[Any]:
        return [self.fields[field] for field in self.step.list_inputs()]

    def chooses(self, field: Any, value: str) -> None:
        """Choose; the event comes twice before an answer does, and once more after it, and the fields are left."""
        self.fields[field] = value
        sent = self.sends()
        answers = [self.step.apply_preset(self.project.id, *sent) for _ in range(2)]
        self.step.save_settings(self.project.id, *sent)
        for answer in answers:
            self.takes(answer)
        self.takes(self.step.apply_preset(self.project.id, *self.sends()))
        self.step.save_settings(self.project.id, *self.sends())


def run_settings(folder: Project, place: Path) -> EditSettings:
    """The settings that a run folder of the project holds."""
    return make_run(place, actions.build_settings(folder, folder.read_state())).read_settings()


@pytest.mark.parametrize("model_first", [True, False], ids=["model-first", "preset-first"])
def test_a_run_holds_what_the_chosen_model_and_preset_say(tmp_path: Path, model_first: bool) -> None:
    browser = Browser(tmp_path)
    steps = [(browser.step.model, 0), (browser.step.preset, 1)]
    for model in NAMES:
        for _, preset in PRESET_CHOICES:
            for field, place in steps if model_first else steps[::-1]:
                browser.chooses(field, (model, preset)[place])
            held = run_settings(browser.project, tmp_path / f"{model}-{preset}")
            own = resolve_settings({"input": {"source": "", "first_frame": ""}, "model": model, "preset": preset})
            assert (held.model, held.preset) == (model, preset)
            assert {room: getattr(held, room) for room in NUMBERS} == {room: getattr(own, room) for room in NUMBERS}
            assert browser.project.read_state().assignments == ()


def test_a_number_that_was_typed_is_kept_and_goes_with_its_preset(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    steps = browser.step.setting_fields[0]
    browser.fields[steps] = 7
    browser.step.save_settings(browser.project.id, *browser.sends())
    assert run_settings(browser.project, tmp_path / "typed").training.motion_steps == 7
    browser.chooses(browser.step.preset, "fast")
    assert run_settings(browser.project, tmp_path / "fast").training.motion_steps == 25


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, 2.5, "Training steps is a whole number"),
        (0, 1e9, "Training steps"),
        (2, 1e99, "Learning rate is a number"),
        (4, 0, "Sampling steps"),
    ],
)
def test_numbers_that_make_no_sense_are_told_by_their_fields_name(tmp_path: Path, place: int, value: float, words: str) -> None:
    browser = Browser(tmp_path)
    browser.fields[browser.step.setting_fields[place]] = value
    with pytest.raises(InputError, match=words):
        browser.step.save_settings(browser.project.id, *browser.sends())
    assert browser.project.read_state().assignments == ()


def test_a_model_that_is_unknown_and_text_without_end_are_refused(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    for field, value, words in (
        (browser.step.model, "nonsense<b>", "is unknown"),
        (browser.step.prompt, "a" * 400_000, "400000 characters"),
    ):
        before, browser.fields[field] = browser.fields[field], value
        with pytest.raises(InputError, match=words):
            browser.step.save_settings(browser.project.id, *browser.sends())
        browser.fields[field] = before


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("rubbish", '"rubbish" is no setting; write one to a line, such as training.window=9'),
        ("rubbish=3", '"rubbish=3" is no setting; docs/settings.md lists them all'),
        ("training.motion_steps=many", "Training steps cannot be 'many'; it takes a valid integer"),
        ("training.motion_steps=2.5", "Training steps cannot be '2.5'; it takes a valid integer"),
        ("training.motion_steps=1000000000", "Training steps is a whole number from 0 to 100000, not 1e+09"),
        ("training.learning_rate=1e99", "Learning rate is a number from 1e-07 to 1, not 1e+99"),
        ("training.base=rubbish", "training.base cannot be 'rubbish'; it takes 'full', 'int8', 'fp8' or 'nf4'"),
        ("training.blocks_to_swap=some", "training.blocks_to_swap cannot be 'some'; it takes a valid integer or 'auto'"),
        ("model=nonsense", "model=nonsense: has a field of its own on the page; use that"),
    ],
)
def test_a_wrong_other_setting_is_told_in_one_sentence_by_its_fields_name(tmp_path: Path, typed: str, words: str) -> None:
    browser = Browser(tmp_path)
    browser.fields[browser.step.other_settings] = typed
    with pytest.raises(InputError) as fault:
        browser.step.save_settings(browser.project.id, *browser.sends())
    assert simplify_message(str(fault.value)) == words
    assert browser.project.read_state().assignments == ()


def test_models_are_chosen_by_what_they_need_and_may_be_used_for() -> None:
    cards = dict(list_model_choices())
    assert list(cards.values()) == NAMES
    for card, name in cards.items():
        facts, _ = locate_model(name)
        assert all(words in card for words in (name, facts.memory, facts.license))


@pytest.mark.parametrize("model", NAMES)
def test_a_model_says_what_it_is_and_what_is_missing(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    facts, _ = locate_model(model)
    said = describe_model(model)
    assert html.escape(facts.summary) in said and html.escape(facts.license) in said
    assert ("not on this computer" in said) == (facts.download_gb > 0)
    assert describe_model("nonsense") == ""
