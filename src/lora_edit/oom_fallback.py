"""Fallback for a device out of memory: reduce its memory use by one step, report it, and repeat the work."""

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
    """Call `work` and return its result. When memory runs out, call it again with more of the family in main memory.

    The last step shortens training windows to `short_window` frames (paper, appendix C); None skips it. `work` has to resume from its
    checkpoints. `on_note` receives a note on each step. Raises `ModelError` when no step is left.
    """
    family.device_manager.on_note = on_note
    while True:
        try:
            return work(settings)
        except torch.OutOfMemoryError:
            pass  # the tensors of the failed call are freed with its stack frames, before any module moves
        empty_device_cache(pick_device())
        if reduction := reduce_memory(family):
            on_note(f"the device ran out of memory; continuing with less on the device: {reduction}")
        elif short_window is not None and settings.training.window != short_window:
            settings = settings.model_copy(update={"training": settings.training.model_copy(update={"window": short_window})})
            on_note(f"the device ran out of memory; continuing with windows of {short_window} frames")
        else:
            windows = "" if short_window is None else f" and windows of {short_window} frames"
            raise ModelError(
                f"{settings.model}: the memory of the device is too small even with all blocks in main memory{windows}; "
                "choose a smaller model (`lora-edit models`), or end other programs that use the device"
            )
