"""When the device's memory runs out in the middle: take one notch more off it, say so, and do the work again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from lora_edit.config import EditSettings
from lora_edit.devices import empty_device_cache, pick_device
from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.locate import get_short_window
from lora_edit.models.family import Family
from lora_edit.models.runtime.offload_plan import reduce_memory

WorkResult = TypeVar("WorkResult")


def retry_with_less_memory(
    family: Family, settings: EditSettings, work: Callable[[EditSettings], WorkResult], on_note: Callable[[str], None]
) -> WorkResult:
    """What `work` returns; each time that memory runs out it is called again, with more of the family in main memory, and at last with
    the model's short training windows (appendix C). `work` has to take up what it saved. Raises `ModelError` when no notch is left.
    """
    while True:
        try:
            return work(settings)
        except torch.OutOfMemoryError:
            pass  # what the failed call held is let go with its frames, before anything is moved
        empty_device_cache(pick_device())
        window = get_short_window(settings.model)
        if said := reduce_memory(family):
            on_note(f"the device's memory ran out; going on with less there: {said}")
        elif window is not None and settings.training.window != window:
            settings = settings.model_copy(update={"training": settings.training.model_copy(update={"window": window})})
            on_note(f"the device's memory ran out; going on with windows of {window} frames")
        else:
            short = "" if window is None else f" and {window} frames at a time"
            raise ModelError(
                f"{settings.model}: the device's memory does not suffice, with all blocks in main memory{short}; "
                "choose a smaller model (`lora-edit models`) or free the device of other programs"
            )
