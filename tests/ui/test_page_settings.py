"""The settings step in a browser: selected values are stored."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install 'lora-edit[dev]'")

from playwright.sync_api import expect

from lora_edit.config import resolve_settings
from lora_edit.models.checkpoints.locate import list_models
from lora_edit.ui import actions
from lora_edit.ui.projects import Mark, ProjectStore
from lora_edit.ui.step_region import RegionStep
from lora_edit.ui.step_settings import PRESET_CHOICES, SettingsStep
from ui.person import Person
from ui.rendered import write

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


@pytest.mark.parametrize("model_first", [True, False], ids=["model-first", "preset-first"])
def test_a_model_applies_its_own_values(visit: Visit, projects: Path, folder: Path, model_first: bool) -> None:
    source, edited = write(folder, seed=20)
    project = ProjectStore(projects).create_project()
    box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
    project.update_state(clip=project.import_file(source), marks=(box,), first_frame=project.import_file(edited))
    person = Person(visit(f"?project={project.id}"))
    for number, model in enumerate([each.name for each in list_models()][::-3]):
        label, preset = PRESET_CHOICES[number % len(PRESET_CHOICES)]
        choices = [lambda model=model: select_model(person, model), lambda label=label: person.page.get_by_label(label).click()]
        for select in choices if model_first else choices[::-1]:
            select()
        person.goes_on("settings-next", "run-start")
        settings = actions.build_settings(project, project.read_state())
        assert (settings.model, settings.preset, project.read_state().assignments) == (model, preset, ())
        expected = resolve_settings({"input": {"source": "", "first_frame": ""}, "model": model, "preset": preset})
        assert (settings.training, settings.lora, settings.generation) == (expected.training, expected.lora, expected.generation)
        person.page.get_by_role("tab", name="Settings").click()
        person.page.wait_for_selector("#settings-model", state="visible")


def select_model(person: Person, model: str) -> None:
    """Select a model from the list."""
    person.page.locator("#settings-model input").click()
    person.page.get_by_role("option", name=f"{model} · ").click()


def test_the_last_of_two_quick_choices_is_stored(visit: Visit, projects: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second choice is made while the server processes the first one."""
    are_chosen, save_settings, update_shape = threading.Event(), SettingsStep.save_settings, RegionStep.update_shape

    def slow_save_settings(*args: Any) -> Any:
        assert are_chosen.wait(300)
        return save_settings(*args)

    def slow_update_shape(*args: Any) -> Any:
        assert are_chosen.wait(300)
        return update_shape(*args)

    monkeypatch.setattr(SettingsStep, "save_settings", slow_save_settings)
    monkeypatch.setattr(RegionStep, "update_shape", slow_update_shape)
    source, edited = write(folder, seed=21)
    project = ProjectStore(projects).create_project()
    box = Mark(kind="box", frame=0, x=12, y=19, width=52, height=58)
    project.update_state(clip=project.import_file(source), marks=(box,), first_frame=project.import_file(edited))
    person = Person(visit(f"?project={project.id}"))
    person.settles()
    for step, first, last in (("Settings", "Fast", "Low memory"), ("Region", "Close to the outline", "Rough blocks")):
        are_chosen.clear()
        person.page.get_by_role("tab", name=step).click()
        with person.page.expect_response("**/queue/join*"):
            person.page.get_by_label(first).click()
        person.page.get_by_label(last).click()
        are_chosen.set()
        person.settles()
        expect(person.page.get_by_label(last)).to_be_checked()
    assert (project.read_state().preset, project.read_state().shape) == ("low-vram", "noisy")
