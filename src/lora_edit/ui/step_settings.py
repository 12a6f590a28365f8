"""Step 4: presets in front, everything else folded away; what it will cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.config import PresetName, resolve_settings
from lora_edit.errors import ModelError, SettingsError
from lora_edit.estimate import Estimate
from lora_edit.models.checkpoints.hub import list_snapshots
from lora_edit.models.checkpoints.locate import list_models, locate_model
from lora_edit.reporting import format_bytes, format_seconds
from lora_edit.ui import actions
from lora_edit.ui.components import AppState, Updates, create_heading, create_message, parse_decimal, parse_integer, render_messages
from lora_edit.ui.labels import SETTING_FIELDS, explain_settings_error
from lora_edit.ui.projects import Project, ProjectState

PRESET_CHOICES: list[tuple[str, PresetName]] = [
    ("Standard", "standard"),
    ("Fast: about half the time", "fast"),
    ("Low memory: short windows", "low-vram"),
]

MAX_TEXT_LENGTH = 4000
"""Characters of a prompt, and of the other settings."""


class SettingsStep:
    """Choose a model and a preset; see the estimate."""

    def __init__(self, app_state: AppState) -> None:
        self.app_state = app_state
        self.basis = gr.Textbox("", visible=False)
        """The model and preset whose numbers the fields show, kept in the browser with them: fields are sent before an answer has come."""
        create_heading("Settings", "The presets are measured. Change nothing if in doubt.")
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
                    info="The folder, file or Hub name of another one can be typed",
                    allow_custom_value=True,
                    elem_id="settings-model",
                )
                self.model_summary = gr.HTML("", elem_classes="facts", elem_id="settings-about")
                self.estimate_button = gr.Button("Estimate time and memory", elem_id="settings-estimate")
                self.estimate_summary = gr.HTML("", elem_classes="facts", elem_id="settings-needs")
                self.next_button = gr.Button("Continue", variant="primary", elem_id="settings-next")

    def _build_more_settings(self) -> None:
        self.setting_fields = []
        for pair in (list(SETTING_FIELDS.items())[place : place + 2] for place in range(0, len(SETTING_FIELDS), 2)):
            with gr.Row():
                self.setting_fields += [
                    gr.Number(None, label=label, info=info, elem_id=f"knob-{name.replace('.', '-')}") for name, (label, info, *_) in pair
                ]
        self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="settings-seed")
        self.other_settings = gr.Textbox(
            "", label="Any other setting", info="module.setting=value, one to a line", lines=3, elem_id="settings-others"
        )

    def list_inputs(self) -> list[Any]:
        """What `changed` reads."""
        return [self.basis, self.preset, self.prompt, self.model, self.seed, self.other_settings, *self.setting_fields]

    def list_outputs(self) -> list[Any]:
        """What `show` may change."""
        return [*self.list_inputs(), self.model_summary, self.estimate_summary]

    def show(self, folder: Project) -> Updates:
        """The step as the project is; fields show what the preset says."""
        project = folder.read_state()
        given = [text for text in project.assignments if text.partition("=")[0] not in SETTING_FIELDS]
        resolved = _resolve_settings(project)
        values = [getattr(getattr(resolved, room), key) for room, key in (name.split(".") for name in SETTING_FIELDS)]
        plain = (_build_basis(project.model, project.preset), project.preset, project.prompt, project.model, project.seed, "\n".join(given))
        fields = dict(zip(self.list_inputs(), (*plain, *values), strict=True))
        return {**fields, self.model_summary: describe_model(project.model), **self.render_estimate(folder)}

    def refresh(self, folder: Project) -> Updates:
        """The step when it is come to again."""
        return self.render_estimate(folder)

    def save_settings(
        self, project_id: str, basis: str, preset: str, prompt: str, model: str, seed: float, other_settings: str, *values: float
    ) -> Updates:
        """Keep the settings when they make sense together. Numbers that are the preset's are not kept, nor those of another preset."""
        folder = self.app_state.open_project(project_id)
        plain = {"preset": preset, "prompt": prompt.strip(), "model": model, "seed": parse_integer(seed, 0, 2**62, "the seed")}
        check_length(prompt=prompt, other=other_settings)
        lines = [line.strip() for line in other_settings.splitlines() if line.strip()]
        if basis == _build_basis(model, preset):
            lines += _find_overrides(folder.read_state().replace_fields(**plain, assignments=()), values)
        locate_model(model)
        following = folder.read_state().replace_fields(**plain, assignments=tuple(lines))
        _check_ranges(_resolve_settings(following))
        folder.update_state(**plain, assignments=following.assignments)
        return self.render_estimate(folder)  # fields are left alone: the next one may be typed in already

    def apply_preset(self, project_id: str, *values: Any) -> Updates:
        """Another preset or model; fields show what it says."""
        return {**self.save_settings(project_id, *values), **self.show(self.app_state.open_project(project_id))}

    def start_estimate(self, project_id: str) -> Updates:
        """Measure one step."""
        folder = self.app_state.open_project(project_id)
        actions.start_estimate(self.app_state.device_queue, folder)
        return self.render_estimate(folder)

    def render_estimate(self, folder: Project) -> Updates:
        """The estimate, once it is made."""
        job = self.app_state.device_queue.get_latest_job(folder.id)
        if job is None or job.kind != "estimate" or job.project_state != folder.read_state():
            return {self.estimate_summary: ""}
        if not isinstance(job.result, Estimate):
            return {
                self.estimate_summary: render_messages(job.error, "fault") if job.is_finished else render_messages("Measuring one step…")
            }
        found = job.result
        words = [
            f"about {format_seconds(found.seconds_train)} to train, {format_seconds(found.seconds_generate)} to generate",
            f"about {format_bytes(found.memory_bytes)} of memory",
            f"the model works at {found.canvas_size}, in {found.windows} window{'s' if found.windows > 1 else ''}",
        ]
        return {self.estimate_summary: render_messages([*words, *job.notes])}


def _build_basis(model: str, preset: str) -> str:
    return f"{preset} {model}"


def list_model_choices() -> list[tuple[str, str]]:
    """Each model with the memory that it needs and its licence, and its name."""
    return [(f"{each.name} · {each.memory} · {each.license}", each.name) for each in list_models()]


def describe_model(model: str) -> str:
    """What a model is, what it needs, and what of it is not here yet; nothing for one that is not found (any more)."""
    try:
        facts, source = locate_model(model)
    except ModelError:
        return ""
    words = [facts.summary, f"licence {facts.license}", facts.memory]
    missing = bool(facts.download_gb) and not Path(source).exists() and not list_snapshots(source)
    return render_messages(words) + render_messages(
        f"Its files are not on this computer: about {facts.download_gb:g} GB of {source}" if missing else "", "warning"
    )


def _resolve_settings(state: ProjectState) -> Any:
    """The settings that need no clip. Raises `SettingsError`."""
    for text in state.assignments:
        if text.partition("=")[0].partition(".")[0].strip() in ("input", "preset", "model", "seed"):
            raise SettingsError(f"{text}: has a field of its own on the page; use that")
    tables = {"input": {"source": "", "first_frame": ""}, "model": state.model, "preset": state.preset, "seed": state.seed}
    try:
        return resolve_settings(tables, state.assignments)
    except SettingsError as error:
        raise explain_settings_error(error, state.assignments) from error


def _check_ranges(resolved: Any) -> None:
    """Raise `InputError` for a number with a field of its own that makes no sense, wherever it was typed."""
    for name, (label, _, low, high) in SETTING_FIELDS.items():
        room, key = name.split(".")
        value = getattr(getattr(resolved, room), key)
        _ = parse_integer(value, low, int(high), label) if isinstance(low, int) else parse_decimal(value, low, high, label)


def _find_overrides(state: ProjectState, values: tuple[float, ...]) -> list[str]:
    """The fields that say something else than the preset, as assignments."""
    resolved = _resolve_settings(state)
    found = []
    for (name, (label, _, low, high)), value in zip(SETTING_FIELDS.items(), values, strict=True):
        room, key = name.split(".")
        own = getattr(getattr(resolved, room), key)
        if value is not None and value != own:
            number = parse_integer(value, low, int(high), label) if isinstance(low, int) else parse_decimal(value, low, high, label)
            found.append(f"{name}={number}")
    return found


def check_length(**texts: str) -> None:
    """Raises `SettingsError` for text that is far longer than any that is meant."""
    for what, text in texts.items():
        if len(text) > MAX_TEXT_LENGTH:
            words = {"prompt": "the text of what the clip shows", "other": "the list of other settings"}[what]
            raise SettingsError(f"{words} has {len(text)} characters; {MAX_TEXT_LENGTH} at most are read, so shorten it")
