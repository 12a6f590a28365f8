"""Appearance of an object in one image, for comparison with later images: as aligned patches and as key points."""

from __future__ import annotations

import cv2
import numpy as np

from lora_edit.types import BoolArray, Float32Array, Float64Array, UInt8Array
from lora_edit.video.alignment import Fit, Patch, compose_affine, invert_affine

EXTENTS = (20.0, 48.0)
"""Samples across the object in the coarse and in the fine alignment."""


class Appearance:
    """The object's appearance in one image.

    `matrix` maps the key image to this image. `score_weight` scales the scores of this appearance.
    """

    def __init__(self, image: Float32Array, mask: BoolArray, matrix: Float64Array, score_weight: float) -> None:
        self.matrix, self._inverse, self.score_weight = matrix, invert_affine(matrix), score_weight
        self.coarse, self.fine = (Patch(image, mask, extent) for extent in EXTENTS)

    def score(self, patch: Patch, blurred_image: Float32Array, guess: Float64Array) -> float:
        """Score a map from the key image to a blurred image."""
        return self.score_weight * patch.score(blurred_image, compose_affine(guess, self._inverse))

    def fit(self, patch: Patch, blurred_image: Float32Array, guess: Float64Array, iterations: int, translation_only: bool = False) -> Fit:
        """Fit the map from the key image to a blurred image, near a guess."""
        fit = patch.fit(blurred_image, compose_affine(guess, self._inverse), iterations, translation_only)
        return Fit(compose_affine(fit.matrix, self.matrix), self.score_weight * fit.score)

    def update_light_and_trust(self, image: Float32Array, matrix: Float64Array, update_rate: float) -> None:
        """Update light and trust of both patches from an image."""
        for patch in (self.coarse, self.fine):
            patch.update_light_and_trust(patch.blur_image(image), compose_affine(matrix, self._inverse), update_rate)

    def find_visible_pixels(self, image: Float32Array, matrix: Float64Array) -> UInt8Array:
        """Mask `[h, w]` of the pixels where the image shows the object with this appearance."""
        patch_to_image = compose_affine(matrix, self._inverse)
        visible = self.fine.compute_agreement(self.fine.blur_image(image), patch_to_image) > 0.4
        positions: Float64Array = patch_to_image[:, :2] @ self.fine.points.compress(visible, axis=1) + patch_to_image[:, 2:]
        pixels = np.rint(positions).astype(int)
        height, width = image.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        mask[pixels[1].clip(0, height - 1), pixels[0].clip(0, width - 1)] = 1
        side = 2 * int(self.fine.spacing * np.sqrt(np.linalg.det(matrix[:, :2]))) + 1
        closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
        return np.asarray(cv2.erode(closed, np.ones((3, 3), np.uint8)), np.uint8)


class KeyPointMatcher:
    """Matcher of an object's key points (SIFT) with those of other images."""

    def __init__(self, grey: UInt8Array, mask: BoolArray) -> None:
        self._sift = cv2.SIFT.create(600, contrastThreshold=0.02)
        points, self._descriptors = self._sift.detectAndCompute(grey, mask.view(np.uint8))
        self._positions = np.array([point.pt for point in points], np.float32)

    def match(self, grey: UInt8Array) -> list[Float64Array]:
        """Estimate the map from the key image by matching key points; a list of at most one map."""
        if len(self._positions) < 6:
            return []
        points, descriptors = self._sift.detectAndCompute(grey, None)
        if len(points) < 6:
            return []
        pairs = cv2.BFMatcher().knnMatch(self._descriptors, descriptors, 2)
        matches = [first for first, second in pairs if first.distance < 0.8 * second.distance]
        if len(matches) < 6:
            return []
        key_positions = self._positions[[match.queryIdx for match in matches]]
        positions = np.array([points[match.trainIdx].pt for match in matches], np.float32)
        matrix, inliers = cv2.estimateAffinePartial2D(key_positions, positions, ransacReprojThreshold=3.0)
        return [] if matrix is None or inliers.sum() < 6 else [np.asarray(matrix, np.float64)]
