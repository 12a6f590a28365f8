"""The motion of what an object moves in front of, as one affine map from a key picture."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array, Float64Array, UInt8Array
from lora_edit.video.alignment import Patch, inverted, joined
from lora_edit.video.flow import corners, tracked

EXTENTS = (24.0, 64.0)
"""Samples across the ground when it is aligned roughly, and finely."""

CORNERS = 200
"""Corners followed from picture to picture."""

STILL = (0.01, 0.25)
"""By how much of agreement, and by which share of the disagreement, a motion has to be better than none."""


class CameraTracker:
    """The ground `mask` of a key picture `[h, w, 3]`, 0..255, followed from picture to picture."""

    def __init__(self, key: Float32Array, mask: BoolArray) -> None:
        mask = mask if mask.sum() > 0.05 * mask.size else np.ones_like(mask)
        self.patches = [Patch(key, mask, extent, rim=0, may_leave=True) for extent in EXTENTS]
        self.matrix = np.eye(2, 3)
        self._before: UInt8Array | None = None

    @property
    def light(self) -> tuple[Float32Array, Float32Array]:
        """Factor and shift `[3]` of the last picture beside the key picture's."""
        return self.patches[1].light

    def follow(self, picture: Float32Array, grey: UInt8Array) -> Float64Array:
        """The map from the next picture to the key picture."""
        guesses = [self.matrix, np.eye(2, 3)]
        if self._before is not None:
            guesses += self._by_corners(grey)
        rough, fine = self.patches
        soft = rough.softened(picture)
        best = max((rough.fit(soft, guess, rounds=5) for guess in guesses), key=lambda fit: fit.score)
        soft = fine.softened(picture)
        found = fine.fit(soft, best.matrix, rounds=5)
        still = fine.score(soft, self.matrix)
        self.matrix = found.matrix if found.score > still + STILL[0] + STILL[1] * (1 - still) else self.matrix
        for patch in self.patches:
            patch.remember(patch.softened(picture), self.matrix, 0.1)
        self._before = grey
        return inverted(self.matrix)

    def _by_corners(self, grey: UInt8Array) -> list[Float64Array]:
        assert self._before is not None
        old = corners(self._before, CORNERS, 8.0)
        if len(old) < 6:
            return []
        new, sure = tracked(self._before, grey, old, old)
        if sure.sum() < 6:
            return []
        moved, _ = cv2.estimateAffinePartial2D(old[sure], new[sure], ransacReprojThreshold=1.5)
        return [] if moved is None else [joined(np.asarray(moved, np.float64), self.matrix)]
