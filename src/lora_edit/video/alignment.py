"""One picture's part put onto another picture by an affine map: Gauss-Newton from the part's own gradients (inverse compositional;
Baker and Matthews 2004), with weights that leave out what something hides (Hager and Belhumeur 1998), in any light.

Maps `[2, 3]` lead from the part's picture to the other one; pixel centres lie at integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import BoolArray, Float32Array, Float64Array, mask_bounds

NOISE_STD_LIMITS = (4.0, 16.0)
"""Least and largest standard deviation, in levels of 255, that differences between aligned pictures are taken to have."""

OUTLIER_THRESHOLD = 3.5
"""Standard deviations from which a pixel shows something else and has no weight."""

SIMILARITY_SCALE = (0.7, 9.0, 20.0)
"""Levels of difference at which a pixel still counts for 1/e as the part's: a share of how much the part's own colours vary, no less and no
more than these."""

RIGIDITY_WEIGHTS = (0.02, 1.0)
"""Strength of the pull toward shift, turn and scale, as a share of the shift's own certainty: parts of little texture say no more. Then the
same for a part that may leave the picture: a ground, that a camera moves."""

MAX_LIGHT_CHANGE = 0.2
"""By how much, as a share, the light may change from one alignment to the next."""

LIGHT_PRIOR_STRENGTHS = (2000.0, 20.0)
"""How strongly the light's factor is tied to what it was, in squared levels, and its shift, in samples."""

SATURATION_LEVEL = 250.0
"""Levels from which a colour may have been brighter."""

MIN_VISIBLE_SHARE = 0.15
"""Share of a part that may leave the picture of which this much has to stay."""


@dataclass(frozen=True)
class Fit:
    """An affine map, and how well the part agrees with the picture there: the share of it that looks alike, in [0, 1]."""

    matrix: Float64Array
    score: float


class Patch:
    """The part `mask` `[h, w]` of a picture `[h, w, 3]`, sampled so that it is about `extent` samples across.

    What leaves the other picture counts against a map, unless it `may_leave`.
    """

    def __init__(self, image: Float32Array, mask: BoolArray, extent: float, margin: float = 2.0, may_leave_frame: bool = False) -> None:
        self.may_leave = may_leave_frame
        self.step = max(1.0, float(np.sqrt(mask.sum())) / extent)
        soft = self.blur_image(image)
        near = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3) <= margin * self.step
        bounds = mask_bounds(near)
        assert bounds is not None, "the mask is empty"
        left, top, right, bottom = bounds
        y, x = np.meshgrid(np.arange(top, bottom, self.step), np.arange(left, right, self.step), indexing="ij")
        whole = np.rint(y).astype(int).clip(0, mask.shape[0] - 1), np.rint(x).astype(int).clip(0, mask.shape[1] - 1)
        keep = near[whole]
        self.points = np.stack([x[keep], y[keep]])
        self._inside = np.flatnonzero(mask[whole][keep])
        self._share = np.where(mask[whole][keep], 1.0, 0.35).astype(np.float32)
        self.trust = np.ones(self.points.shape[1], np.float32)
        self._colours = sample_points(soft, self.points)
        self._alike = np.clip(SIMILARITY_SCALE[0] * self._colours[:, self._inside].std(1).max(), *SIMILARITY_SCALE[1:])
        self._gain, self._shift = np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32)
        self._centre, self._radius = self.points.mean(1), max(1.0, float(self.points.std()))
        local = ((self.points - self._centre[:, None]) / self._radius).astype(np.float32)
        slopes = []
        for axis in (0, 1):
            slope = sample_points(np.asarray(cv2.Sobel(soft, cv2.CV_32F, 1 - axis, axis, scale=0.125)), self.points)
            slopes += [slope * local[0], slope * local[1], slope]
        # [6, 3 * N]: how the colours change with each of a, b, x, c, d, y of the map (1 + a, b, x; c, 1 + d, y).
        self._slopes = np.stack(slopes).reshape(6, -1)

    def blur_image(self, image: Float32Array) -> Float32Array:
        """The picture without what is finer than the samples."""
        return image if self.step < 1.3 else np.asarray(cv2.GaussianBlur(image, (0, 0), 0.45 * self.step), np.float32)

    def fit(self, blurred_image: Float32Array, start: Float64Array, iterations: int = 10, translation_only: bool = False) -> Fit:
        """The map near `start` onto a `softened` picture; of another shift only, where that is asked for."""
        matrix = start
        for _ in range(iterations):
            difference, weight = self._compute_residuals(blurred_image, matrix)
            if weight.sum() < 0.05 * len(weight):
                break
            change = self._solve_update(difference, weight, translation_only)
            matrix = compose_affine(matrix, invert_affine(self._build_matrix(change)))
            if np.abs(change[[2, 5]]).max() < 0.02 * self.step and np.abs(change[[0, 1, 3, 4]]).max() < 0.004:
                break
        return Fit(matrix, self.score(blurred_image, matrix))

    def score(self, blurred_image: Float32Array, matrix: Float64Array) -> float:
        """How well the part agrees with a `softened` picture under a map."""
        share = self.trust * self._share
        alike = self.compute_agreement(blurred_image, matrix)
        seen = float(share[alike >= 0].sum())
        total = max(seen, MIN_VISIBLE_SHARE * share.sum()) if self.may_leave else share.sum()
        return float((np.maximum(alike, 0) * share).sum() / total)

    def compute_agreement(self, blurred_image: Float32Array, matrix: Float64Array) -> Float32Array:
        """Per sample `[N]`, 1 where the part is to be seen in a `softened` picture under a map, 0 where something else is; -1 outside."""
        difference, weight = self._compute_residuals(blurred_image, matrix)
        return np.where(weight >= 0, np.exp(-np.square(np.abs(difference).max(0) / self._alike)), -1).astype(np.float32)

    def update_light_and_trust(self, blurred_image: Float32Array, matrix: Float64Array, update_rate: float) -> None:
        """The light in which the part is seen now, and by a `share` which of its samples follow the map."""
        self._gain, self._shift = self._estimate_light(*self._sample_colours(blurred_image, matrix))
        alike = self.compute_agreement(blurred_image, matrix)
        self.trust += update_rate * np.where(alike < 0, 0, np.maximum(alike, 0.1) - self.trust).astype(np.float32)

    def _sample_colours(self, blurred_image: Float32Array, matrix: Float64Array) -> tuple[Float32Array, BoolArray]:
        """Colours `[3, N]` of the picture under a map, and which samples lie within it."""
        there = (matrix[:, :2] @ self.points + matrix[:, 2:]).astype(np.float32)
        within = (there[0] >= 0) & (there[1] >= 0) & (there[0] <= blurred_image.shape[1] - 1) & (there[1] <= blurred_image.shape[0] - 1)
        return sample_points(blurred_image, there), within

    def _compute_residuals(self, blurred_image: Float32Array, matrix: Float64Array) -> tuple[Float32Array, Float32Array]:
        """Differences `[3, N]` in levels, light apart, and weights `[N]`; -1 outside of the picture."""
        colours, within = self._sample_colours(blurred_image, matrix)
        gain, shift = self._estimate_light(colours, within)
        expected = np.clip(gain * self._colours + shift, 0, 255)
        difference = (colours - expected) / np.maximum(gain, 0.5)
        worst = np.abs(difference).max(0)
        noise = float(np.clip(1.5 * np.median(worst[self._inside]), *NOISE_STD_LIMITS))
        weight = np.square(np.maximum(1 - np.square(worst / (OUTLIER_THRESHOLD * noise)), 0)) * self.trust * self._share
        return np.asarray(difference, np.float32), np.where(within, weight, -1).astype(np.float32)

    @property
    def light(self) -> tuple[Float32Array, Float32Array]:
        """Factor and shift `[3]` from the part's own colours to those of the last remembered picture."""
        return self._gain[:, 0], self._shift[:, 0]

    def _estimate_light(self, colours: Float32Array, in_frame: BoolArray) -> tuple[Float32Array, Float32Array]:
        """Factor and shift `[3, 1]` from the part's own colours to the picture's, by the samples that agree best."""
        use = self._inside[in_frame[self._inside]]
        if len(use) < 12:
            return self._gain, self._shift
        here, own = colours[:, use], self._colours[:, use]
        before = self._gain * own + self._shift
        ratio = np.clip(np.median((here + 8) / (before + 8), axis=1, keepdims=True), 1 - MAX_LIGHT_CHANGE, 1 + MAX_LIGHT_CHANGE)
        worst = np.abs(here - np.minimum(ratio * before, 255)).max(0)
        weight = (worst <= max(NOISE_STD_LIMITS[0], 1.2 * float(np.median(worst)))) & (here < SATURATION_LEVEL)
        # Least squares of here = gain * own + shift, tied to what they were, times the ratio.
        count = weight.sum(1, keepdims=True) + 1.0
        gain, shift = ratio * self._gain, ratio * self._shift
        middle, level = ((weight * part).sum(1, keepdims=True) / count for part in (own, here))
        spread = (weight * np.square(own - middle)).sum(1, keepdims=True) / count
        along = (weight * (own - middle) * (here - level)).sum(1, keepdims=True) / count
        steeper = (along + LIGHT_PRIOR_STRENGTHS[0] * gain) / (spread + LIGHT_PRIOR_STRENGTHS[0])
        offset = level - steeper * middle
        trust = count / (count + LIGHT_PRIOR_STRENGTHS[1])
        return steeper.astype(np.float32), (trust * offset + (1 - trust) * shift).astype(np.float32)

    def _solve_update(self, difference: Float32Array, weight: Float32Array, translation_only: bool) -> Float64Array:
        weighted = self._slopes * np.tile(np.maximum(weight, 0), 3)
        normal, right = (weighted @ self._slopes.T).astype(np.float64), weighted @ difference.reshape(-1)
        if translation_only:
            normal[[0, 1, 3, 4], [0, 1, 3, 4]] += 1e3 * normal.trace()
        # a = d and b = -c for shift, turn and scale.
        pull = RIGIDITY_WEIGHTS[self.may_leave] * (normal[2, 2] + normal[5, 5]) / 2 + 1e-3
        for row in (np.array([1, 0, 0, 0, -1, 0]), np.array([0, 1, 0, 1, 0, 0])):
            normal += pull * np.outer(row, row)
        return np.asarray(np.linalg.solve(normal + 1e-3 * np.eye(6), right), np.float64)

    def _build_matrix(self, change: Float64Array) -> Float64Array:
        rows = change.reshape(2, 3)
        linear = np.eye(2) + rows[:, :2] / self._radius
        return np.column_stack([linear, self._centre + rows[:, 2] - linear @ self._centre])


def sample_points(image: Float32Array, points: npt.NDArray[np.floating]) -> Float32Array:
    """Colours `[C, N]` of a picture at points `[2, N]`."""
    at = points.astype(np.float32)
    found = cv2.remap(image, at[:1], at[1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    return np.ascontiguousarray(found.T, np.float32)


def compose_affine(second: Float64Array, first: Float64Array) -> Float64Array:
    """The affine map that does `first`, then `second`."""
    return np.column_stack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]])


def invert_affine(matrix: npt.NDArray[np.floating]) -> Float64Array:
    """The affine map back."""
    return np.asarray(cv2.invertAffineTransform(matrix), np.float64)
