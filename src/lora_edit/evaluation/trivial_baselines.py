"""Two trivial results that score well; every table of similarities should include both.

An unedited copy of the source has an input similarity of 1, a perfect background and the source's own DeQA score. The edited first
frame, repeated for the length of the clip, has a CLIP score of 1 and no flicker. An edit is useful where it beats both at once.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lora_edit.evaluation.checks import require_same_shape
from lora_edit.types import Video


def copy_source(source: Video) -> Video:
    """Copy the source as a result, without sound and alpha, as measured results have neither."""
    return replace(source, frames=source.frames.clone(), alpha=None, has_sound=False)


def repeat_first_frame(source: Video, edited_first: torch.Tensor) -> Video:
    """Repeat the edited first frame, uint8 `[H, W, 3]`, at the source's times. Raises `VideoError` when their sizes differ."""
    require_same_shape(source.frames[:1], edited_first[None], "edited first frame")
    return replace(source, frames=edited_first.repeat(source.num_frames, 1, 1, 1), alpha=None, has_sound=False)


def build_trivial_baselines(source: Video, edited_first: torch.Tensor) -> dict[str, Video]:
    """Build both results, by the labels of their rows."""
    return {"unedited copy": copy_source(source), "frozen first frame": repeat_first_frame(source, edited_first)}
