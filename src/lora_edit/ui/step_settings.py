"""Step 4: presets in front, everything else folded away; what it will cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.config import resolve
from lora_edit.errors import ModelError, SettingsError
from lora_edit.estimate import Estimate
from lora_edit.models.catalog.hub import snapshots
from lora_edit.models.catalog.locate import all_models, locate
from lora_edit.reporting import format_bytes, format_seconds
from lora_edit.ui import work
from lora_edit.ui.labels import KNOBS, setting_fault
from lora_edit.ui.parts import Office, Updates, decimal_in, heading, message, number_in, said
from lora_edit.ui.projects import Folder, Project

PRESETS = [("Standard", "standard"), ("Fast: about half the time", "fast"), ("Low memory: short windows", "low-vram")]

LONGEST_TEXT = 4000
"""Characters of a prompt, and of the other settings."""


class SettingsStep:
    """Choose a model and a preset; see the estimate."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.basis = gr.Textbox("", visible=False)
        """The model and preset whose numbers the fields show, kept in the browser with them: fields are sent before an answer has come."""
        heading("Settings", "The presets are measured. Change nothing if in doubt.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.preset = gr.Radio(PRESETS, value="standard", label="Preset", elem_id="settings-preset")
                self.prompt = gr.Textbox(
                    "", label="What the edited clip shows", info="The embedded model ignores text", elem_id="settings-prompt"
                )
                with gr.Accordion("More settings", open=False, elem_id="settings-more"):
                    self._more()
                self.fault = message()
            with gr.Column(scale=2):
                self.model = gr.Dropdown(
                    model_cards(),
                    value="tiny",
                    label="Model",
                    info="The folder, file or Hub name of another one can be typed",
                    allow_custom_value=True,
                    elem_id="settings-model",
                )
                self.about = gr.HTML("", elem_classes="facts", elem_id="settings-about")
                self.estimate = gr.Button("Estimate time and memory", elem_id="settings-estimate")
                self.needs = gr.HTML("", elem_classes="facts", elem_id="settings-needs")
                self.next = gr.Button("Continue", variant="primary", elem_id="settings-next")

    def _more(self) -> None:
        self.knobs = []
        for pair in (list(KNOBS.items())[place : place + 2] for place in range(0, len(KNOBS), 2)):
            with gr.Row():
                self.knobs += [
                    gr.Number(None, label=label, info=info, elem_id=f"knob-{name.replace('.', '-')}") for name, (label, info, *_) in pair
                ]
        self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="settings-seed")
        self.others = gr.Textbox(
            "", label="Any other setting", info="module.setting=value, one to a line", lines=3, elem_id="settings-others"
        )

    def inputs(self) -> list[Any]:
        """What `changed` reads."""
        return [self.basis, self.preset, self.prompt, self.model, self.seed, self.others, *self.knobs]

    def outputs(self) -> list[Any]:
        """What `show` may change."""
        return [*self.inputs(), self.about, self.needs]

    def show(self, folder: Folder) -> Updates:
        """The step as the project is; fields show what the preset says."""
        project = folder.now()
        given = [text for text in project.assignments if text.partition("=")[0] not in KNOBS]
        resolved = _settings(project)
        values = [getattr(getattr(resolved, room), key) for room, key in (name.split(".") for name in KNOBS)]
        plain = (_basis(project.model, project.preset), project.preset, project.prompt, project.model, project.seed, "\n".join(given))
        fields = dict(zip(self.inputs(), (*plain, *values), strict=True))
        return {**fields, self.about: about_model(project.model), **self.estimated(folder)}

    def revisited(self, folder: Folder) -> Updates:
        """The step when it is come to again."""
        return self.estimated(folder)

    def changed(self, name: str, basis: str, preset: str, prompt: str, model: str, seed: float, others: str, *values: float) -> Updates:
        """Keep the settings when they make sense together. Numbers that are the preset's are not kept, nor those of another preset."""
        folder = self.office.open(name)
        plain = {"preset": preset, "prompt": prompt.strip(), "model": model, "seed": number_in(seed, 0, 2**62, "the seed")}
        check_length(prompt=prompt, other=others)
        lines = [line.strip() for line in others.splitlines() if line.strip()]
        if basis == _basis(model, preset):
            lines += _departures(folder.now().having(**plain, assignments=()), values)
        locate(model)
        following = folder.now().having(**plain, assignments=tuple(lines))
        _check_ranges(_settings(following))
        folder.change(**plain, assignments=following.assignments)
        return self.estimated(folder)  # fields are left alone: the next one may be typed in already

    def chosen(self, name: str, *values: Any) -> Updates:
        """Another preset or model; fields show what it says."""
        return {**self.changed(name, *values), **self.show(self.office.open(name))}

    def estimate_started(self, name: str) -> Updates:
        """Measure one step."""
        folder = self.office.open(name)
        work.start_estimate(self.office.device, folder)
        return self.estimated(folder)

    def estimated(self, folder: Folder) -> Updates:
        """The estimate, once it is made."""
        job = self.office.device.newest(folder.id)
        if job is None or job.kind != "estimate" or job.about != folder.now():
            return {self.needs: ""}
        if not isinstance(job.result, Estimate):
            return {self.needs: said(job.fault, "fault") if job.over else said("Measuring one step…")}
        found = job.result
        words = [
            f"about {format_seconds(found.seconds_train)} to train, {format_seconds(found.seconds_generate)} to generate",
            f"about {format_bytes(found.memory_bytes)} of memory",
            f"the model works at {found.canvas}, in {found.windows} window{'s' if found.windows > 1 else ''}",
        ]
        return {self.needs: said([*words, *job.notes])}


def _basis(model: str, preset: str) -> str:
    return f"{preset} {model}"


def model_cards() -> list[tuple[str, str]]:
    """Each model with the memory that it needs and its licence, and its name."""
    return [(f"{each.name} · {each.memory} · {each.license}", each.name) for each in all_models()]


def about_model(model: str) -> str:
    """What a model is, what it needs, and what of it is not here yet; nothing for one that is not found (any more)."""
    try:
        facts, source = locate(model)
    except ModelError:
        return ""
    words = [facts.summary, f"licence {facts.license}", facts.memory]
    missing = bool(facts.download_gb) and not Path(source).exists() and not snapshots(source)
    return said(words) + said(
        f"Its files are not on this computer: about {facts.download_gb:g} GB of {source}" if missing else "", "warning"
    )


def _settings(project: Project) -> Any:
    """The settings that need no clip. Raises `SettingsError`."""
    for text in project.assignments:
        if text.partition("=")[0].partition(".")[0].strip() in ("input", "preset", "model", "seed"):
            raise SettingsError(f"{text}: has a field of its own on the page; use that")
    tables = {"input": {"source": "", "first_frame": ""}, "model": project.model, "preset": project.preset, "seed": project.seed}
    try:
        return resolve(tables, project.assignments)
    except SettingsError as error:
        raise setting_fault(error, project.assignments) from error


def _check_ranges(resolved: Any) -> None:
    """Raise `InputError` for a number with a field of its own that makes no sense, wherever it was typed."""
    for name, (label, _, low, high) in KNOBS.items():
        room, key = name.split(".")
        value = getattr(getattr(resolved, room), key)
        _ = number_in(value, low, int(high), label) if isinstance(low, int) else decimal_in(value, low, high, label)


def _departures(project: Project, values: tuple[float, ...]) -> list[str]:
    """The fields that say something else than the preset, as assignments."""
    resolved = _settings(project)
    found = []
    for (name, (label, _, low, high)), value in zip(KNOBS.items(), values, strict=True):
        room, key = name.split(".")
        own = getattr(getattr(resolved, room), key)
        if value is not None and value != own:
            number = number_in(value, low, int(high), label) if isinstance(low, int) else decimal_in(value, low, high, label)
            found.append(f"{name}={number}")
    return found


def check_length(**texts: str) -> None:
    """Raises `SettingsError` for text that is far longer than any that is meant."""
    for what, text in texts.items():
        if len(text) > LONGEST_TEXT:
            words = {"prompt": "the text of what the clip shows", "other": "the list of other settings"}[what]
            raise SettingsError(f"{words} has {len(text)} characters; {LONGEST_TEXT} at most are read, so shorten it")
