"""Camera motion: the motion of the background as one affine map from a key image."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array, Float64Array, UInt8Array
from lora_edit.video.alignment import Patch, compose_affine, invert_affine
from lora_edit.video.flow import detect_corners, track_points

EXTENTS = (24.0, 64.0)
"""Samples across the background in the coarse and in the fine alignment."""

MAX_CORNERS = 200
"""Largest number of corners tracked from image to image."""

MIN_SCORE_GAIN = (0.01, 0.25)
"""Gain in score that a new motion needs over the previous one: a constant, plus this share of what the previous score lacks to 1."""


class CameraTracker:
    """Tracker of the background, given by `mask` `[h, w]` in a key image `[h, w, 3]`, 0..255, from image to image."""

    def __init__(self, key_image: Float32Array, mask: BoolArray) -> None:
        mask = mask if mask.sum() > 0.05 * mask.size else np.ones_like(mask)
        self.patches = [Patch(key_image, mask, extent, margin=0, may_leave_frame=True) for extent in EXTENTS]
        self.matrix, self.score = np.eye(2, 3), 1.0  # the score of `matrix` in the last image
        self._previous_grey: UInt8Array | None = None

    @property
    def light(self) -> tuple[Float32Array, Float32Array]:
        """Gain and shift `[3]` from the key image's colours to those of the last image."""
        return self.patches[1].light

    def track(self, image: Float32Array, grey: UInt8Array) -> Float64Array:
        """Track the next image and return the map `[2, 3]` from it to the key image."""
        guesses = [self.matrix, np.eye(2, 3)]
        if self._previous_grey is not None:
            guesses += self._propose_from_corners(grey)
        coarse, fine = self.patches
        blurred = coarse.blur_image(image)
        best = max((coarse.fit(blurred, guess, iterations=5) for guess in guesses), key=lambda fit: fit.score)
        blurred = fine.blur_image(image)
        refined = fine.fit(blurred, best.matrix, iterations=5)
        previous_score = fine.score(blurred, self.matrix)
        is_better = refined.score > previous_score + MIN_SCORE_GAIN[0] + MIN_SCORE_GAIN[1] * (1 - previous_score)
        self.matrix, self.score = (refined.matrix, refined.score) if is_better else (self.matrix, previous_score)
        for patch in self.patches:
            patch.update_light_and_trust(patch.blur_image(image), self.matrix, 0.1)
        self._previous_grey = grey
        return invert_affine(self.matrix)

    def _propose_from_corners(self, grey: UInt8Array) -> list[Float64Array]:
        assert self._previous_grey is not None
        previous_points = detect_corners(self._previous_grey, MAX_CORNERS, 8.0)
        if len(previous_points) < 6:
            return []
        points, is_tracked = track_points(self._previous_grey, grey, previous_points, previous_points)
        if is_tracked.sum() < 6:
            return []
        motion, _ = cv2.estimateAffinePartial2D(previous_points[is_tracked], points[is_tracked], ransacReprojThreshold=1.5)
        return [] if motion is None else [compose_affine(np.asarray(motion, np.float64), self.matrix)]
