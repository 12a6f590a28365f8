"""Segmenters behind one interface: what a person points at in some frames, outlined in every frame.

Prompts are clicks and boxes in source pixels, each at a frame and for an object. The first prompt of an object says what it is; clicks at
further frames correct what was found there, and what follows from there. A frame between two prompted ones goes by the nearer one. Where
an object is hidden or lost its frames are empty, and the mask's notes say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from lora_edit.errors import MaskError
from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.files import format_ranges
from lora_edit.types import EditMask, OnFrame, Size


@dataclass(frozen=True)
class Click:
    """A point in source pixels at `frame`: on the object `name`, or off it."""

    x: float
    y: float
    is_positive: bool = True
    frame: int = 0
    name: str = "1"


Prompt = Click | KeyframeBox
"""A box without a frame number stands in frame 0."""


class Segmenter(Protocol):
    """Outlines objects through a clip. Frames are `[T, H, W, 3]` uint8; both verbs raise `MaskError` for prompts that do not fit them."""

    def segment(self, frames: torch.Tensor, prompts: Sequence[Prompt], on_frame: OnFrame | None = None) -> dict[str, EditMask]:
        """Every prompted object's mask over the whole clip, by name in the order of the prompts."""
        ...

    def segment_frame(self, frames: torch.Tensor, prompts: Sequence[Prompt], frame: int) -> torch.Tensor:
        """One object's mask `[H, W]` bool at `frame`, to be shown before the rest of the clip is done; all prompts are that object's."""
        ...


@dataclass(frozen=True)
class FramePrompts:
    """What is marked of one object on one frame: the box (left, top, right, bottom) or None, points (x, y) on the object and off it."""

    frame: int
    box: tuple[float, float, float, float] | None
    positive_points: tuple[tuple[float, float], ...]
    negative_points: tuple[tuple[float, float], ...]


def get_prompt_frame(prompt: Prompt) -> int:
    """The frame that a prompt stands in."""
    return prompt.frame or 0


def group_by_object(prompts: Sequence[Prompt]) -> dict[str, list[FramePrompts]]:
    """Every object's prompted frames, objects and frames in the order in which they were first prompted; a frame's last box counts."""
    names: dict[str, dict[int, list[Prompt]]] = {}
    for prompt in prompts:
        names.setdefault(prompt.name, {}).setdefault(get_prompt_frame(prompt), []).append(prompt)
    return {name: [_merge_frame_prompts(frame, here) for frame, here in frames.items()] for name, frames in names.items()}


def _merge_frame_prompts(frame: int, prompts: list[Prompt]) -> FramePrompts:
    boxes = [prompt.box for prompt in prompts if isinstance(prompt, KeyframeBox)]
    clicks = [prompt for prompt in prompts if isinstance(prompt, Click)]
    on, off = (tuple((click.x, click.y) for click in clicks if click.is_positive == wanted) for wanted in (True, False))
    edges = [(box.left, box.top, box.left + box.width, box.top + box.height) for box in boxes]
    return FramePrompts(frame, edges[-1] if edges else None, on, off)


def check_prompts(prompts: Sequence[Prompt], num_frames: int, size: Size) -> None:
    """Raises `MaskError` for a prompt outside the frame or the clip, and for an object whose first prompts do not say where it is."""
    if not prompts:
        raise MaskError("nothing is marked; give a point on the object, or a box around it, in pixels of the source")
    for prompt in prompts:
        words = _describe_prompt(prompt)
        if not 0 <= get_prompt_frame(prompt) < num_frames:
            raise MaskError(f"{words}: the clip has frames 0 to {num_frames - 1}; give a frame number in that range")
        if not _is_within_frame(prompt, size):
            raise MaskError(f"{words}: outside the frame, which is {size}; give pixels of the source, counted from the top left")
    for name, marked in group_by_object(prompts).items():
        if marked[0].box is None and not marked[0].positive_points:
            raise MaskError(
                f"object {name}: no click is on it yet at frame {marked[0].frame}; click on it first, then beside it to correct"
            )


def _describe_prompt(prompt: Prompt) -> str:
    if isinstance(prompt, Click):
        return f"point {prompt.x:g},{prompt.y:g} at frame {prompt.frame}"
    box = prompt.box
    return f"box {box.left:g},{box.top:g},{box.width:g},{box.height:g} at frame {get_prompt_frame(prompt)}"


def _is_within_frame(prompt: Prompt, size: Size) -> bool:
    if isinstance(prompt, Click):
        return 0 <= prompt.x < size.width and 0 <= prompt.y < size.height
    left, top, width, height = prompt.box.left, prompt.box.top, prompt.box.width, prompt.box.height
    shown = all(map(math.isfinite, (left, top, width, height))) and width > 0 and height > 0
    return shown and left < size.width and top < size.height and left + width > 0 and top + height > 0


def describe_lost_frames(name: str, frames: torch.Tensor) -> tuple[str, ...]:
    """A remark on the frames of `[T, H, W]` bool in which an object is nowhere."""
    empty = torch.nonzero(~frames.flatten(1).any(1)).flatten().tolist()
    if not empty:
        return ()
    return (
        f"object {name} is hidden or lost in frames {format_ranges(empty)}: nothing is marked there; if it is in sight, mark it "
        f"in one of them",
    )
