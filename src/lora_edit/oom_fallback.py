"""When the device's memory runs out in the middle: take one notch more off it, say so, and do the work again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from lora_edit.config import EditSettings
from lora_edit.devices import empty_device_cache, pick_device
from lora_edit.errors import ModelError
from lora_edit.models.family import Family
from lora_edit.models.runtime.offload_plan import reduce_memory

WorkResult = TypeVar("WorkResult")


def retry_with_less_memory(
    family: Family,
    settings: EditSettings,
    work: Callable[[EditSettings], WorkResult],
    on_note: Callable[[str], None],
    short_window: int | None = None,
) -> WorkResult:
    """Return what `work` returns. Each time the device's memory runs out, move more of the family to main memory and call it again.

    When all of it has moved, training windows are shortened to `short_window` frames (paper, appendix C; None where that cannot help).
    `work` must continue from what it saved. Raises `ModelError` when nothing is left to reduce.
    """
    while True:
        try:
            return work(settings)
        except torch.OutOfMemoryError:
            pass  # The failed call's tensors are freed with its stack frames, before anything is moved.
        empty_device_cache(pick_device())
        if reduction := reduce_memory(family):
            on_note(f"the device's memory ran out; going on with less there: {reduction}")
        elif short_window is not None and settings.training.window != short_window:
            settings = settings.model_copy(update={"training": settings.training.model_copy(update={"window": short_window})})
            on_note(f"the device's memory ran out; going on with windows of {short_window} frames")
        else:
            short = "" if short_window is None else f" and {short_window} frames at a time"
            raise ModelError(
                f"{settings.model}: the device's memory does not suffice, with all blocks in main memory{short}; "
                "choose a smaller model (`lora-edit models`) or free the device of other programs"
            )
