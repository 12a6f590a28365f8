"""What is different between two states of a project, in words: for undo, and for results that were made from an earlier state."""

from __future__ import annotations

from dataclasses import dataclass

from lora_edit.ui.projects import EditedFrame, ProjectState

CLIP, REGION, FRAMES, SETTINGS, RUN, RESULT = 0, 1, 2, 3, 4, 5
"""The page's steps, in order."""

FIELD_LABELS: dict[str, tuple[str, int]] = {
    "clip": ("clip", CLIP),
    "clip_name": ("clip", CLIP),
    "start": ("trim", CLIP),
    "frames": ("trim", CLIP),
    "first_frame": ("edited first frame", FRAMES),
    "later": ("edited later frame", FRAMES),
    "marks": ("mark", REGION),
    "imported": ("mask", REGION),
    "imported_use": ("use of the mask", REGION),
    "left_out": ("objects that stay", REGION),
    "grown": ("growth", REGION),
    "inverted": ("inversion", REGION),
    "smooth": ("steadiness", REGION),
    "bridged": ("bridging", REGION),
    "shape": ("shape", REGION),
    "expand": ("room around it", REGION),
    "feather": ("soft edge", REGION),
    "model": ("model", SETTINGS),
    "preset": ("preset", SETTINGS),
    "prompt": ("prompt", SETTINGS),
    "seed": ("seed", SETTINGS),
    "assignments": ("setting", SETTINGS),
}
"""Every field of a project: what a change of it is called, and the step that it is made in. Where several fields change at once, the first
one gives the change its name."""

STEP_LABELS = {CLIP: "the clip", REGION: "the region", FRAMES: "the edited frames", SETTINGS: "the settings"}


@dataclass(frozen=True)
class Change:
    """What a change is called, and the step that it is made in."""

    label: str
    step: int


def find_changed_fields(before: ProjectState, after: ProjectState) -> list[str]:
    """The fields that differ, in the order of `FIELDS`."""
    return [name for name in FIELD_LABELS if getattr(before, name) != getattr(after, name)]


def find_change(before: ProjectState | None, after: ProjectState | None) -> Change | None:
    """The change from one state to the next, or back; None where there is no other state."""
    if before is None or after is None:
        return None
    fields = find_changed_fields(before, after)
    return Change(*FIELD_LABELS[fields[0]]) if fields else None


def describe_outdated(result_state: ProjectState | None, state: ProjectState) -> str:
    """What to say of a result that was made from another state than the present one; nothing where it shows what is on the page."""
    if result_state is None:
        return ""
    steps = sorted({FIELD_LABELS[name][1] for name in find_changed_fields(result_state, state) if name != "clip_name"})
    if not steps:
        return ""
    parts = [STEP_LABELS[step] for step in steps]
    words = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"This result is from before {words} changed; train and generate again to bring it up to date."


def trim_state(state: ProjectState, start: int, frames: int | None) -> ProjectState:
    """The project with another range of its clip. Marks and edited frames stay on the frames that they were made for; outside of the range
    they wait until it holds them again, with negative numbers where they lie before it."""
    by = state.start - start
    marks = [mark.model_copy(update={"frame": mark.frame + by}) for mark in state.marks]
    first = [EditedFrame(frame=0, file=state.first_frame)] if state.first_frame else []
    edited = {each.frame + by: each.model_copy(update={"frame": each.frame + by}) for each in [*state.later, *first]}
    shown = edited.pop(0, None)
    later = [edited[number] for number in sorted(edited)]
    return state.replace_fields(start=start, frames=frames, marks=marks, first_frame=shown.file if shown else "", later=later)


def describe_trim(before: ProjectState, after: ProjectState, num_frames: int) -> list[str]:
    """What a trimmed project has to say, where the range has `num_frames` frames now."""
    remarks = []
    if away := sum(not 0 <= mark.frame < num_frames for mark in after.marks):
        remarks.append(f"{away} mark{'s are' if away > 1 else ' is'} outside of the range now, and kept for when it is longer again.")
    if before.first_frame and not after.first_frame:
        remarks.append("The clip starts with another frame now: edit this first frame, too. Marks moved along with their frames.")
    return remarks
