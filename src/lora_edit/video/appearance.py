"""How an object looks in one picture: what later pictures are compared with, whole and by key points."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array, Float64Array, UInt8Array
from lora_edit.video.alignment import Fit, Patch, compose_affine, invert_affine

EXTENTS = (20.0, 48.0)
"""Samples across the object when it is aligned roughly, and finely."""


class Appearance:
    """The object as one picture shows it, which lies at `matrix` from the key picture."""

    def __init__(self, image: Float32Array, mask: BoolArray, matrix: Float64Array, score_weight: float) -> None:
        self.matrix, self._back, self.share = matrix, invert_affine(matrix), score_weight
        self.rough, self.fine = (Patch(image, mask, extent) for extent in EXTENTS)

    def score(self, patch: Patch, blurred_image: Float32Array, guess: Float64Array) -> float:
        """How well the object agrees with a picture under a map from the key picture."""
        return self.share * patch.score(blurred_image, compose_affine(guess, self._back))

    def fit(self, patch: Patch, blurred_image: Float32Array, guess: Float64Array, iterations: int, translation_only: bool = False) -> Fit:
        """The map from the key picture near a guess."""
        fit = patch.fit(blurred_image, compose_affine(guess, self._back), iterations, translation_only)
        return Fit(compose_affine(fit.matrix, self.matrix), self.share * fit.score)

    def update_light_and_trust(self, image: Float32Array, matrix: Float64Array, update_rate: float) -> None:
        """Light and trust, as the picture tells them."""
        for patch in (self.rough, self.fine):
            patch.update_light_and_trust(patch.blur_image(image), compose_affine(matrix, self._back), update_rate)

    def find_visible_pixels(self, image: Float32Array, matrix: Float64Array) -> UInt8Array:
        """Where the picture shows the object as it looked, `[h, w]`."""
        there = compose_affine(matrix, self._back)
        alike = self.fine.compute_agreement(self.fine.blur_image(image), there) > 0.4
        at: Float64Array = there[:, :2] @ self.fine.points.compress(alike, axis=1) + there[:, 2:]
        places = np.rint(at).astype(int)
        height, width = image.shape[:2]
        shown = np.zeros((height, width), np.uint8)
        shown[places[1].clip(0, height - 1), places[0].clip(0, width - 1)] = 1
        side = 2 * int(self.fine.step * np.sqrt(np.linalg.det(matrix[:, :2]))) + 1
        whole = cv2.morphologyEx(shown, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
        return np.asarray(cv2.erode(whole, np.ones((3, 3), np.uint8)), np.uint8)


class KeyPointMatcher:
    """An object's key points (SIFT), and the maps by which a picture shows them."""

    def __init__(self, grey: UInt8Array, mask: BoolArray) -> None:
        self._sift = cv2.SIFT.create(600, contrastThreshold=0.02)
        points, self._looks = self._sift.detectAndCompute(grey, mask.view(np.uint8))
        self._places = np.array([point.pt for point in points], np.float32)

    def match(self, grey: UInt8Array) -> list[Float64Array]:
        """At most one map."""
        if len(self._places) < 6:
            return []
        points, looks = self._sift.detectAndCompute(grey, None)
        if len(points) < 6:
            return []
        pairs = cv2.BFMatcher().knnMatch(self._looks, looks, 2)
        good = [first for first, second in pairs if first.distance < 0.8 * second.distance]
        if len(good) < 6:
            return []
        old = self._places[[match.queryIdx for match in good]]
        new = np.array([points[match.trainIdx].pt for match in good], np.float32)
        matrix, kept = cv2.estimateAffinePartial2D(old, new, ransacReprojThreshold=3.0)
        return [] if matrix is None or kept.sum() < 6 else [np.asarray(matrix, np.float64)]
