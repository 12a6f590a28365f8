"""The page: six steps, a status bar above them, and the wiring of events to handlers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.errors import InputError
from lora_edit.masks.segmenter_registry import EMBEDDED
from lora_edit.ui.changes import CLIP, FRAMES, REGION, RESULT, RUN, SETTINGS, find_change
from lora_edit.ui.components import AppState, Updates, build_history_button, catch_errors, create_message, delete_upload, render_messages
from lora_edit.ui.jobs import Job, JobQueue
from lora_edit.ui.navigation import find_current_step, find_last_open_step
from lora_edit.ui.projects import Project, ProjectStore
from lora_edit.ui.step_clip import ClipStep
from lora_edit.ui.step_frames import FramesStep
from lora_edit.ui.step_region import RegionStep
from lora_edit.ui.step_result import ResultStep
from lora_edit.ui.step_run import KIND_LABELS, STATE_LABELS, RunStep, render_job
from lora_edit.ui.step_settings import SettingsStep
from lora_edit.ui.theme import FORGET_MARKS_SCRIPT, SCROLL_SCRIPT, UPDATE_ADDRESS_SCRIPT

STEP_NAMES = ("Clip", "Region", "Edited frames", "Settings", "Train", "Result")

BUSY_INTERVAL, IDLE_INTERVAL = 0.7, 3.0
"""Seconds between two status updates, with and without a running job. Another page of the same project may start a job at any time."""

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of every event: no progress animation, and no public API."""

LATEST: dict[str, Any] = {"trigger_mode": "always_last"}
"""Options of a field's events: the newest value is stored even if it changes while an earlier event is processed."""

IN_ORDER: dict[str, Any] = {"concurrency_id": "settings", "concurrency_limit": 1}
"""Options of events that store all settings: an earlier event never overwrites the values of a later one."""

IDLE_MESSAGE, OPENING_MESSAGE = "Nothing is running.", "Opening the project…"

FAST_STEPS, SLOW_STEPS = (CLIP, SETTINGS, RUN), (FRAMES, REGION, RESULT)
"""The order in which an opened project fills the steps. The slow ones may have to propagate the marks through the clip again."""


class Page:
    """The page's elements and their wiring; Gradio serves `blocks`."""

    clip: ClipStep
    region: RegionStep
    frames: FramesStep
    settings: SettingsStep
    run: RunStep
    result: ResultStep

    def __init__(self, app_state: AppState) -> None:
        self.app_state = app_state
        with gr.Blocks(title="lora-edit", analytics_enabled=False, delete_cache=(86400, 604800)) as self.blocks:
            self._build_layout()
            self._wire_clip()
            self._wire_region()
            self._wire_frames()
            self._wire_settings()
            self._wire_run()
            self._wire_result()
            self._wire_page()

    def _build_layout(self) -> None:
        self.project_id = gr.Textbox("", visible=False, elem_id="project")
        self.status_key = gr.State("")
        self.timer = gr.Timer(IDLE_INTERVAL, active=False)
        with gr.Row(elem_classes="top"):
            gr.HTML("<h1>lora-edit</h1>", elem_classes="title")
            self.status = gr.HTML(render_messages("Loading…"), elem_id="status")
            self.stop_button = gr.Button("Stop", size="sm", variant="stop", visible=False, elem_id="halt", min_width=80, scale=0)
            self.undo_button = gr.Button("Undo", size="sm", interactive=False, elem_id="undo", min_width=80, scale=0)
            self.redo_button = gr.Button("Redo", size="sm", interactive=False, elem_id="redo", min_width=80, scale=0)
        self.error_message = create_message()
        with gr.Tabs(selected=CLIP, elem_id="steps", overflow_behavior="wrap") as self.step_tabs:
            self.tabs = []
            clip_step = functools.partial(ClipStep, project_id=self.project_id)
            step_types: tuple[Callable[[AppState], Any], ...] = (clip_step, RegionStep, FramesStep, SettingsStep, RunStep, ResultStep)
            steps: list[Any] = []
            for number, (label, step_type) in enumerate(zip(STEP_NAMES, step_types, strict=True)):
                with gr.Tab(f"{number + 1}  {label}", id=number, interactive=number == CLIP) as tab:
                    steps.append(step_type(self.app_state))
                self.tabs.append(tab)
        self.steps = steps
        self.clip, self.region, self.frames, self.settings, self.run, self.result = steps

    def _connect_event(
        self,
        trigger: Any,
        handler: Callable[..., Updates],
        inputs: list[Any],
        outputs: list[Any],
        error_field: Any,
        updates_on_error: Updates | None = None,
        **event_options: Any,
    ) -> Any:
        """Call the handler with the project's id and the inputs, then update the status bar.

        A failure shows its message in `error_field` and applies `updates_on_error`.
        """
        all_outputs = list(dict.fromkeys([*outputs, error_field, *(updates_on_error or ()), *self._list_status_outputs()]))
        view = next((step.view for step in self.steps if getattr(step, "view", None) in outputs), None)
        call = catch_errors(self.app_state, self._add_status_update(handler), error_field, view, updates_on_error)
        return trigger(call, [self.project_id, *inputs], all_outputs, **HIDDEN, **event_options)

    def _connect_upload(
        self, step: Any, field: Any, handler: Callable[..., Updates], inputs: list[Any], outputs: list[Any], error_field: Any
    ) -> None:
        """Call the handler for a file dropped on the field, which is the last input.

        Afterwards the field is empty again, as the project holds its own copy. A valid file clears the step's error messages.
        """
        cleared_errors = {error: "" for name, error in vars(step).items() if "error" in name}

        def import_upload(project_id: str, *args: Any) -> Updates:
            try:
                return {**cleared_errors, **handler(project_id, *args)}
            finally:
                delete_upload(args[-1])

        self._connect_event(field.upload, import_upload, [*inputs, field], [*outputs, *cleared_errors], error_field, {field: None})

    def _list_status_outputs(self) -> list[Any]:
        return [self.status, self.stop_button, self.undo_button, self.redo_button, self.timer, *self.tabs]

    def _add_status_update(self, handler: Callable[..., Updates]) -> Callable[..., Updates]:
        """Wrap a handler so that the status bar is updated after it."""

        @functools.wraps(handler)
        def call(project_id: str, *args: Any) -> Updates:
            updates = handler(project_id, *args)
            project_id = updates.get(self.project_id, project_id)
            return {**updates, **(self.render_status(self.app_state.open_project(project_id)) if project_id else {})}

        return call

    def render_status(self, project: Project) -> Updates:
        """Render the status bar: the newest job, the undo and redo buttons, and the interval of the next update."""
        jobs, state = self._list_jobs(project), project.read_state()
        active_jobs = [job for job in jobs if not job.is_finished]
        undo_change, redo_change = (find_change(state, other) for other in project.read_adjacent_states())
        visible_jobs = active_jobs or [job for job in jobs if job.kind in ("edit", "again")]
        text = "".join(
            render_job(job, self.app_state.device_queue.count_jobs_ahead(job), state) for job in visible_jobs[-1:]
        ) or render_messages(IDLE_MESSAGE)
        # Screen readers announce the start and the end of a job, not every step.
        announcement = "; ".join(f"{KIND_LABELS[job.kind]} {STATE_LABELS[job.state]}" for job in visible_jobs[-1:])
        return {
            self.status: f'{text}<span class="hidden-text" role="status">{announcement}</span>',
            self.stop_button: gr.Button(visible=bool(active_jobs)),
            self.undo_button: build_history_button("Undo", undo_change),
            self.redo_button: build_history_button("Redo", redo_change),
            self.timer: gr.Timer(BUSY_INTERVAL if active_jobs else IDLE_INTERVAL, active=True),
            **{tab: gr.Tab(interactive=number <= find_last_open_step(project, state)) for number, tab in enumerate(self.tabs)},
        }

    def _list_jobs(self, project: Project) -> list[Job]:
        queues = (self.app_state.background, self.app_state.device_queue, self.app_state.foreground)
        return [job for queue in queues if (job := queue.get_latest_job(project.id)) is not None]

    def _connect_viewer(self, step: Any) -> None:
        """Connect the viewer's events of a step."""
        inputs = [self.result.result_choice] if step is self.result else []
        for event, handler in ((step.view.frame, step.show_frame), (step.view.film, step.play_frames)):
            # The viewer sends one of them at a time.
            self._connect_event(event, handler, inputs, step.frame_outputs, step.error_message, trigger_mode="multiple")

    def _wire_clip(self) -> None:
        step = self.clip
        self._connect_upload(step, step.file, self._import_clip, [], self._list_outputs(), step.error_message)
        self._connect_event(step.trim_button.click, step.trim_clip, [step.start, step.frames], step.list_outputs(), step.trim_error)
        self._connect_viewer(step)
        self._connect_next_button(step.next_button, REGION, step.trim_error, step.trim_clip, [step.start, step.frames])

    def _wire_region(self) -> None:
        step = self.region
        outputs = step.list_outputs()
        propagation_starts = (  # besides the viewer, which sends one mark at a time
            (step.add_button.click, step.add_typed_mark, [step.object_choice, *step.mark_numbers]),
            (step.describe_button.click, step.add_described_marks, [step.object_choice, step.description]),
            (step.resume_button.click, step.resume_propagation, [step.current_frame]),
        )
        for start in (
            self._connect_event(step.view.mark, step.add_mark, [step.object_choice], outputs, step.error_message, trigger_mode="multiple"),
            *(self._connect_event(trigger, call, inputs, outputs, step.sidebar_error) for trigger, call, inputs in propagation_starts),
        ):
            propagation = self._connect_event(start.then, step.run_propagation, [], [step.propagation_done], step.propagation_error)
            shown = [step.propagation_done, step.current_frame]
            self._connect_event(propagation.then, step.show_propagation, shown, outputs, step.refresh_error)
        self._connect_event(step.remove_button.click, step.remove_last_mark, [step.current_frame], outputs, step.error_message)
        self._connect_event(step.clear_button.click, step.clear_region, [step.current_frame], outputs, step.error_message)
        step.clear_button.click(None, js=FORGET_MARKS_SCRIPT)
        for name, control in step.controls.items():
            event = control.release if isinstance(control, gr.Slider) else control.input
            error_field = step.mask_error if control is step.mask_use else step.sidebar_error
            self._connect_event(event, step.build_update(name), [step.current_frame, control], outputs, error_field, **LATEST)
        self._connect_upload(step, step.mask_file, step.import_mask, [], outputs, step.mask_error)
        self._connect_event(step.overlay_button.click, step.start_overlay, [], [step.overlay_download], step.sidebar_error)
        self._connect_viewer(step)
        self._connect_next_button(step.next_button, FRAMES, step.sidebar_error)

    def _wire_frames(self) -> None:
        step = self.frames
        outputs = step.list_outputs()
        self._connect_upload(step, step.file, step.import_first_frame, [], outputs, step.error_message)
        self._connect_event(step.cover_button.click, step.grow_region, [], outputs, step.error_message)
        search_started = self._connect_event(step.suggest_button.click, step.show_search_message, [], [], step.later_error)
        selection_outputs = [step.later_download_button, step.view, step.current_frame]
        all_selection_outputs = [step.later_number, *selection_outputs]
        suggestion = self._connect_event(search_started.then, step.suggest_frame, [], all_selection_outputs, step.later_error)
        suggestion.then(None, js=SCROLL_SCRIPT)
        for event in (step.later_number.submit, step.later_number.blur):
            self._connect_event(event, step.select_frame, [step.later_number], selection_outputs, step.later_error, **LATEST)
        frame_inputs = [step.later_number, step.later_kind]
        self._connect_upload(step, step.later_file, step.import_later_frame, frame_inputs, outputs, step.later_error)
        self._connect_event(step.remove_button.click, step.remove_later_frame, [step.later_frames], outputs, step.later_error)
        self._connect_viewer(step)
        self._connect_next_button(step.next_button, SETTINGS, step.error_message)

    def _wire_settings(self) -> None:
        step = self.settings
        inputs, outputs, field_options = step.list_inputs(), step.list_outputs(), LATEST | IN_ORDER
        for choice in (step.preset, step.model):
            self._connect_event(choice.input, step.apply_preset, inputs, outputs, step.error_message, **field_options)
        for field in (step.prompt, step.other_settings, step.seed, *step.setting_fields):
            self._connect_event(field.blur, step.save_settings, inputs, [step.estimate_summary], step.error_message, **field_options)
        self._connect_event(step.estimate_button.click, step.start_estimate, [], [step.estimate_summary], step.error_message, **IN_ORDER)
        self._connect_next_button(step.next_button, RUN, step.error_message, step.save_settings, inputs)

    def _wire_run(self) -> None:
        step = self.run
        self._connect_event(step.start_button.click, step.start_edit, [], step.list_outputs(), step.error_message)
        self._connect_event(step.preview_button.click, step.start_preview, [], step.list_outputs(), step.error_message)
        self._connect_event(step.stop_button.click, step.stop_edit, [], step.list_outputs(), step.error_message)
        self._connect_next_button(step.next_button, RESULT, step.error_message)

    def _wire_result(self) -> None:
        step = self.result
        self._connect_event(step.result_choice.input, step.select_result, [step.result_choice], step.list_outputs(), step.error_message)
        self._connect_viewer(step)
        self._connect_event(step.pack_button.click, step.pack_project, [step.result_choice], step.list_outputs(), step.error_message)
        inputs, outputs = [step.result_choice, step.seed, step.file], [self.step_tabs, *self.run.list_outputs()]
        self._connect_event(step.regenerate_button.click, self._start_regeneration, inputs, outputs, step.regeneration_error)
        outputs = [self.step_tabs, self.frames.later_number, self.frames.later_download_button, *self.frames.list_outputs()]
        self._connect_event(step.edit_frame_button.click, self._edit_suggested_frame, [], outputs, step.error_message)

    def _wire_page(self) -> None:
        all_outputs = [self.step_tabs, *self._list_outputs()]
        for button, steps in ((self.undo_button, 1), (self.redo_button, -1)):
            frame_input = [self.region.current_frame]
            self._connect_event(
                button.click,
                lambda project_id, frame, steps=steps: self._undo(project_id, steps, frame),
                frame_input,
                all_outputs,
                self.error_message,
            )
            button.click(None, js=FORGET_MARKS_SCRIPT)
        self._connect_event(self.stop_button.click, self._stop_jobs, [], self.run.list_outputs(), self.error_message)
        for number, tab in enumerate(self.tabs):
            step = self.steps[number]
            frame_input = [step.current_frame] if number in (CLIP, REGION, FRAMES) else []
            self._connect_event(
                tab.select,
                lambda project_id, *frame, number=number: self._refresh_step(project_id, number, *frame),
                frame_input,
                step.list_outputs(),
                self.error_message,
            )
        refresh = catch_errors(self.app_state, self.refresh_status, self.error_message)
        refresh_outputs = [self.status_key, *self._list_status_outputs(), *self.run.list_outputs()]
        refresh_outputs += [self.region.overlay_download, self.settings.estimate_summary, self.error_message]
        self.timer.tick(refresh, [self.project_id, self.status_key], refresh_outputs, **HIDDEN)
        open_project = catch_errors(self.app_state, self.open_project, self.clip.error_message)
        load_outputs = [*self._list_status_outputs(), self.project_id, self.clip.error_message]
        load = self.blocks.load(open_project, None, load_outputs, **HIDDEN)
        restore_fast = catch_errors(self.app_state, lambda project_id: self.restore_steps(project_id, FAST_STEPS), self.error_message)
        fast_restored = load.then(
            restore_fast, self.project_id, [self.step_tabs, *self._list_outputs(FAST_STEPS), self.error_message], **HIDDEN
        )
        self._connect_event(
            fast_restored.then,
            lambda project_id: self.restore_steps(project_id, SLOW_STEPS),
            [],
            self._list_outputs(SLOW_STEPS),
            self.error_message,
        )
        self.project_id.change(None, self.project_id, None, js=UPDATE_ADDRESS_SCRIPT)

    def _connect_next_button(
        self, button: Any, number: int, error_field: Any, save: Callable[..., Updates] | None = None, fields: Sequence[Any] = ()
    ) -> None:
        """Connect a button that leads to a step; `save` first stores the values of the `fields`."""

        def save_and_go(project_id: str, *values: Any) -> Updates:
            return {**({} if save is None else save(project_id, *values)), **self._go_to_step(project_id, number)}

        current = next(step for step in self.steps if step.next_button is button)
        self._connect_event(
            button.click,
            save_and_go,
            [*fields],
            [self.step_tabs, *(current.list_outputs() if save else ()), *self.steps[number].list_outputs()],
            error_field,
            **(IN_ORDER if current is self.settings else {}),
        )

    def _go_to_step(self, project_id: str, number: int) -> Updates:
        """Go to a step. Raises `InputError` if an earlier step is incomplete."""
        project = self.app_state.open_project(project_id)
        if number > REGION:
            self.region.check_propagation(project)
        if number > FRAMES and not project.read_state().first_frame:
            raise InputError("the edited first frame is missing; download the first frame, edit it, and drop it here")
        return {**self.steps[number].show(project), self.step_tabs: gr.Tabs(selected=number)}

    def _stop_jobs(self, project_id: str) -> Updates:
        """Stop all jobs of the project."""
        self.app_state.background.stop(project_id)
        self.app_state.foreground.stop(project_id)
        return self.run.stop_edit(project_id)

    def _refresh_step(self, project_id: str, number: int, *frame: int) -> Updates:
        """Update a step on return to it. Its fields keep their values, which may have just been typed."""
        step = self.steps[number]
        show = getattr(step, "refresh", step.show)
        return show(self.app_state.open_project(project_id), *frame) if project_id else {}

    def _import_clip(self, project_id: str, file: str | None) -> Updates:
        """Import a clip and update all steps, which may show another clip."""
        updates = self.clip.import_clip(project_id, file)
        project_id = updates.get(self.project_id, project_id)
        return {**self._show_all_steps(self.app_state.open_project(project_id)), **updates} if updates else {}

    def _undo(self, project_id: str, steps: int, frame: int) -> Updates:
        """Undo or redo and go to the step of that change; the region stays at its frame."""
        project = self.app_state.open_project(project_id)
        self.region.cancel_marks(project)
        before, after = project.read_state(), project.undo(steps)
        change = find_change(before, after)
        tab = {self.step_tabs: gr.Tabs(selected=change.step)} if change else {}
        return {**self._show_all_steps(project), **self.region.show(project, frame), **tab}

    def _list_outputs(self, steps: Sequence[int] = tuple(range(len(STEP_NAMES)))) -> list[Any]:
        """List the elements that these steps update."""
        return [each for number in steps for each in self.steps[number].list_outputs()]

    def _show_all_steps(self, project: Project) -> Updates:
        return {key: value for step in self.steps for key, value in step.show(project).items()}

    def _start_regeneration(self, project_id: str, number: int | None, seed: float | None, file: str | None) -> Updates:
        self.result.start_regeneration(project_id, number, seed, file)
        return self._go_to_step(project_id, RUN)

    def _edit_suggested_frame(self, project_id: str) -> Updates:
        return {**self._go_to_step(project_id, FRAMES), **self.frames.suggest_frame(project_id)}

    def refresh_status(self, project_id: str, status_key: str) -> Updates:
        """Update the status bar and the run step if a job has changed since `status_key`."""
        if not project_id:
            return {self.timer: gr.Timer(active=False)}
        project = self.app_state.open_project(project_id)
        new_key = repr([project_id, *((job.kind, job.state, job.stage, job.done, job.preview_count) for job in self._list_jobs(project))])
        if new_key == status_key:
            return {}
        job_outputs = {**self.region.update_overlay_download(project), **self.settings.render_estimate(project)}
        return {self.status_key: new_key, **self.run.show(project), **job_outputs, **self.render_status(project)}

    def open_project(self, request: gr.Request) -> Updates:
        """Open the project in the page's address, with its running job."""
        name = request.query_params.get("project", "")
        try:
            project = self.app_state.open_project(name)
        except InputError as error:
            return {
                self.status: render_messages(IDLE_MESSAGE),
                **({self.clip.error_message: render_messages(str(error), "fault")} if name else {}),
            }
        return {**self.render_status(project), self.project_id: name, self.status: render_messages(OPENING_MESSAGE)}

    def restore_steps(self, project_id: str, steps: Sequence[int]) -> Updates:
        """Fill some steps of a newly opened project. With the fast ones it goes to its current step, whose fields are not filled later."""
        if not project_id:
            return {}
        project = self.app_state.open_project(project_id)
        tab = {self.step_tabs: gr.Tabs(selected=find_current_step(self.app_state, project))} if steps == FAST_STEPS else {}
        return tab | {key: value for step in steps for key, value in self.steps[step].show(project).items()}


def make_page(folder: Path, threads: int | None = None, segmenter: str = EMBEDDED, is_public: bool = False) -> Page:
    """Build the page over the projects in a folder; `threads` and `segmenter` as in `serve`."""
    store = ProjectStore(folder.absolute(), segmenter)
    return Page(AppState(store, JobQueue(threads), JobQueue(threads), is_public=is_public))
