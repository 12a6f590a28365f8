"""Differences between two states of a project, in words: for undo, and for results of an earlier state."""

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
"""Label and step of every field of a project, for a change of that field. If several fields change at once, the first in this order
names the change."""

STEP_LABELS = {CLIP: "the clip", REGION: "the region", FRAMES: "the edited frames", SETTINGS: "the settings"}


@dataclass(frozen=True)
class Change:
    """A change of a project: its label, and the step that makes it."""

    label: str
    step: int


def find_changed_fields(before: ProjectState, after: ProjectState) -> list[str]:
    """Return the names of the fields that differ, in the order of `FIELD_LABELS`."""
    return [name for name in FIELD_LABELS if getattr(before, name) != getattr(after, name)]


def find_change(before: ProjectState | None, after: ProjectState | None) -> Change | None:
    """Return the change between two states, in either direction; None if a state is missing or nothing differs."""
    if before is None or after is None:
        return None
    fields = find_changed_fields(before, after)
    return Change(*FIELD_LABELS[fields[0]]) if fields else None


def describe_outdated(result_state: ProjectState | None, state: ProjectState) -> str:
    """Return a warning for a result whose project state differs from the current one; an empty string if it is up to date."""
    if result_state is None:
        return ""
    steps = sorted({FIELD_LABELS[name][1] for name in find_changed_fields(result_state, state) if name != "clip_name"})
    if not steps:
        return ""
    labels = [STEP_LABELS[step] for step in steps]
    parts = " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)
    return f"This result is from before {parts} changed; train and generate again to bring it up to date."


def trim_state(state: ProjectState, start: int, frames: int | None) -> ProjectState:
    """Return the state with another range of its clip.

    Marks and edited frames stay on their source frames. Those outside the range are kept for a later, longer range; frame numbers
    before its start are negative.
    """
    shift = state.start - start
    marks = [mark.model_copy(update={"frame": mark.frame + shift}) for mark in state.marks]
    edited_first = [EditedFrame(frame=0, file=state.first_frame)] if state.first_frame else []
    edited = {each.frame + shift: each.model_copy(update={"frame": each.frame + shift}) for each in [*state.later, *edited_first]}
    first_frame = edited.pop(0, None)
    later = [edited[number] for number in sorted(edited)]
    return state.replace_fields(start=start, frames=frames, marks=marks, first_frame=first_frame.file if first_frame else "", later=later)


def describe_trim(before: ProjectState, after: ProjectState, num_frames: int) -> list[str]:
    """Return notes on a trim to `num_frames` frames: marks outside the range, and a missing edited first frame."""
    notes = []
    if outside := sum(not 0 <= mark.frame < num_frames for mark in after.marks):
        notes.append(f"{outside} mark{'s are' if outside > 1 else ' is'} outside of the range, and kept for a longer range.")
    if before.first_frame and not after.first_frame:
        notes.append("The clip starts with another frame: edit this first frame too. Marks moved with their frames.")
    return notes
