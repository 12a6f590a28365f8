"""The motion of what an object moves in front of, as one affine map from a key picture."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array, Float64Array, UInt8Array
from lora_edit.video.alignment import Patch, compose_affine, invert_affine
from lora_edit.video.flow import detect_corners, track_points

EXTENTS = (24.0, 64.0)
"""Samples across the ground when it is aligned roughly, and finely."""

MAX_CORNERS = 200
"""Corners followed from picture to picture."""

MIN_SCORE_GAIN = (0.01, 0.25)
"""By how much of agreement, and by which share of the disagreement, a motion has to be better than none."""


class CameraTracker:
    """The ground `mask` of a key picture `[h, w, 3]`, 0..255, followed from picture to picture."""

    def __init__(self, key_image: Float32Array, mask: BoolArray) -> None:
        mask = mask if mask.sum() > 0.05 * mask.size else np.ones_like(mask)
        self.patches = [Patch(key_image, mask, extent, margin=0, may_leave_frame=True) for extent in EXTENTS]
        self.matrix = np.eye(2, 3)
        self._before: UInt8Array | None = None

    @property
    def light(self) -> tuple[Float32Array, Float32Array]:
        """Factor and shift `[3]` of the last picture beside the key picture's."""
        return self.patches[1].light

    def track(self, image: Float32Array, grey: UInt8Array) -> Float64Array:
        """The map from the next picture to the key picture."""
        guesses = [self.matrix, np.eye(2, 3)]
        if self._before is not None:
            guesses += self._propose_from_corners(grey)
        rough, fine = self.patches
        soft = rough.blur_image(image)
        best = max((rough.fit(soft, guess, iterations=5) for guess in guesses), key=lambda fit: fit.score)
        soft = fine.blur_image(image)
        found = fine.fit(soft, best.matrix, iterations=5)
        still = fine.score(soft, self.matrix)
        self.matrix = found.matrix if found.score > still + MIN_SCORE_GAIN[0] + MIN_SCORE_GAIN[1] * (1 - still) else self.matrix
        for patch in self.patches:
            patch.update_light_and_trust(patch.blur_image(image), self.matrix, 0.1)
        self._before = grey
        return invert_affine(self.matrix)

    def _propose_from_corners(self, grey: UInt8Array) -> list[Float64Array]:
        assert self._before is not None
        old = detect_corners(self._before, MAX_CORNERS, 8.0)
        if len(old) < 6:
            return []
        new, sure = track_points(self._before, grey, old, old)
        if sure.sum() < 6:
            return []
        moved, _ = cv2.estimateAffinePartial2D(old[sure], new[sure], ransacReprojThreshold=1.5)
        return [] if moved is None else [compose_affine(np.asarray(moved, np.float64), self.matrix)]
