"""Alignment of a part of one image with another image by an affine map.

Gauss-Newton on the part's own gradients (inverse compositional; Baker and Matthews 2004), with robust weights that ignore occluded samples
(Hager and Belhumeur 1998) and an estimate of the change in lighting.

Maps `[2, 3]` lead from the part's image to the other image. Pixel centres lie at integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.types import BoolArray, Float32Array, Float64Array, mask_bounds

NOISE_STD_LIMITS = (4.0, 16.0)
"""Smallest and largest standard deviation assumed for the differences between aligned images, in levels of 255."""

OUTLIER_THRESHOLD = 3.5
"""Standard deviations from which a pixel is an outlier and has no weight."""

SIMILARITY_SCALE = (0.7, 9.0, 20.0)
"""Scale of the similarity, the difference at which it has dropped to 1/e: a share of the standard deviation of the part's colours, then the
lower and the upper limit in levels of 255."""

RIGIDITY_WEIGHTS = (0.02, 1.0)
"""Strength of the prior toward a similarity transform (shift, rotation, scale), as a share of the certainty of the shift: parts with little
texture determine no more than that. First for an object, then for a part that may leave the image (a background that a camera moves)."""

MAX_LIGHT_CHANGE = 0.2
"""Largest relative change of the light from one alignment to the next."""

LIGHT_PRIOR_STRENGTHS = (2000.0, 20.0)
"""Strength of the prior on the previous light: for its gain in squared levels, for its shift in samples."""

SATURATION_LEVEL = 250.0
"""Level from which a colour may be clipped."""

MIN_VISIBLE_SHARE = 0.15
"""Smallest visible share by which the score of a part that may leave the image is normalized."""


@dataclass(frozen=True)
class Fit:
    """An affine map and its score: the share of the part, in [0, 1], that agrees with the image under the map."""

    matrix: Float64Array
    score: float


class Patch:
    """The part of an image `[h, w, 3]` inside `mask` `[h, w]`, sampled at about `extent` points across.

    `margin` is the width, in samples, of the surroundings that are sampled too, at a lower weight. Samples outside the other image lower
    the score of a map, unless `may_leave_frame` is set.
    """

    def __init__(self, image: Float32Array, mask: BoolArray, extent: float, margin: float = 2.0, may_leave_frame: bool = False) -> None:
        self.may_leave_frame = may_leave_frame
        self.spacing = max(1.0, float(np.sqrt(mask.sum())) / extent)
        blurred = self.blur_image(image)
        area = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3) <= margin * self.spacing
        bounds = mask_bounds(area)
        assert bounds is not None, "the mask is empty"
        left, top, right, bottom = bounds
        y, x = np.meshgrid(np.arange(top, bottom, self.spacing), np.arange(left, right, self.spacing), indexing="ij")
        nearest = np.rint(y).astype(int).clip(0, mask.shape[0] - 1), np.rint(x).astype(int).clip(0, mask.shape[1] - 1)
        in_area = area[nearest]
        self.points = np.stack([x[in_area], y[in_area]])
        self._inside_indices = np.flatnonzero(mask[nearest][in_area])
        self._sample_weights = np.where(mask[nearest][in_area], 1.0, 0.35).astype(np.float32)
        self.trust = np.ones(self.points.shape[1], np.float32)
        self._colours = sample_points(blurred, self.points)
        self._similarity_scale = np.clip(SIMILARITY_SCALE[0] * self._colours[:, self._inside_indices].std(1).max(), *SIMILARITY_SCALE[1:])
        self._gain, self._shift = np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32)
        self._centre, self._radius = self.points.mean(1), max(1.0, float(self.points.std()))
        normalized = ((self.points - self._centre[:, None]) / self._radius).astype(np.float32)
        derivatives = []
        for axis in (0, 1):
            gradient = sample_points(np.asarray(cv2.Sobel(blurred, cv2.CV_32F, 1 - axis, axis, scale=0.125)), self.points)
            derivatives += [gradient * normalized[0], gradient * normalized[1], gradient]
        # [6, 3 * N]: derivatives of the colours by a, b, x, c, d, y of the map (1 + a, b, x; c, 1 + d, y).
        self._jacobian = np.stack(derivatives).reshape(6, -1)

    def blur_image(self, image: Float32Array) -> Float32Array:
        """Blur away details that are finer than the sample spacing."""
        return image if self.spacing < 1.3 else np.asarray(cv2.GaussianBlur(image, (0, 0), 0.45 * self.spacing), np.float32)

    def fit(self, blurred_image: Float32Array, start: Float64Array, iterations: int = 10, translation_only: bool = False) -> Fit:
        """Fit the map near `start` to the output of `blur_image`; with `translation_only`, fit only its shift."""
        matrix = start
        for _ in range(iterations):
            difference, weight = self._compute_residuals(blurred_image, matrix)
            if weight.sum() < 0.05 * len(weight):
                break
            change = self._solve_update(difference, weight, translation_only)
            matrix = compose_affine(matrix, invert_affine(self._build_matrix(change)))
            if np.abs(change[[2, 5]]).max() < 0.02 * self.spacing and np.abs(change[[0, 1, 3, 4]]).max() < 0.004:
                break
        return Fit(matrix, self.score(blurred_image, matrix))

    def score(self, blurred_image: Float32Array, matrix: Float64Array) -> float:
        """Score a map by how well the part agrees with the output of `blur_image`."""
        weights = self.trust * self._sample_weights
        agreement = self.compute_agreement(blurred_image, matrix)
        visible = float(weights[agreement >= 0].sum())
        total = max(visible, MIN_VISIBLE_SHARE * weights.sum()) if self.may_leave_frame else weights.sum()
        return float((np.maximum(agreement, 0) * weights).sum() / total)

    def compute_agreement(self, blurred_image: Float32Array, matrix: Float64Array) -> Float32Array:
        """Agreement `[N]` of each sample with a blurred image under a map: 1 where the part is visible, 0 where it is not, -1 outside."""
        difference, weight = self._compute_residuals(blurred_image, matrix)
        return np.where(weight >= 0, np.exp(-np.square(np.abs(difference).max(0) / self._similarity_scale)), -1).astype(np.float32)

    def update_light_and_trust(self, blurred_image: Float32Array, matrix: Float64Array, update_rate: float) -> None:
        """Update the light, and move the trust in each sample toward its agreement at `update_rate`."""
        self._gain, self._shift = self._estimate_light(*self._sample_colours(blurred_image, matrix))
        agreement = self.compute_agreement(blurred_image, matrix)
        self.trust += update_rate * np.where(agreement < 0, 0, np.maximum(agreement, 0.1) - self.trust).astype(np.float32)

    def _sample_colours(self, blurred_image: Float32Array, matrix: Float64Array) -> tuple[Float32Array, BoolArray]:
        """Sample the image under a map: colours `[3, N]`, and which samples lie inside it `[N]`."""
        positions = (matrix[:, :2] @ self.points + matrix[:, 2:]).astype(np.float32)
        in_frame = (
            (positions[0] >= 0)
            & (positions[1] >= 0)
            & (positions[0] <= blurred_image.shape[1] - 1)
            & (positions[1] <= blurred_image.shape[0] - 1)
        )
        return sample_points(blurred_image, positions), in_frame

    def _compute_residuals(self, blurred_image: Float32Array, matrix: Float64Array) -> tuple[Float32Array, Float32Array]:
        """Compute differences `[3, N]` in levels, corrected for light, and weights `[N]`, which are -1 outside the image."""
        colours, in_frame = self._sample_colours(blurred_image, matrix)
        gain, shift = self._estimate_light(colours, in_frame)
        expected = np.clip(gain * self._colours + shift, 0, 255)
        difference = (colours - expected) / np.maximum(gain, 0.5)
        largest = np.abs(difference).max(0)
        noise = float(np.clip(1.5 * np.median(largest[self._inside_indices]), *NOISE_STD_LIMITS))
        weight = np.square(np.maximum(1 - np.square(largest / (OUTLIER_THRESHOLD * noise)), 0)) * self.trust * self._sample_weights
        return np.asarray(difference, np.float32), np.where(in_frame, weight, -1).astype(np.float32)

    @property
    def light(self) -> tuple[Float32Array, Float32Array]:
        """Gain and shift `[3]` from the part's own colours to those of the image of the last update."""
        return self._gain[:, 0], self._shift[:, 0]

    def _estimate_light(self, colours: Float32Array, in_frame: BoolArray) -> tuple[Float32Array, Float32Array]:
        """Estimate gain and shift `[3, 1]` from the part's own colours to the image's, using the samples that agree best."""
        indices = self._inside_indices[in_frame[self._inside_indices]]
        if len(indices) < 12:
            return self._gain, self._shift
        observed, own = colours[:, indices], self._colours[:, indices]
        expected = self._gain * own + self._shift
        ratio = np.clip(np.median((observed + 8) / (expected + 8), axis=1, keepdims=True), 1 - MAX_LIGHT_CHANGE, 1 + MAX_LIGHT_CHANGE)
        largest = np.abs(observed - np.minimum(ratio * expected, 255)).max(0)
        weight = (largest <= max(NOISE_STD_LIMITS[0], 1.2 * float(np.median(largest)))) & (observed < SATURATION_LEVEL)
        # Least squares of observed = gain * own + shift, with a prior on the previous gain and shift times the ratio.
        count = weight.sum(1, keepdims=True) + 1.0
        gain, shift = ratio * self._gain, ratio * self._shift
        own_mean, observed_mean = ((weight * values).sum(1, keepdims=True) / count for values in (own, observed))
        variance = (weight * np.square(own - own_mean)).sum(1, keepdims=True) / count
        covariance = (weight * (own - own_mean) * (observed - observed_mean)).sum(1, keepdims=True) / count
        new_gain = (covariance + LIGHT_PRIOR_STRENGTHS[0] * gain) / (variance + LIGHT_PRIOR_STRENGTHS[0])
        offset = observed_mean - new_gain * own_mean
        certainty = count / (count + LIGHT_PRIOR_STRENGTHS[1])
        return new_gain.astype(np.float32), (certainty * offset + (1 - certainty) * shift).astype(np.float32)

    def _solve_update(self, difference: Float32Array, weight: Float32Array, translation_only: bool) -> Float64Array:
        weighted = self._jacobian * np.tile(np.maximum(weight, 0), 3)
        normal_matrix, right_side = (weighted @ self._jacobian.T).astype(np.float64), weighted @ difference.reshape(-1)
        if translation_only:
            normal_matrix[[0, 1, 3, 4], [0, 1, 3, 4]] += 1e3 * normal_matrix.trace()
        # a = d and b = -c for shift, rotation and scale.
        strength = RIGIDITY_WEIGHTS[self.may_leave_frame] * (normal_matrix[2, 2] + normal_matrix[5, 5]) / 2 + 1e-3
        for constraint in (np.array([1, 0, 0, 0, -1, 0]), np.array([0, 1, 0, 1, 0, 0])):
            normal_matrix += strength * np.outer(constraint, constraint)
        return np.asarray(np.linalg.solve(normal_matrix + 1e-3 * np.eye(6), right_side), np.float64)

    def _build_matrix(self, change: Float64Array) -> Float64Array:
        rows = change.reshape(2, 3)
        linear = np.eye(2) + rows[:, :2] / self._radius
        return np.column_stack([linear, self._centre + rows[:, 2] - linear @ self._centre])


def sample_points(image: Float32Array, points: npt.NDArray[np.floating]) -> Float32Array:
    """Sample the colours `[C, N]` of an image at points `[2, N]`."""
    positions = points.astype(np.float32)
    colours = cv2.remap(image, positions[:1], positions[1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    return np.ascontiguousarray(colours.T, np.float32)


def compose_affine(second: Float64Array, first: Float64Array) -> Float64Array:
    """Compose two affine maps: first `first`, then `second`."""
    return np.column_stack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]])


def invert_affine(matrix: npt.NDArray[np.floating]) -> Float64Array:
    """Invert an affine map."""
    return np.asarray(cv2.invertAffineTransform(matrix), np.float64)
