"""The settings step without a browser: a model or preset applies its own values in any order of events."""

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
from lora_edit.ui.step_settings import (
    FILE_SETTINGS,
    PRESET_CHOICES,
    SettingsStep,
    check_public_settings,
    describe_model,
    list_model_choices,
)
from ui.rendered import write

NAMES = [each.name for each in list_models()]
SECTIONS = ("method", "training", "lora", "generation", "caption", "encodings")
"""Sections that no other step of the page changes."""


class Browser:
    """The step's fields as in a browser: events send their values, updates change them."""

    def __init__(self, folder: Path) -> None:
        source, edited = write(folder)
        self.app_state = AppState(ProjectStore(folder / "runs"))
        self.project = self.app_state.store.create_project()
        box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
        self.project.update_state(clip=self.project.import_file(source), marks=(box,), first_frame=self.project.import_file(edited))
        with gr.Blocks():
            self.step = SettingsStep(self.app_state)
        self.fields: dict[Any, Any] = {}
        self.apply_updates(self.step.show(self.project))

    def apply_updates(self, updates: dict[Any, Any]) -> None:
        self.fields |= {field: value for field, value in updates.items() if field in self.step.list_inputs()}

    def get_values(self) -> list[Any]:
        return [self.fields[field] for field in self.step.list_inputs()]

    def select(self, field: Any, value: str) -> None:
        """Select a value: two events arrive before a response and one after it, then the fields lose the focus."""
        self.fields[field] = value
        stale_values = self.get_values()
        responses = [self.step.apply_preset(self.project.id, *stale_values) for _ in range(2)]
        self.step.save_settings(self.project.id, *stale_values)
        for response in responses:
            self.apply_updates(response)
        self.apply_updates(self.step.apply_preset(self.project.id, *self.get_values()))
        self.step.save_settings(self.project.id, *self.get_values())


def read_run_settings(project: Project, run_folder: Path) -> EditSettings:
    """Create a run folder of the project and read its settings."""
    return make_run(run_folder, actions.build_settings(project, project.read_state())).read_settings()


@pytest.mark.parametrize("model_first", [True, False], ids=["model-first", "preset-first"])
def test_a_run_has_the_values_of_its_model_and_preset(tmp_path: Path, model_first: bool) -> None:
    browser = Browser(tmp_path)
    fields = [(browser.step.model, 0), (browser.step.preset, 1)]
    for model in NAMES:
        for _, preset in PRESET_CHOICES:
            for field, index in fields if model_first else fields[::-1]:
                browser.select(field, (model, preset)[index])
            settings = read_run_settings(browser.project, tmp_path / f"{model}-{preset}")
            expected = resolve_settings({"input": {"source": "", "first_frame": ""}, "model": model, "preset": preset})
            assert (settings.model, settings.preset) == (model, preset)
            assert {section: getattr(settings, section) for section in SECTIONS} == {
                section: getattr(expected, section) for section in SECTIONS
            }
            assert browser.project.read_state().assignments == ()


def test_a_typed_number_is_stored_until_the_preset_changes(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    field = browser.step.setting_fields[0]
    browser.fields[field] = 7
    browser.step.save_settings(browser.project.id, *browser.get_values())
    assert read_run_settings(browser.project, tmp_path / "typed").training.motion_steps == 7
    browser.select(browser.step.preset, "fast")
    assert read_run_settings(browser.project, tmp_path / "fast").training.motion_steps == 25


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, 2.5, "Training steps is a whole number"),
        (0, 1e9, "Training steps"),
        (2, 1e99, "Learning rate is a number"),
        (4, 0, "Sampling steps"),
    ],
)
def test_numbers_out_of_range_raise_with_the_label_of_their_field(tmp_path: Path, index: int, value: float, message: str) -> None:
    browser = Browser(tmp_path)
    browser.fields[browser.step.setting_fields[index]] = value
    with pytest.raises(InputError, match=message):
        browser.step.save_settings(browser.project.id, *browser.get_values())
    assert browser.project.read_state().assignments == ()


def test_unknown_models_and_long_texts_are_rejected(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    for field, value, message in (
        (browser.step.model, "nonsense<b>", "is unknown"),
        (browser.step.prompt, "a" * 400_000, "400000 characters"),
    ):
        before, browser.fields[field] = browser.fields[field], value
        with pytest.raises(InputError, match=message):
            browser.step.save_settings(browser.project.id, *browser.get_values())
        browser.fields[field] = before


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("rubbish", '"rubbish" is not a setting; write one per line, such as training.window=9'),
        ("rubbish=3", '"rubbish=3" is not a setting; docs/settings.md lists all of them'),
        ("training.motion_steps=many", "Training steps cannot be 'many'; it takes a valid integer"),
        ("training.motion_steps=2.5", "Training steps cannot be '2.5'; it takes a valid integer"),
        ("training.motion_steps=1000000000", "Training steps is a whole number from 0 to 100000, not 1e+09"),
        ("training.learning_rate=1e99", "Learning rate is a number from 1e-07 to 1, not 1e+99"),
        ("training.base=rubbish", "training.base cannot be 'rubbish'; it takes 'full', 'int8', 'fp8' or 'nf4'"),
        ("training.blocks_to_swap=some", "training.blocks_to_swap cannot be 'some'; it takes a valid integer or 'auto'"),
        ("model=nonsense", "model=nonsense: has a field of its own on the page; use that"),
    ],
)
def test_an_invalid_other_setting_raises_one_sentence_with_its_label(tmp_path: Path, typed: str, message: str) -> None:
    browser = Browser(tmp_path)
    browser.fields[browser.step.other_settings] = typed
    with pytest.raises(InputError) as error:
        browser.step.save_settings(browser.project.id, *browser.get_values())
    assert simplify_message(str(error.value)) == message
    assert browser.project.read_state().assignments == ()


def test_model_choices_show_memory_and_licence() -> None:
    choices = dict(list_model_choices())
    assert list(choices.values()) == NAMES
    for label, name in choices.items():
        facts, _ = locate_model(name)
        assert all(text in label for text in (name, facts.memory, facts.license))


@pytest.mark.parametrize("model", NAMES)
def test_a_model_is_described_with_its_missing_download(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    facts, _ = locate_model(model)
    description = describe_model(model)
    assert html.escape(facts.summary) in description and html.escape(facts.license) in description
    assert ("not on this computer" in description) == (facts.download_gb > 0)
    assert describe_model("nonsense") == ""


def test_a_choice_updates_no_field_that_a_person_may_be_using(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    step = browser.step
    updates = step.apply_preset(browser.project.id, *browser.get_values())
    assert not set(updates) & {step.preset, step.model, step.prompt, step.seed, step.other_settings}
    assert {step.basis, step.model_summary, *step.setting_fields} <= set(updates)


@pytest.mark.parametrize("model", ["/etc", "runs", ".", "os:path", "tiny@/etc", "someone/repository", "a.safetensors", "TINY", ""])
def test_visitors_of_a_public_page_choose_models_by_name_only(tmp_path: Path, model: str) -> None:
    with pytest.raises(InputError, match="takes only tiny"):
        check_public_settings(model, [])
    check_public_settings("tiny", ["training.motion_steps=5"])
    browser = Browser(tmp_path)
    browser.step.app_state = AppState(browser.app_state.store, is_public=True)
    browser.fields[browser.step.model] = model
    with pytest.raises(InputError):
        browser.step.save_settings(browser.project.id, *browser.get_values())


@pytest.mark.parametrize("setting", FILE_SETTINGS)
def test_visitors_of_a_public_page_name_no_files(setting: str) -> None:
    for text in (f"{setting}=/etc", f" {setting} = x", f"{setting}"):
        with pytest.raises(InputError, match="names files of the server"):
            check_public_settings("tiny", [text])


def test_every_setting_with_a_path_is_closed_to_visitors() -> None:
    """Settings whose type has a path or whose description names a file, folder or repository; `input` is never taken."""
    named = set()
    for section, field in EditSettings.model_fields.items():
        for name, setting in getattr(field.annotation, "model_fields", {}).items():
            text = f"{setting.annotation} {setting.description}"
            if section != "input" and any(word in text for word in ("Path", "LoraFile", "ExtraLora", " folder", "repository", "file =")):
                named.add(f"{section}.{name}")
    assert {each for each in named if not each.startswith(FILE_SETTINGS)} <= {"video.codec"}
    settings = {
        f"{section}.{name}"
        for section, field in EditSettings.model_fields.items()
        for name in getattr(field.annotation, "model_fields", {})
    }
    assert all(any(each.startswith(prefix) for each in settings) for prefix in FILE_SETTINGS)
