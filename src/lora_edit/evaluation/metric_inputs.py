"""The inputs of a metric: a result and the clips to compare it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from lora_edit.evaluation.checks import require_pixels, require_same_shape
from lora_edit.types import EditMask, Video

T = TypeVar("T")


@dataclass(frozen=True)
class MetricInputs:
    """A result, the source and, where known, the true edit, the mask of the region and the edited first frame `[H, W, 3]` uint8.

    Raises `VideoError` when the clips differ in size or frame count, `MaskError` when the mask does not fit or is empty.
    """

    result: Video
    source: Video
    truth: Video | None = None
    mask: EditMask | None = None
    first_frame: torch.Tensor | None = None
    _cache: dict[str, Any] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_same_shape(self.result.frames, self.source.frames, "source")
        if self.truth is not None:
            require_same_shape(self.result.frames, self.truth.frames, "truth")
        if self.mask is not None:
            require_pixels(self.mask.frames, self.result.frames)

    @property
    def reference(self) -> Video:
        """The clip that the region is compared with: the truth, or the source without one."""
        return self.source if self.truth is None else self.truth

    @property
    def region(self) -> torch.Tensor | None:
        """The region, bool `[T, H, W]`; None for the whole frame."""
        return None if self.mask is None else self.mask.frames

    @property
    def background(self) -> torch.Tensor | None:
        """Everything outside the region, bool `[T, H, W]`; None when the region is the whole frame."""
        return None if self.mask is None or self.mask.frames.all() else ~self.mask.frames

    def share(self, key: str, compute: Callable[[], T]) -> T:
        """Return the value under `key`, computed on first use, for metrics that have an intermediate value in common."""
        if key not in self._cache:
            self._cache[key] = compute()
        value: T = self._cache[key]
        return value
