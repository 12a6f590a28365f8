"""Step 4: presets and model, further settings in a folded section, and the estimate of time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.config import PresetName, list_marked_settings, resolve_settings
from lora_edit.errors import ModelError, SettingsError
from lora_edit.estimate import Estimate
from lora_edit.models.checkpoints.hub import list_snapshots
from lora_edit.models.checkpoints.locate import list_models, locate_model
from lora_edit.reporting import format_bytes, format_seconds
from lora_edit.setting_fields import PageField
from lora_edit.ui import actions
from lora_edit.ui.components import AppState, Updates, create_heading, create_message, parse_decimal, parse_integer, render_messages
from lora_edit.ui.labels import explain_settings_error
from lora_edit.ui.projects import Project, ProjectState

PRESET_CHOICES: list[tuple[str, PresetName]] = [
    ("Standard", "standard"),
    ("Fast: about half the time", "fast"),
    ("Low memory: short windows", "low-vram"),
]

MAX_TEXT_LENGTH = 4000
"""Maximum number of characters of a prompt, and of the other settings."""

FILE_SETTINGS = ("generation.loras", "lora.init", "caption.model", "masks.segmenter", "provenance.")
"""Settings that name a file, folder or address, beside those of the section `input`, which the page never takes."""


class SettingsStep:
    """The step that selects model, preset and settings and shows the estimate."""

    def __init__(self, app_state: AppState) -> None:
        self.app_state = app_state
        self.basis = gr.Textbox("", visible=False)
        """The model and preset of the numbers in the fields, stored in the browser: fields are sent before a response arrives."""
        create_heading("Settings", "The presets were chosen by measurements. If in doubt, change nothing.")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3):
                self.preset = gr.Radio(PRESET_CHOICES, value="standard", label="Preset", elem_id="settings-preset")
                self.prompt = gr.Textbox(
                    "", label="What the edited clip shows", info="The embedded model ignores text", elem_id="settings-prompt"
                )
                with gr.Accordion("More settings", open=False, elem_id="settings-more"):
                    self._build_more_settings()
                self.error_message = create_message()
            with gr.Column(scale=2):
                self.model = gr.Dropdown(
                    list_model_choices(),
                    value="tiny",
                    label="Model",
                    info="Or type the folder, file or Hub name of another model",
                    allow_custom_value=True,
                    elem_id="settings-model",
                )
                self.model_summary = gr.HTML("", elem_classes="facts", elem_id="settings-about")
                self.estimate_button = gr.Button("Estimate time and memory", elem_id="settings-estimate")
                self.estimate_summary = gr.HTML("", elem_classes="facts", elem_id="settings-needs")
                self.next_button = gr.Button("Continue", variant="primary", elem_id="settings-next")

    def _build_more_settings(self) -> None:
        self.setting_fields = []
        fields = list(_list_page_fields().items())
        for pair in (fields[index : index + 2] for index in range(0, len(fields), 2)):
            with gr.Row():
                self.setting_fields += [
                    gr.Number(None, label=field.label, info=field.info, elem_id=f"knob-{name.replace('.', '-')}") for name, field in pair
                ]
        self.seed = gr.Number(0, label="Seed", minimum=0, elem_id="settings-seed")
        self.other_settings = gr.Textbox(
            "", label="Any other setting", info="section.setting=value, one per line", lines=3, elem_id="settings-others"
        )

    def list_inputs(self) -> list[Any]:
        """List the inputs of `save_settings`."""
        return [self.basis, self.preset, self.prompt, self.model, self.seed, self.other_settings, *self.setting_fields]

    def list_outputs(self) -> list[Any]:
        """List the elements that `show` updates."""
        return [*self.list_inputs(), self.model_summary, self.estimate_summary]

    def show(self, project: Project) -> Updates:
        """Render the step for the project's current state; unset fields show the preset's values."""
        state = project.read_state()
        page_fields = _list_page_fields()
        other_settings = [text for text in state.assignments if text.partition("=")[0] not in page_fields]
        resolved = _resolve_settings(state)
        values = [getattr(getattr(resolved, section), key) for section, key in (name.split(".") for name in page_fields)]
        plain = (_build_basis(state.model, state.preset), state.preset, state.prompt, state.model, state.seed, "\n".join(other_settings))
        fields = dict(zip(self.list_inputs(), (*plain, *values), strict=True))
        return {**fields, self.model_summary: describe_model(state.model), **self.render_estimate(project)}

    def refresh(self, project: Project) -> Updates:
        """Update the step on return to it."""
        return self.render_estimate(project)

    def save_settings(
        self, project_id: str, basis: str, preset: str, prompt: str, model: str, seed: float, other_settings: str, *values: float
    ) -> Updates:
        """Store valid settings. Numbers that equal the preset's, or belong to another preset, are not stored. Raises `InputError`."""
        project = self.app_state.open_project(project_id)
        check_texts(prompt=prompt, other=other_settings, model=model, preset=preset)
        plain = {"preset": preset, "prompt": prompt.strip(), "model": model, "seed": parse_integer(seed, 0, 2**62, "the seed")}
        lines = [line.strip() for line in other_settings.splitlines() if line.strip()]
        if basis == _build_basis(model, preset):
            lines += _find_overrides(project.read_state().replace_fields(**plain, assignments=()), values)
        if self.app_state.is_public:
            check_public_settings(model, lines)
        locate_model(model)
        new_state = project.read_state().replace_fields(**plain, assignments=tuple(lines))
        _check_ranges(_resolve_settings(new_state))
        project.update_state(**plain, assignments=new_state.assignments)
        return self.render_estimate(project)  # fields are not updated: the next one may already be in use

    def apply_preset(self, project_id: str, *values: Any) -> Updates:
        """Apply another preset or model and show its values in the number fields; a person may use the other fields meanwhile."""
        updates = {**self.save_settings(project_id, *values), **self.show(self.app_state.open_project(project_id))}
        other_fields = (self.preset, self.prompt, self.model, self.seed, self.other_settings)
        return {field: update for field, update in updates.items() if field not in other_fields}

    def start_estimate(self, project_id: str) -> Updates:
        """Start the estimate, which measures one step."""
        project = self.app_state.open_project(project_id)
        actions.start_estimate(self.app_state.device_queue, project)
        return self.render_estimate(project)

    def render_estimate(self, project: Project) -> Updates:
        """Render the estimate once it is finished."""
        job = self.app_state.device_queue.get_latest_job(project.id)
        if job is None or job.kind != "estimate" or job.project_state != project.read_state():
            return {self.estimate_summary: ""}
        if not isinstance(job.result, Estimate):
            return {
                self.estimate_summary: render_messages(job.error, "fault") if job.is_finished else render_messages("Measuring one step…")
            }
        estimate = job.result
        lines = [
            f"about {format_seconds(estimate.seconds_train)} to train, {format_seconds(estimate.seconds_generate)} to generate",
            f"about {format_bytes(estimate.memory_bytes)} of memory",
            f"the model works at {estimate.canvas_size}, in {estimate.windows} window{'s' if estimate.windows > 1 else ''}",
        ]
        return {self.estimate_summary: render_messages([*lines, *job.notes])}


def _build_basis(model: str, preset: str) -> str:
    return f"{preset} {model}"


def list_model_choices() -> list[tuple[str, str]]:
    """List the models as pairs of label and name; the label adds memory and licence."""
    return [(f"{each.name} · {each.memory} · {each.license}", each.name) for each in list_models()]


def describe_model(model: str) -> str:
    """Render summary, licence, memory and missing download of a model; an empty string for an unknown model."""
    try:
        facts, source = locate_model(model)
    except ModelError:
        return ""
    lines = [facts.summary, f"licence {facts.license}", facts.memory]
    needs_download = bool(facts.download_gb) and not Path(source).exists() and not list_snapshots(source)
    return render_messages(lines) + render_messages(
        f"Its files are not on this computer: about {facts.download_gb:g} GB of {source}" if needs_download else "", "warning"
    )


def _resolve_settings(state: ProjectState) -> Any:
    """Resolve the settings that need no clip. Raises `SettingsError`."""
    for text in state.assignments:
        if text.partition("=")[0].partition(".")[0].strip() in ("input", "preset", "model", "seed"):
            raise SettingsError(f"{text}: has a field of its own on the page; use that")
    tables = {"input": {"source": "", "first_frame": ""}, "model": state.model, "preset": state.preset, "seed": state.seed}
    try:
        return resolve_settings(tables, state.assignments)
    except SettingsError as error:
        raise explain_settings_error(error, state.assignments) from error


def _check_ranges(resolved: Any) -> None:
    """Raise `InputError` if a setting with its own field is out of range, wherever it was typed."""
    for name, field in _list_page_fields().items():
        section, key = name.split(".")
        _parse_value(getattr(getattr(resolved, section), key), field)


def _list_page_fields() -> dict[str, PageField]:
    """List the settings with a number field of their own, by `section.setting`."""
    return {name: field for name, (field, _) in list_marked_settings(PageField).items()}


def _parse_value(value: float, field: PageField) -> float:
    """Check a number against its field's range. Raises `InputError`."""
    if isinstance(field.minimum, int):
        return parse_integer(value, field.minimum, int(field.maximum), field.label)
    return parse_decimal(value, field.minimum, field.maximum, field.label)


def _find_overrides(state: ProjectState, values: tuple[float, ...]) -> list[str]:
    """Return the fields that differ from the preset, as assignments."""
    resolved = _resolve_settings(state)
    overrides = []
    for (name, field), value in zip(_list_page_fields().items(), values, strict=True):
        section, key = name.split(".")
        preset_value = getattr(getattr(resolved, section), key)
        if value is not None and value != preset_value:
            overrides.append(f"{name}={_parse_value(value, field)}")
    return overrides


def check_public_settings(model: str, assignments: list[str]) -> None:
    """Raise `SettingsError` if a visitor of a public page names a file, folder, repository or Python module of the server."""
    if model not in (names := [each.name for each in list_models()]):
        raise SettingsError(f"a page that is open to others takes only {', '.join(names)}; whoever runs it can take other models")
    for text in assignments:
        setting = text.partition("=")[0].strip()
        if setting.startswith(FILE_SETTINGS):
            raise SettingsError(f"{setting} names files of the server, which only a page that is closed to others takes")


def check_texts(**texts: str | None) -> None:
    """Raise `SettingsError` for a missing text, and for one longer than `MAX_TEXT_LENGTH`."""
    labels = {"prompt": "the description of the edited clip", "other": "the list of other settings"}
    for field, text in texts.items():
        label = labels.get(field, f"the {field}")
        if text is None:
            raise SettingsError(f"{label} is missing; reload the page")
        if len(text) > MAX_TEXT_LENGTH:
            raise SettingsError(f"{label} has {len(text)} characters; shorten it to at most {MAX_TEXT_LENGTH}")
