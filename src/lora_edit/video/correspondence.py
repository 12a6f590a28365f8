"""Dense correspondence: the position of every pixel of a clip in a key frame, with a confidence.

Three candidates compete for each pixel: the object's global motion (`object_motion`), the background's (`camera_motion`), and optical flow
to the previous frame chained with that frame's positions. The best candidate, smoothly extrapolated, warps the key frame. Optical flow
between the warped key frame and the frame then corrects the remaining error, separately for object and background. So errors do not
accumulate, and the object's edge does not follow the background's motion. The matching cost is the difference in colour and gradient,
aggregated with a guided filter (He, Sun and Tang 2010; as a cost filter: Hosni et al. 2013).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import BoolArray, Float32Array, Float64Array, UInt8Array, mask_bounds
from lora_edit.video.alignment import compose_affine, invert_affine
from lora_edit.video.camera_motion import CameraTracker
from lora_edit.video.flow import build_pixel_grid, resize_motion, sample_image
from lora_edit.video.object_motion import ObjectTracker
from lora_edit.video.working_size import WorkingSize, to_grey

GainAndShift = tuple[Float32Array, Float32Array]
ImageSlices = tuple[slice, slice]

CONTRAST_LIMITS = (7.0, 24.0)
"""Lower and upper limit, in levels, of the difference with the full cost; in between it follows the local variation of colours."""

COST_RADIUS = 5
"""Radius, in pixels, of the window over which costs are aggregated."""

EDGE_CONTRAST = 12.0
"""Difference in levels from which the guided filter preserves an edge."""

SMOOTH_MOTION_PENALTY, CORRECTION_PENALTY, CHAINED_FLOW_PENALTY = 0.01, 0.03, 0.05
"""Costs added to the smooth motion, to its correction, and to chained flow, so that the global motion wins where all match
equally well: the simpler one is then right."""

OCCLUSION_COSTS = (0.5, 0.95)
"""Cost of a pixel that the object occludes in the key frame: where the object is lost, and where it is certainly visible."""

BLUR_SIGMA = 1.0
"""Standard deviation, in pixels, of the blur before images are compared, which suppresses noise and sampling errors."""

MAX_RELIABLE_COST = 0.45
"""Cost below which a position is reliable."""

MAX_UNCORRECTED_COST = 0.15
"""Cost below which pixels need no correction. The background's global motion is not corrected where nearly all pixels are below it."""

MARGIN = 24
"""Margin, in pixels, around object and region within which pixels are tracked individually."""

MIN_FLOW_SIZE = 64
"""Smallest number of rows and columns for optical flow."""

CONFIDENCE_WEIGHTS = (4.8, 1.6, -8.3, 0.6, 0.7, -1.6, -7.5, -7.2)
"""Log-odds of a correct position: the intercept, then the weights of `_compute_features`, fitted by logistic regression on the tuning half
of the scenes of `benchmarks/moving_scenes.py`."""

MAX_OBJECT_SHARE = 0.8
"""Share of the frame above which a region counts as the whole frame instead of an object."""


@dataclass(frozen=True)
class Correspondence:
    """Correspondence of one frame with the key frame.

    `positions` `[H, W, 2]` (x, y): the position of each pixel in the key frame, pixel centres at integers. `confidence` `[H, W]` in [0, 1]:
    the probability that the key frame shows the pixel within 1.5 % of the frame's shorter side of that position.
    """

    positions: Float32Array
    confidence: Float32Array


def compute_correspondences(
    frames: torch.Tensor, key_index: int, region: torch.Tensor | None = None, order: Sequence[int] | None = None
) -> Iterator[Correspondence]:
    """Compute the correspondence of each frame of `frames` `[T, H, W, 3]` uint8 with frame `key_index`.

    `order` lists the frames to process; consecutive ones are neighbours. The default is `key_index` and all later frames. `region`
    `[T, H, W]` bool marks the object that is tracked. Time is linear in the number of frames; memory is that of a few frames.
    """
    height, width = frames.shape[1:3]
    work = WorkingSize(height, width)
    key_image = work.resize_image(frames[key_index])
    mask = None if region is None else work.resize_mask(region[key_index])
    if mask is not None and not 16 <= mask.sum() <= MAX_OBJECT_SHARE * mask.size:
        mask = None
    matcher = _FrameMatcher(key_image, mask)
    for number in range(key_index, len(frames)) if order is None else order:
        frame_region = None if mask is None or region is None else work.resize_mask(region[number])
        positions, confidence = matcher.match(work.resize_image(frames[number]), frame_region)
        motion = resize_motion(positions - build_pixel_grid(*positions.shape[:2]), height, width)
        confidence = np.asarray(cv2.resize(confidence, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        yield Correspondence(build_pixel_grid(height, width) + motion, confidence)


@dataclass(frozen=True)
class _Candidate:
    """Candidate positions for the pixels `[h, w]` of a window.

    `positions` `[h, w, 2]` in the key image; their `cost` `[h, w]`; the `evidence` `[h, w]`, the part of the cost that the images
    determine; `on_object_in_key` `[h, w]`, whether the positions lie on the object in the key image; `is_object` `[h, w]`, whether the
    candidate assigns the pixels to the object. Where the last two differ, the key image does not show the pixel.
    """

    positions: Float32Array
    cost: Float32Array
    evidence: Float32Array
    on_object_in_key: BoolArray
    is_object: BoolArray


@dataclass(frozen=True)
class _PreviousFrame:
    """The previous image, grey `[h, w]`, with the map to the key image and the positions in it `[h, w, 2]`, for background and object."""

    grey: UInt8Array
    matrices: list[Float64Array]
    positions: list[Float32Array]


class _FrameMatcher:
    """Matcher of consecutive images with a key image `[h, w, 3]`; the first of them is near it in time."""

    def __init__(self, key_image: Float32Array, mask: BoolArray | None) -> None:
        self.mask = mask
        self.blurred_key, self.grey_key = _blur_image(key_image), to_grey(key_image)
        self.object_mask = np.zeros(key_image.shape[:2], np.float32) if mask is None else mask.astype(np.float32)
        self.camera = CameraTracker(key_image, np.ones(key_image.shape[:2], bool) if mask is None else ~mask)
        self.object = None if mask is None else ObjectTracker(key_image, mask)
        # Objects deform; the residual motion of the background is small and smooth.
        self.flows = [_create_dense_flow(finest_scale=1), _create_dense_flow(finest_scale=0)]
        self.pixel_grid = build_pixel_grid(*key_image.shape[:2])
        self._previous: _PreviousFrame | None = None
        self._visible_share = 1.0  # share of the object that was visible in the previous image

    def match(self, image: Float32Array, region: BoolArray | None = None) -> tuple[Float32Array, Float32Array]:
        """Match the next image: positions `[h, w, 2]` and confidence `[h, w]`. `region` `[h, w]` is where accuracy matters."""
        grey, blurred = to_grey(image), _blur_image(image)
        matrices, lights = self._estimate_global_motions(image, grey)
        global_positions = [_transform_positions(self.pixel_grid, matrix) for matrix in matrices]
        background = self._build_matching_cost(blurred, grey, lights, _select_all(grey))(global_positions[0], 0)
        window = self._select_tracked_slices(region, global_positions)
        window_cost = self._build_matching_cost(blurred, grey, lights, window)
        layers = [
            self._match_layer(layer, positions[window], matrices[layer], grey, window_cost, window)
            for layer, positions in enumerate(global_positions)
        ]
        best = _select_best(layers)
        if self.object is not None:
            self._correct_tracker(self.object, best, window)
            matrices[1] = invert_affine(self.object.matrix)
        for positions, layer_candidate in zip(global_positions, layers, strict=True):
            positions[window] = layer_candidate.positions
        self._previous = _PreviousFrame(grey, matrices, global_positions)
        merged = _Candidate(*(getattr(background, field.name).copy() for field in fields(_Candidate)))
        for field in fields(_Candidate):
            getattr(merged, field.name)[window] = getattr(best, field.name)
        return merged.positions, self._estimate_confidence(merged, blurred, grey, matrices)

    def _estimate_confidence(
        self, candidate: _Candidate, blurred_image: Float32Array, grey: UInt8Array, matrices: list[Float64Array]
    ) -> Float32Array:
        return _apply_logistic(self._compute_features(candidate, grey, matrices))

    def _compute_features(self, candidate: _Candidate, grey: UInt8Array, matrices: list[Float64Array]) -> list[Float32Array]:
        """Compute the features of the confidence, `[h, w]` each, in the order of `CONFIDENCE_WEIGHTS`."""
        contrast = np.log(_compute_contrast(_GuidedFilter(grey).variance) / CONTRAST_LIMITS[1])
        residuals = [_transform_positions(self.pixel_grid, matrix) - candidate.positions for matrix in matrices]
        residual = np.where(candidate.is_object[..., None], residuals[-1], residuals[0])
        deformation = np.log1p(np.abs(residual).sum(-1))
        outside = ((candidate.positions < -0.5) | (candidate.positions > np.array(self.object_mask.shape[::-1]) - 0.5)).any(-1)
        visible = candidate.on_object_in_key == candidate.is_object
        cost = np.where(visible, np.clip(candidate.cost, 0, 1), 0)
        return [cost, cost * cost, contrast * visible, cost * contrast, deformation, ~visible, outside]

    def _estimate_global_motions(self, image: Float32Array, grey: UInt8Array) -> tuple[list[Float64Array], list[GainAndShift]]:
        """Estimate the maps to the key image, of the background and of the object if there is one, and the light of each."""
        matrices, lights = [self.camera.track(image, grey)], [self.camera.light]
        if self.object is not None:
            matrices.append(self.object.track(image).matrix.astype(np.float64))
            lights.append(self.object.light)
        return matrices, lights

    def _build_matching_cost(
        self, blurred_image: Float32Array, grey: UInt8Array, lights: list[GainAndShift], slices: ImageSlices
    ) -> _MatchingCost:
        certainty = 0.0 if self.object is None else max(self.object.score, self._visible_share)
        occlusion_cost = OCCLUSION_COSTS[0] + (OCCLUSION_COSTS[1] - OCCLUSION_COSTS[0]) * min(1.0, certainty / 0.5)
        return _MatchingCost(blurred_image[slices], self.blurred_key, self.object_mask, lights, _GuidedFilter(grey[slices]), occlusion_cost)

    def _select_tracked_slices(self, region: BoolArray | None, global_positions: list[Float32Array]) -> ImageSlices:
        """Select the rows and columns around the object and the region, with a margin."""
        if self.object is None:
            return _select_all(self.object_mask)
        mask = sample_image(self.object_mask, global_positions[1]) > 0.5
        return _select_around_mask(mask if region is None else mask | region, MARGIN)

    def _correct_tracker(self, tracker: ObjectTracker, best: _Candidate, slices: ImageSlices) -> None:
        """Correct the object's tracker by the motion of its pixels where the tracker is less certain than they are."""
        reliable = best.on_object_in_key & best.is_object & (best.cost < MAX_RELIABLE_COST)
        self._visible_share = reliable.sum() / max(1.0, float(self.object_mask.sum()) * np.linalg.det(tracker.matrix[:, :2]))
        if self._visible_share > max(0.3, tracker.score):
            indices = np.flatnonzero(reliable)
            indices = indices[:: max(1, len(indices) // 800)]
            key_points, points = (each.reshape(-1, 2)[indices] for each in (best.positions, self.pixel_grid[slices]))
            matrix, _ = cv2.estimateAffine2D(key_points, points, ransacReprojThreshold=3.0)
            if matrix is not None:
                tracker.correct_motion(np.asarray(matrix, np.float64))

    def _match_layer(
        self,
        layer: int,
        global_positions: Float32Array,
        matrix: Float64Array,
        grey: UInt8Array,
        matching_cost: _MatchingCost,
        slices: ImageSlices,
    ) -> _Candidate:
        """Find the best positions on one layer among its global motion, chained flow, and the correction of both."""
        candidates = [matching_cost(global_positions, layer)]
        if layer == 0 and np.mean(candidates[0].cost[~candidates[0].on_object_in_key] < MAX_UNCORRECTED_COST) > 0.95:
            return candidates[0]
        pixel_grid, current_image = self.pixel_grid[slices], np.ascontiguousarray(grey[slices])
        if self._previous is not None:
            for candidate_matrix in self._list_candidate_matrices(layer, matrix):
                chained = self._chain_flow(self._previous, layer, candidate_matrix, pixel_grid, current_image)
                candidates.append(matching_cost(chained, layer, CHAINED_FLOW_PENALTY))
        best = _select_best(candidates)
        motion = _extrapolate_values(best.positions - global_positions, np.exp(-best.cost / 0.1).astype(np.float32), COST_RADIUS)
        smooth = matching_cost(global_positions + motion, layer, SMOOTH_MOTION_PENALTY)
        # Where the key frame shows the other layer there is nothing to compare.
        warped_key = np.asarray(np.clip(sample_image(self.grey_key, smooth.positions).round(), 0, 255), np.uint8)
        correction = self._compute_flow(layer, current_image, np.where(smooth.on_object_in_key == bool(layer), warped_key, current_image))
        return _select_best([*candidates, smooth, matching_cost(_warp_positions(smooth.positions, correction), layer, CORRECTION_PENALTY)])

    def _chain_flow(
        self, previous_frame: _PreviousFrame, layer: int, matrix: Float64Array, pixel_grid: Float32Array, current_image: UInt8Array
    ) -> Float32Array:
        """Chain positions through the previous image: the layer's global motion to it, then the residual flow."""
        previous_positions = _transform_positions(pixel_grid, compose_affine(invert_affine(previous_frame.matrices[layer]), matrix))
        warped = np.asarray(np.clip(sample_image(previous_frame.grey, previous_positions).round(), 0, 255), np.uint8)
        flow = self._compute_flow(layer, current_image, warped)
        return sample_image(previous_frame.positions[layer], _warp_positions(previous_positions, flow))

    def _list_candidate_matrices(self, layer: int, matrix: Float64Array) -> list[Float64Array]:
        """List a layer's global motion and, where that is uncertain, the alternatives: the motion of its corners, and none."""
        if layer == 0 or self.object is None or self.object.alternative is None or self._previous is None:
            return [matrix]
        candidates = list[Float64Array]()
        for candidate in (matrix, invert_affine(self.object.alternative), self._previous.matrices[layer]):
            if not any(np.abs(candidate - other).max() < 0.5 for other in candidates):
                candidates.append(candidate)
        return candidates

    def _compute_flow(self, layer: int, current_image: UInt8Array, other_image: UInt8Array) -> Float32Array:
        return np.asarray(self.flows[layer].calc(current_image, other_image, None), np.float32)  # type: ignore[call-overload]


class _MatchingCost:
    """Matching cost of candidate positions for a window `[h, w, 3]` of one image."""

    def __init__(
        self,
        image: Float32Array,
        key_image: Float32Array,
        object_mask: Float32Array,
        lights: list[GainAndShift],
        cost_filter: _GuidedFilter,
        occlusion_cost: float,
    ) -> None:
        self.image, self.key_image, self.object_mask, self.lights = image, key_image, object_mask, lights
        self.cost_filter, self.occlusion_cost = cost_filter, occlusion_cost
        self.gradients = _compute_gradients(image)
        self.contrast = _compute_contrast(cost_filter.variance)

    def __call__(self, positions: Float32Array, layer: int, penalty: float = 0.0) -> _Candidate:
        """Compute the cost of `positions` on a layer; `penalty` is added to it."""
        on_object_in_key = sample_image(self.object_mask, positions) > 0.5
        gain, shift = self.lights[layer]
        expected = np.clip(sample_image(self.key_image, positions) * gain + shift, 0, 255).astype(np.float32)
        red, green, blue = cv2.split(cv2.absdiff(self.image, expected))
        colour = cv2.max(cv2.max(red, green), blue)
        dx, dy = (cv2.absdiff(own, other) for own, other in zip(self.gradients, _compute_gradients(expected), strict=True))
        evidence = 0.5 * np.minimum(colour / self.contrast, 1) + 0.5 * np.minimum(2 * (dx + dy) / self.contrast, 1)
        outside = ((positions < -0.5) | (positions > np.array(self.object_mask.shape[::-1]) - 0.5)).any(-1)
        cost = np.where(
            on_object_in_key == bool(layer), np.where(outside, OCCLUSION_COSTS[0], evidence), 1.0 if layer else self.occlusion_cost
        )
        cost = self.cost_filter(cost.astype(np.float32)) + np.float32(penalty)
        return _Candidate(positions, cost, np.asarray(evidence, np.float32), on_object_in_key, np.full_like(on_object_in_key, bool(layer)))


class _GuidedFilter:
    """Edge-preserving mean over a window, guided by one grey image (guided filter)."""

    def __init__(self, grey: UInt8Array) -> None:
        self.guide = grey.astype(np.float32)
        self.mean = _apply_box_filter(self.guide)
        self.variance = _apply_box_filter(self.guide * self.guide) - self.mean * self.mean
        self.regularized_variance = np.asarray(self.variance + EDGE_CONTRAST**2, np.float32)

    def __call__(self, values: Float32Array) -> Float32Array:
        mean = _apply_box_filter(values)
        gain = np.asarray((_apply_box_filter(self.guide * values) - self.mean * mean) / self.regularized_variance, np.float32)
        offset = np.asarray(mean - gain * self.mean, np.float32)
        return np.asarray(_apply_box_filter(gain) * self.guide + _apply_box_filter(offset), np.float32)


def _create_dense_flow(finest_scale: int) -> cv2.DISOpticalFlow:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(finest_scale)
    return flow


def _compute_contrast(variance: Float32Array) -> Float32Array:
    """Compute the difference in levels that has the full cost, from the local variance of colours."""
    return np.clip(1.2 * np.sqrt(np.maximum(variance, 0)), *CONTRAST_LIMITS).astype(np.float32)


def _apply_logistic(features: list[Float32Array]) -> Float32Array:
    log_odds = CONFIDENCE_WEIGHTS[0] + sum(weight * feature for weight, feature in zip(CONFIDENCE_WEIGHTS[1:], features, strict=True))
    return np.asarray(1 / (1 + np.exp(-log_odds)), np.float32)


def _warp_positions(positions: Float32Array, motion: Float32Array) -> Float32Array:
    """Sample `positions` `[h, w, 2]` where `motion` `[h, w, 2]` leads to."""
    return sample_image(positions, build_pixel_grid(*motion.shape[:2]) + motion)


def _select_all(image: npt.NDArray[np.generic]) -> ImageSlices:
    return slice(0, image.shape[0]), slice(0, image.shape[1])


def _select_around_mask(mask: BoolArray, margin: int) -> ImageSlices:
    """Select the rows and columns of a mask and its margin, at least `MIN_FLOW_SIZE` of each; all of them where the mask is empty."""
    bounds = mask_bounds(mask)
    if bounds is None:
        return _select_all(mask)
    spans = []
    for axis in (1, 0):
        low, high, end = bounds[axis] - margin, bounds[axis + 2] + margin, mask.shape[1 - axis]
        missing = max(0, MIN_FLOW_SIZE - (min(high, end) - max(low, 0)))
        spans.append(slice(max(0, low - missing), min(end, high + missing)))
    return spans[0], spans[1]


def _apply_box_filter(values: Float32Array) -> Float32Array:
    return np.asarray(cv2.blur(values, (2 * COST_RADIUS + 1, 2 * COST_RADIUS + 1)), np.float32)


def _blur_image(image: Float32Array) -> Float32Array:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), BLUR_SIGMA), np.float32)


def _compute_gradients(image: Float32Array) -> tuple[Float32Array, Float32Array]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    x, y = (np.asarray(cv2.Sobel(grey, cv2.CV_32F, 1 - axis, axis, scale=0.25), np.float32) for axis in (0, 1))
    return x, y


def _transform_positions(pixel_grid: Float32Array, matrix: npt.NDArray[np.floating]) -> Float32Array:
    return np.asarray(pixel_grid @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32), np.float32)


def _select_best(candidates: list[_Candidate]) -> _Candidate:
    """Select the candidate with the lowest cost for each pixel."""
    best = candidates[0]
    for candidate in candidates[1:]:
        better = candidate.cost < best.cost
        pairs = ((getattr(candidate, field.name), getattr(best, field.name)) for field in fields(_Candidate))
        best = _Candidate(*(np.where(better[..., None] if new.ndim > 2 else better, new, old) for new, old in pairs))
    return best


def _extrapolate_values(values: Float32Array, known_weight: Float32Array, sigma: float) -> Float32Array:
    """Smooth values `[h, w, 2]` where `known_weight` `[h, w]` is high, and extrapolate them to where it is not."""
    total, weight = np.zeros_like(values), np.zeros_like(known_weight)
    for scale, importance in ((sigma / 4, 1.0), (sigma, 0.02), (6 * sigma, 0.0005)):
        weight += importance * _blur_values(known_weight, scale)
        total += importance * _blur_values(values * known_weight[..., None], scale)
    return np.asarray(total / (weight + 1e-6)[..., None], np.float32)


def _blur_values(values: Float32Array, sigma: float) -> Float32Array:
    step = max(1, int(sigma / 2))
    if step == 1:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)
    size = (max(1, values.shape[1] // step), max(1, values.shape[0] // step))
    small = cv2.GaussianBlur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / step)
    return np.asarray(cv2.resize(small, values.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
