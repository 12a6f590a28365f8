"""Two results that take no work and score well: every table that shows similarities should show theirs beside them.

An unedited copy of the source has an input similarity of 1, a perfect background and the source's own DeQA score. The edited first
frame, held for the length of the clip, has a CLIP score of 1 and no flicker. An edit is worth something where it beats both at once.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lora_edit.evaluation.checks import require_same_shape
from lora_edit.types import Video


def copy_source(source: Video) -> Video:
    """The source as if it were a result; it has no sound, as results that are measured have none."""
    return replace(source, frames=source.frames.clone(), alpha=None, has_sound=False)


def repeat_first_frame(source: Video, edited_first: torch.Tensor) -> Video:
    """The edited first frame, uint8 `[H, W, 3]`, in every frame of the source's clock. Raises `VideoError` when their sizes differ."""
    require_same_shape(source.frames[:1], edited_first[None], "edited first frame")
    return replace(source, frames=edited_first.repeat(source.num_frames, 1, 1, 1), alpha=None, has_sound=False)


def build_trivial_baselines(source: Video, edited_first: torch.Tensor) -> dict[str, Video]:
    """Both, by the names of their rows."""
    return {"unedited copy": copy_source(source), "frozen first frame": repeat_first_frame(source, edited_first)}
