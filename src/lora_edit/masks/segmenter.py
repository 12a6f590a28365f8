"""The common interface of segmenters: from prompts in some frames to the object's mask in every frame.

Prompts are clicks and boxes in source pixels, each at a frame and for an object. The first prompt of an object defines it. Clicks at
further frames correct the mask there and in the frames propagated from there. A frame between two prompted ones is propagated from
the nearer one. Frames in which an object is hidden or lost are empty, and the mask's notes list them.
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
from lora_edit.types import Box, EditMask, OnFrame, Size


@dataclass(frozen=True)
class Click:
    """A point in source pixels at `frame`, on the object `name` or off it."""

    x: float
    y: float
    is_positive: bool = True
    frame: int = 0
    name: str = "1"


Prompt = Click | KeyframeBox
"""A click or a box. A box without a frame number applies to frame 0."""


class Segmenter(Protocol):
    """Segments objects through a clip. Frames are `[T, H, W, 3]` uint8. Both methods raise `MaskError` for prompts that do not fit them."""

    def segment(self, frames: torch.Tensor, prompts: Sequence[Prompt], on_frame: OnFrame | None = None) -> dict[str, EditMask]:
        """Return every prompted object's mask over the whole clip, by name in the order of the prompts."""
        ...

    def segment_frame(self, frames: torch.Tensor, prompts: Sequence[Prompt], frame: int) -> torch.Tensor:
        """Return one object's mask `[H, W]` bool at `frame`, as a preview before the rest of the clip is segmented. All prompts belong
        to that object."""
        ...


@dataclass(frozen=True)
class FramePrompts:
    """One object's prompts on one frame: the box or None, and points (x, y) on the object and off it."""

    frame: int
    box: Box | None
    positive_points: tuple[tuple[float, float], ...]
    negative_points: tuple[tuple[float, float], ...]


def get_prompt_frame(prompt: Prompt) -> int:
    """Return the frame of a prompt."""
    return prompt.frame or 0


def group_by_object(prompts: Sequence[Prompt]) -> dict[str, list[FramePrompts]]:
    """Group prompts by object and frame, in the order in which objects and frames were first prompted. The last box of a frame applies."""
    objects: dict[str, dict[int, list[Prompt]]] = {}
    for prompt in prompts:
        objects.setdefault(prompt.name, {}).setdefault(get_prompt_frame(prompt), []).append(prompt)
    return {
        name: [_merge_frame_prompts(frame, frame_prompts) for frame, frame_prompts in frames.items()] for name, frames in objects.items()
    }


def _merge_frame_prompts(frame: int, prompts: list[Prompt]) -> FramePrompts:
    boxes = [prompt.box for prompt in prompts if isinstance(prompt, KeyframeBox)]
    clicks = [prompt for prompt in prompts if isinstance(prompt, Click)]
    positive_points, negative_points = (
        tuple((click.x, click.y) for click in clicks if click.is_positive == is_positive) for is_positive in (True, False)
    )
    return FramePrompts(frame, boxes[-1] if boxes else None, positive_points, negative_points)


def check_prompts(prompts: Sequence[Prompt], num_frames: int, size: Size) -> None:
    """Raise `MaskError` for a prompt outside the frame or the clip, and for an object whose first prompts do not locate it."""
    if not prompts:
        raise MaskError("nothing is marked; give a point on the object, or a box around it, in pixels of the source")
    for prompt in prompts:
        description = _describe_prompt(prompt)
        if not 0 <= get_prompt_frame(prompt) < num_frames:
            raise MaskError(f"{description}: the clip has frames 0 to {num_frames - 1}; give a frame number in that range")
        if not _is_within_frame(prompt, size):
            raise MaskError(f"{description}: outside the frame, which is {size}; give pixels of the source, counted from the top left")
    for name, frame_prompts in group_by_object(prompts).items():
        if frame_prompts[0].box is None and not frame_prompts[0].positive_points:
            raise MaskError(
                f"object {name}: no click is on it yet at frame {frame_prompts[0].frame}; click on it first, then beside it to correct"
            )


def _describe_prompt(prompt: Prompt) -> str:
    if isinstance(prompt, Click):
        return f"point {prompt.x:g},{prompt.y:g} at frame {prompt.frame}"
    box = prompt.box
    return f"box {box.left:g},{box.top:g},{box.width:g},{box.height:g} at frame {get_prompt_frame(prompt)}"


def _is_within_frame(prompt: Prompt, size: Size) -> bool:
    if isinstance(prompt, Click):
        return 0 <= prompt.x < size.width and 0 <= prompt.y < size.height
    box = prompt.box
    is_valid = all(map(math.isfinite, (box.left, box.top, box.width, box.height))) and box.width > 0 and box.height > 0
    return is_valid and box.left < size.width and box.top < size.height and box.right > 0 and box.bottom > 0


def describe_lost_frames(name: str, frames: torch.Tensor) -> tuple[str, ...]:
    """Return a note on the frames of `[T, H, W]` bool in which an object is missing."""
    empty = torch.nonzero(~frames.flatten(1).any(1)).flatten().tolist()
    if not empty:
        return ()
    return (
        f"object {name} is hidden or lost in frames {format_ranges(empty)}: nothing is marked there; if it is in sight, mark it "
        f"in one of them",
    )
