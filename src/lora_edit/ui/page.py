"""The page: six steps in order, the state of the run above them, and which button calls what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lora_edit.errors import InputError
from lora_edit.ui.changes import CLIP, FRAMES, REGION, RESULT, RUN, SETTINGS, Change, change_between, outdated
from lora_edit.ui.jobs import Desk, Job
from lora_edit.ui.parts import Office, Updates, discard, guarded, message, said
from lora_edit.ui.projects import Folder, Project, Shelf
from lora_edit.ui.step_clip import ClipStep
from lora_edit.ui.step_frames import FramesStep
from lora_edit.ui.step_region import RegionStep
from lora_edit.ui.step_result import ResultStep
from lora_edit.ui.step_run import KINDS, STATES, RunStep, card, unfinished_of
from lora_edit.ui.step_settings import SettingsStep

NAMES = ("Clip", "Region", "Edited frames", "Settings", "Train", "Result")

BUSY_TICK, IDLE_TICK = 0.7, 3.0
"""Seconds between two looks at what runs; another page of the same project may start something at any time."""

REMEMBER = """(name) => {
  const address = new URL(window.location);
  if (name) address.searchParams.set("project", name); else address.searchParams.delete("project");
  if (address.href !== window.location.href) history.replaceState(history.state, "", address);
}"""
"""Puts the project into the page's address, so that a reload, a bookmark or another device finds it again."""

NOTHING, OPENING = "Nothing is running.", "Opening the project…"

QUICKLY_SHOWN, SLOWLY_SHOWN = (CLIP, SETTINGS, RUN), (FRAMES, REGION, RESULT)
"""The steps in the order in which an opened project fills them: some have to follow the marks through the clip again."""

SHOW_ANSWER = """() => document.querySelector("#later-number").scrollIntoView({ block: "center" })"""

FORGET = """() => document.querySelector("#region-view .view")?.dispatchEvent(new Event("forget"))"""
"""The marks that wait in the viewer for their turn are not sent any more."""


class Page:
    """The page's elements and their wiring; `blocks` is what Gradio serves."""

    clip: ClipStep
    region: RegionStep
    frames: FramesStep
    settings: SettingsStep
    run: RunStep
    result: ResultStep

    def __init__(self, office: Office) -> None:
        self.office = office
        with gr.Blocks(title="lora-edit", analytics_enabled=False, delete_cache=(86400, 604800)) as self.blocks:
            self._layout()
            self._wire_clip()
            self._wire_region()
            self._wire_frames()
            self._wire_settings()
            self._wire_run()
            self._wire_result()
            self._wire_page()

    def _layout(self) -> None:
        self.name = gr.Textbox("", visible=False, elem_id="project")
        self.seen = gr.State("")
        self.timer = gr.Timer(IDLE_TICK, active=False)
        with gr.Row(elem_classes="top"):
            gr.HTML("<h1>lora-edit</h1>", elem_classes="title")
            self.status = gr.HTML(said("Loading…"), elem_id="status")
            self.halt = gr.Button("Stop", size="sm", variant="stop", visible=False, elem_id="halt", min_width=80, scale=0)
            self.undo = gr.Button("Undo", size="sm", interactive=False, elem_id="undo", min_width=80, scale=0)
            self.redo = gr.Button("Redo", size="sm", interactive=False, elem_id="redo", min_width=80, scale=0)
        self.fault = message()
        with gr.Tabs(selected=CLIP, elem_id="steps", overflow_behavior="wrap") as self.walk:
            self.tabs = []
            makers: tuple[Callable[[], Any], ...] = (
                lambda: ClipStep(self.office, self.name),
                lambda: RegionStep(self.office),
                lambda: FramesStep(self.office),
                lambda: SettingsStep(self.office),
                lambda: RunStep(self.office),
                lambda: ResultStep(self.office),
            )
            steps: list[Any] = []
            for number, (label, maker) in enumerate(zip(NAMES, makers, strict=True)):
                with gr.Tab(f"{number + 1}  {label}", id=number, interactive=number == CLIP) as tab:
                    steps.append(maker())
                self.tabs.append(tab)
        self.steps = steps
        self.clip, self.region, self.frames, self.settings, self.run, self.result = steps

    def _on(
        self,
        trigger: Any,
        handler: Callable[..., Updates],
        inputs: list[Any],
        outputs: list[Any],
        fault: Any,
        refused: Updates | None = None,
        **more: Any,
    ) -> Any:
        """Call the handler with the project's name and the inputs; its failures are told at `fault`, with `refused` as what else becomes
        of the page then, and the state above is renewed."""
        every = list(dict.fromkeys([*outputs, fault, *(refused or ()), *self._state()]))
        view = next((step.view for step in self.steps if getattr(step, "view", None) in outputs), None)
        call = guarded(self.office, self._renewing(handler), fault, view, refused)
        return trigger(call, [self.name, *inputs], every, show_progress="hidden", api_visibility="private", **more)

    def _drop(self, step: Any, field: Any, handler: Callable[..., Updates], inputs: list[Any], outputs: list[Any], fault: Any) -> None:
        """Call the handler for a file that is dropped on the field, the last of the inputs. The field is empty again afterwards, as what is
        wanted of the file is kept; where it is good, what was wrong with others is told no longer."""
        faults = {place: "" for name, place in vars(step).items() if "fault" in name}

        def taken(name: str, *given: Any) -> Updates:
            try:
                return {**faults, **handler(name, *given)}
            finally:
                discard(given[-1])

        self._on(field.upload, taken, [*inputs, field], [*outputs, *faults], fault, {field: None})

    def _state(self) -> list[Any]:
        return [self.status, self.halt, self.undo, self.redo, self.timer, *self.tabs]

    def _renewing(self, handler: Callable[..., Updates]) -> Callable[..., Updates]:
        """The handler, with the state above the steps renewed after it."""
        import functools

        @functools.wraps(handler)
        def call(name: str, *args: Any) -> Updates:
            answer = handler(name, *args)
            name = answer.get(self.name, name)
            return {**answer, **(self.state(self.office.open(name)) if name else {})}

        return call

    def state(self, folder: Folder) -> Updates:
        """The state of the run, what can be undone, and how soon to look again."""
        jobs, now = self._jobs(folder), folder.now()
        busy = [job for job in jobs if not job.over]
        back, forth = (change_between(now, other) for other in folder.neighbours())
        shown = busy or [job for job in jobs if job.kind in ("edit", "again")]
        words = "".join(card(job, self.office.device.ahead(job), now) for job in shown[-1:]) or said(NOTHING)
        # Screen readers hear of what begins and ends, not of every step.
        heard = "; ".join(f"{KINDS[job.kind]} {STATES[job.state]}" for job in shown[-1:])
        return {
            self.status: f'{words}<span class="hidden-text" role="status">{heard}</span>',
            self.halt: gr.Button(visible=bool(busy)),
            self.undo: _named("Undo", back),
            self.redo: _named("Redo", forth),
            self.timer: gr.Timer(BUSY_TICK if busy else IDLE_TICK, active=True),
            **{tab: gr.Tab(interactive=number <= open_steps(folder, now)) for number, tab in enumerate(self.tabs)},
        }

    def _jobs(self, folder: Folder) -> list[Job]:
        found = (desk.newest(folder.id) for desk in (self.office.quick, self.office.device, self.office.hands))
        return [job for job in found if job is not None]

    def _views(self, step: Any) -> None:
        """The viewer's events of a step."""
        inputs = [self.result.which] if step is self.result else []
        self._on(step.view.frame, step.frame, inputs, step.pictured, step.fault, trigger_mode="always_last")
        self._on(step.view.film, step.film, inputs, step.pictured, step.fault)

    def _wire_clip(self) -> None:
        step = self.clip
        self._drop(step, step.file, self._dropped, [], self._outputs(), step.fault)
        self._on(step.trim.click, step.trimmed, [step.start, step.frames], step.outputs(), step.trim_fault)
        self._views(step)
        self._to(step.next, REGION, step.trim_fault, step.trimmed, [step.start, step.frames])

    def _wire_region(self) -> None:
        step = self.region
        out = step.outputs()
        begun = (
            # The viewer itself makes one at a time.
            self._on(step.view.mark, step.marked, [step.object], out, step.fault, trigger_mode="multiple"),
            self._on(step.typed.click, step.added, [step.object, *step.numbers], out, step.fault_side),
            self._on(step.on.click, step.resumed, [step.at], out, step.fault_side),
        )
        for first in begun:
            second = self._on(first.then, step.followed, [], [step.did], step.fault_followed)
            self._on(second.then, step.settled, [step.did, step.at], out, step.fault_settled)
        self._on(step.last.click, step.removed, [step.at], out, step.fault)
        self._on(step.clear.click, step.cleared, [step.at], out, step.fault)
        step.clear.click(None, js=FORGET)
        for knob in step.knobs:
            told = knob.release if isinstance(knob, gr.Slider) else knob.input
            place = step.mask_fault if knob is step.use else step.fault_side
            self._on(told, step.shaped, [step.at, *step.knobs], out, place)
        self._drop(step, step.mask, step.imported, [], out, step.mask_fault)
        self._on(step.make.click, step.film_started, [], [step.saved], step.fault_side)
        self._views(step)
        self._to(step.next, FRAMES, step.fault_side)

    def _wire_frames(self) -> None:
        step = self.frames
        out = step.outputs()
        self._drop(step, step.file, step.dropped, [], out, step.fault)
        self._on(step.cover.click, step.covered, [], out, step.fault)
        looking = self._on(step.suggest.click, step.looking, [], [], step.later_fault)
        suggested = self._on(looking.then, step.suggested, [], [step.number, step.take, step.view, step.at], step.later_fault)
        suggested.then(None, js=SHOW_ANSWER)
        self._on(step.number.submit, step.chosen, [step.number], [step.take, step.view, step.at], step.later_fault)
        self._on(step.number.blur, step.chosen, [step.number], [step.take, step.view, step.at], step.later_fault)
        self._drop(step, step.later_file, step.dropped_later, [step.number, step.kind], out, step.later_fault)
        self._on(step.remove.click, step.removed, [step.list], out, step.later_fault)
        self._views(step)
        self._to(step.next, SETTINGS, step.fault)

    def _wire_settings(self) -> None:
        step = self.settings
        for choice in (step.preset, step.model):
            self._on(choice.input, step.chosen, step.inputs(), step.outputs(), step.fault)
        for typed in (step.prompt, step.others, step.seed, *step.knobs):
            self._on(typed.blur, step.changed, step.inputs(), [step.needs], step.fault)
        self._on(step.estimate.click, step.estimate_started, [], [step.needs], step.fault)
        self._to(step.next, RUN, step.fault, step.changed, step.inputs())

    def _wire_run(self) -> None:
        step = self.run
        self._on(step.start.click, step.started, [], step.outputs(), step.fault)
        self._on(step.preview.click, step.tried, [], step.outputs(), step.fault)
        self._on(step.stop.click, step.stopped, [], step.outputs(), step.fault)
        self._to(step.next, RESULT, step.fault)

    def _wire_result(self) -> None:
        step = self.result
        self._on(step.which.input, step.chosen, [step.which], step.outputs(), step.fault)
        self._views(step)
        self._on(step.pack.click, step.packed, [step.which], step.outputs(), step.fault)
        self._on(step.again.click, self._again, [step.which, step.seed, step.file], [self.walk, *self.run.outputs()], step.again_fault)
        self._on(
            step.take.click, self._edit_hinted, [], [self.walk, self.frames.number, self.frames.take, *self.frames.outputs()], step.fault
        )

    def _wire_page(self) -> None:
        everything = [self.walk, *self._outputs()]
        for button, steps in ((self.undo, 1), (self.redo, -1)):
            at = [self.region.at]
            self._on(button.click, lambda name, frame, steps=steps: self._stepped(name, steps, frame), at, everything, self.fault)
            button.click(None, js=FORGET)
        self._on(self.halt.click, self._halted, [], self.run.outputs(), self.fault)
        for number, tab in enumerate(self.tabs):
            step = self.steps[number]
            at = [step.at] if number in (CLIP, REGION, FRAMES) else []
            self._on(tab.select, lambda name, *at, number=number: self._shown(name, number, *at), at, step.outputs(), self.fault)
        tick = guarded(self.office, self.ticked, self.fault)
        news = [self.seen, *self._state(), *self.run.outputs(), self.region.saved, self.settings.needs, self.fault]
        self.timer.tick(tick, [self.name, self.seen], news, show_progress="hidden", api_visibility="private")
        opened = guarded(self.office, self.opened, self.clip.fault)
        begun = [self.walk, *self._state(), self.name, self.clip.fault]
        last = self.blocks.load(opened, None, begun, show_progress="hidden", api_visibility="private")
        quick = guarded(self.office, lambda name: self.restored(name, QUICKLY_SHOWN), self.fault)
        last = last.then(quick, self.name, [*self._outputs(QUICKLY_SHOWN), self.fault], show_progress="hidden", api_visibility="private")
        self._on(last.then, lambda name: self.restored(name, SLOWLY_SHOWN), [], self._outputs(SLOWLY_SHOWN), self.fault)
        self.name.change(None, self.name, None, js=REMEMBER)

    def _to(self, button: Any, number: int, fault: Any, keep: Callable[..., Updates] | None = None, fields: Sequence[Any] = ()) -> None:
        """The button leads to a step; `keep` keeps what stands in the `fields` first, typed just now or not."""

        def gone(name: str, *values: Any) -> Updates:
            return {**({} if keep is None else keep(name, *values)), **self._gone(name, number)}

        here = next(step for step in self.steps if step.next is button)
        self._on(button.click, gone, [*fields], [self.walk, *(here.outputs() if keep else ()), *self.steps[number].outputs()], fault)

    def _gone(self, name: str, number: int) -> Updates:
        """On to a step, when the ones before it are done."""
        folder = self.office.open(name)
        if number > REGION:
            self.region.check_followed(folder)
        if number > FRAMES and not folder.now().first_frame:
            raise InputError("the edited first frame is missing; download the first frame, edit it, and drop it here")
        return {**self.steps[number].show(folder), self.walk: gr.Tabs(selected=number)}

    def _halted(self, name: str) -> Updates:
        """Stop whatever this project is having done."""
        self.office.quick.stop(name)
        self.office.hands.stop(name)
        return self.run.stopped(name)

    def _shown(self, name: str, number: int, *at: int) -> Updates:
        """A step that is come to. Its fields are as they were left: what is typed in them by now is not overwritten."""
        step = self.steps[number]
        show = getattr(step, "revisited", step.show)
        return show(self.office.open(name), *at) if name else {}

    def _dropped(self, name: str, file: str | None) -> Updates:
        """A clip: all that was there of another one is gone from every step."""
        answer = self.clip.dropped(name, file)
        name = answer.get(self.name, name)
        return {**self._everything(self.office.open(name)), **answer} if answer else {}

    def _stepped(self, name: str, steps: int, frame: int) -> Updates:
        """Undo or redo, at the step where it is seen; the region stays at its frame."""
        folder = self.office.open(name)
        self.region.cancel(folder)
        before, after = folder.now(), folder.step_back(steps)
        change = change_between(before, after)
        jump = {self.walk: gr.Tabs(selected=change.step)} if change else {}
        return {**self._everything(folder), **self.region.show(folder, frame), **jump}

    def _outputs(self, steps: Sequence[int] = tuple(range(len(NAMES)))) -> list[Any]:
        """What these steps may change."""
        return [each for number in steps for each in self.steps[number].outputs()]

    def _everything(self, folder: Folder) -> Updates:
        return {key: value for step in self.steps for key, value in step.show(folder).items()}

    def _again(self, name: str, number: int | None, seed: float | None, file: str | None) -> Updates:
        self.result.started(name, number, seed, file)
        return self._gone(name, RUN)

    def _edit_hinted(self, name: str) -> Updates:
        return {**self._gone(name, FRAMES), **self.frames.suggested(name)}

    def ticked(self, name: str, seen: str) -> Updates:
        """News of a running job, if there are any."""
        if not name:
            return {self.timer: gr.Timer(active=False)}
        folder = self.office.open(name)
        now = repr([name, *((job.kind, job.state, job.stage, job.done, job.looks) for job in self._jobs(folder))])
        if now == seen:
            return {}
        made = {**self.region.filmed(folder), **self.settings.estimated(folder)}
        return {self.seen: now, **self.run.show(folder), **made, **self.state(folder)}

    def opened(self, request: gr.Request) -> Updates:
        """The project that the page's address names, as far as it is; a running job is found again."""
        name = request.query_params.get("project", "")
        try:
            folder = self.office.open(name)
        except InputError as error:
            return {self.status: said(NOTHING), **({self.clip.fault: said(str(error), "fault")} if name else {})}
        at = gr.Tabs(selected=furthest(self.office, folder))
        return {**self.state(folder), self.name: name, self.walk: at, self.status: said(OPENING)}

    def restored(self, name: str, steps: Sequence[int]) -> Updates:
        """Some steps of a project that was just opened."""
        folder = self.office.open(name) if name else None
        return {key: value for step in steps for key, value in self.steps[step].show(folder).items()} if folder else {}


def open_steps(folder: Folder, project: Project) -> int:
    """The last step that can be gone to; going back closes none."""
    if folder.made():
        return RESULT
    return RUN if project.first_frame else FRAMES if project.clip else CLIP


def _named(verb: str, change: Change | None) -> Any:
    """The button that undoes or redoes a change; it says which."""
    return gr.Button(f"{verb}: {change.words}" if change else verb, interactive=change is not None)


def furthest(office: Office, folder: Folder) -> int:
    """The step that a project is at."""
    project, job = folder.now(), office.device.newest(folder.id)
    if job is not None and job.kind != "estimate" and not job.over:
        return RUN
    if unfinished_of(folder, project):
        return RUN
    if made := folder.made():
        return RUN if outdated(made[-1].state, project) else RESULT
    if job is not None and job.kind != "estimate":
        return RUN
    return SETTINGS if project.first_frame else REGION if project.clip else CLIP


def make_page(folder: Path, threads: int | None = None) -> Page:
    """The page over the projects in a folder; jobs compute with so many threads, or as many as there are free cores."""
    return Page(Office(Shelf(folder.absolute()), Desk(threads), Desk(threads)))
