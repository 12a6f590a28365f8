"""Fallback for a device out of memory: reduce its memory use by one step, report it, and repeat the work."""

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
    """Call `work` and return its result. When memory runs out, call it again with more of the family in main memory.

    The last step is the short training window of the model (appendix C). `work` has to resume from its checkpoints. `on_note` receives
    a note on each step. Raises `ModelError` when no step is left.
    """
    while True:
        try:
            return work(settings)
        except torch.OutOfMemoryError:
            pass  # the tensors of the failed call are freed with its stack frames, before any module moves
        empty_device_cache(pick_device())
        window = get_short_window(settings.model)
        if reduction := reduce_memory(family, pick_device()):
            on_note(f"the device ran out of memory; continuing with less on the device: {reduction}")
        elif window is not None and settings.training.window != window:
            settings = settings.model_copy(update={"training": settings.training.model_copy(update={"window": window})})
            on_note(f"the device ran out of memory; continuing with windows of {window} frames")
        else:
            short_window = "" if window is None else f" and windows of {window} frames"
            raise ModelError(
                f"{settings.model}: the memory of the device is too small even with all blocks in main memory{short_window}; "
                "choose a smaller model (`lora-edit models`), or end other programs that use the device"
            )
