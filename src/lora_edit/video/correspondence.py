"""Where every pixel of a clip lies in a key frame, and how sure that is.

Three guesses compete for every pixel: it moved as the object does as a whole (`object_motion`), as the ground does (`camera_motion`), or as
the pixel of the frame before that optical flow leads to. Moved by what won, smoothly continued, the key frame is compared with the frame
once more, separately for the object and for the ground, and optical flow corrects what is left: so errors don't add up, and the object's
edge doesn't take part in the ground's motion. Differences of colour and of slope, gathered within what looks alike (guided filter; He, Sun
and Tang 2010; as cost filter: Hosni et al. 2013), decide.
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
"""Levels of difference that cost most: as much as colours vary around, but no less and no more than these."""

COST_RADIUS = 5
"""Pixels around that take part in a pixel's cost."""

EDGE_CONTRAST = 12.0
"""Levels from which neighbours look different."""

SMOOTH_MOTION_PENALTY, CORRECTION_PENALTY, CHAINED_FLOW_PENALTY = 0.01, 0.03, 0.05
"""What a smooth motion, its correction, and flow from frame to frame have to win by over the motion that all share: where nothing tells
them apart, the simpler one is right."""

OCCLUSION_COSTS = (0.5, 0.95)
"""What it costs to say that a pixel shows what the object hid in the key frame: where the object is lost, and where it is surely there."""

BLUR_SIGMA = 1.0
"""Standard deviation, in pixels, by which pictures are softened before they are compared: noise and sampling should not count."""

MAX_RELIABLE_COST = 0.45
"""Cost below which a position is believed."""

MAX_UNCORRECTED_COST = 0.15
"""Cost up to which the ground's motion as a whole needs no correction, where nearly all of it is that cheap."""

MARGIN = 24
"""Pixels around object and region in which pixels are followed one by one."""

MIN_FLOW_SIZE = 64
"""Rows and columns that flow is computed on at least."""

CONFIDENCE_WEIGHTS = (4.8, 1.6, -8.3, 0.6, 0.7, -1.6, -7.5, -7.2)
"""Log-odds of a right position: a constant, then the weights of `_features`, fitted by logistic regression on the tuning half of the scenes
of `benchmarks/moving_scenes.py`."""

MAX_OBJECT_SHARE = 0.8
"""Share of a frame from which a region holds no object, but everything."""


@dataclass(frozen=True)
class Correspondence:
    """Of one frame with the key frame.

    `positions` `[H, W, 2]` (x, y): where each pixel lies in the key frame, pixel centres at integers. `confidence` `[H, W]` in [0, 1]: the
    chance that the key frame shows the pixel, and within 1.5 % of the frame's shorter side of there.
    """

    positions: Float32Array
    confidence: Float32Array


def compute_correspondences(
    frames: torch.Tensor, key_index: int, region: torch.Tensor | None = None, order: Sequence[int] | None = None
) -> Iterator[Correspondence]:
    """The correspondence of each frame of `frames` `[T, H, W, 3]` uint8 with frame `key`.

    Frames come in the given `order` (neighbours follow each other; `key` and what follows it by default). `region` `[T, H, W]` bool is
    where the object is that counts. Time is linear in the frames, memory that of a few frames.
    """
    height, width = frames.shape[1:3]
    work = WorkingSize(height, width)
    picture = work.resize_image(frames[key_index])
    mask = None if region is None else work.resize_mask(region[key_index])
    if mask is not None and not 16 <= mask.sum() <= MAX_OBJECT_SHARE * mask.size:
        mask = None
    matcher = _FrameMatcher(picture, mask)
    for number in range(key_index, len(frames)) if order is None else order:
        here = None if mask is None or region is None else work.resize_mask(region[number])
        positions, confidence = matcher.match(work.resize_image(frames[number]), here)
        away = positions - build_pixel_grid(*positions.shape[:2])
        sure = cv2.resize(confidence, (width, height), interpolation=cv2.INTER_LINEAR)
        yield Correspondence(build_pixel_grid(height, width) + resize_motion(away, height, width), np.asarray(sure, np.float32))


@dataclass(frozen=True)
class _Candidate:
    """Of a window's pixels `[h, w]`: `positions` `[h, w, 2]` in the key picture, what they `cost`, and the whole `evidence` of the pictures
    in it; whether they lie on the object there (`own`), and whether they are said to show the object here (`object`). Where these two
    differ, the key picture doesn't show the pixel.
    """

    positions: Float32Array
    cost: Float32Array
    evidence: Float32Array
    on_object_in_key: BoolArray
    is_object: BoolArray


@dataclass(frozen=True)
class _PreviousFrame:
    """The picture before: grey `[h, w]`, and of ground and object the map to the key picture and each pixel's position there."""

    grey: UInt8Array
    matrices: list[Float64Array]
    positions: list[Float32Array]


class _FrameMatcher:
    """A key picture `[h, w, 3]`, and pictures that follow each other, the first of them near it in time."""

    def __init__(self, key_image: Float32Array, mask: BoolArray | None) -> None:
        self.mask = mask
        self.soft_key, self.grey_key = _blur_image(key_image), to_grey(key_image)
        self.part = np.zeros(key_image.shape[:2], np.float32) if mask is None else mask.astype(np.float32)
        self.camera = CameraTracker(key_image, np.ones(key_image.shape[:2], bool) if mask is None else ~mask)
        self.object = None if mask is None else ObjectTracker(key_image, mask)
        # An object may bend; what is left of the ground's motion is slight and smooth.
        self.flows = [_create_dense_flow(finest_scale=1), _create_dense_flow(finest_scale=0)]
        self.home = build_pixel_grid(*key_image.shape[:2])
        self._before: _PreviousFrame | None = None
        self._shown = 1.0  # share of the object that the picture before showed

    def match(self, image: Float32Array, region: BoolArray | None = None) -> tuple[Float32Array, Float32Array]:
        """Positions `[h, w, 2]` and confidence `[h, w]` of the next picture; `region` `[h, w]` is where accuracy counts."""
        grey, soft = to_grey(image), _blur_image(image)
        matrices, lights = self._estimate_global_motions(image, grey)
        whole = [_transform_positions(self.home, matrix) for matrix in matrices]
        ground = self._build_matching_cost(soft, grey, lights, _select_all(grey))(whole[0], 0)
        window = self._select_tracked_slices(region, whole)
        judge = self._build_matching_cost(soft, grey, lights, window)
        layers = [self._match_layer(layer, whole[layer][window], matrices[layer], grey, judge, window) for layer in range(len(whole))]
        best = _select_best(layers)
        if self.object is not None:
            self._correct_tracker(self.object, best, window)
            matrices[1] = invert_affine(self.object.matrix)
        for positions, guess in zip(whole, layers, strict=True):
            positions[window] = guess.positions
        self._before = _PreviousFrame(grey, matrices, whole)
        found = _Candidate(*(getattr(ground, part.name).copy() for part in fields(_Candidate)))
        for part in fields(_Candidate):
            getattr(found, part.name)[window] = getattr(best, part.name)
        return found.positions, self._estimate_confidence(found, soft, grey, matrices)

    def _estimate_confidence(
        self, candidate: _Candidate, blurred_image: Float32Array, grey: UInt8Array, matrices: list[Float64Array]
    ) -> Float32Array:
        return _apply_logistic(self._compute_features(candidate, grey, matrices))

    def _compute_features(self, candidate: _Candidate, grey: UInt8Array, matrices: list[Float64Array]) -> list[Float32Array]:
        """What tells how sure a position is, `[h, w]` each, in the order of `WEIGHTS`."""
        contrast = np.log(_compute_contrast(_GuidedFilter(grey).spread) / CONTRAST_LIMITS[1])
        away = [_transform_positions(self.home, matrix) - candidate.positions for matrix in matrices]
        own_way = np.where(candidate.is_object[..., None], away[-1], away[0])
        bent = np.log1p(np.abs(own_way).sum(-1))
        outside = ((candidate.positions < -0.5) | (candidate.positions > np.array(self.part.shape[::-1]) - 0.5)).any(-1)
        shown = candidate.on_object_in_key == candidate.is_object
        cost = np.where(shown, np.clip(candidate.cost, 0, 1), 0)
        return [cost, cost * cost, contrast * shown, cost * contrast, bent, ~shown, outside]

    def _estimate_global_motions(self, image: Float32Array, grey: UInt8Array) -> tuple[list[Float64Array], list[GainAndShift]]:
        """The maps to the key picture of the ground and, if there is one, of the object, and the light of each."""
        matrices, lights = [self.camera.track(image, grey)], [self.camera.light]
        if self.object is not None:
            matrices.append(self.object.track(image).matrix.astype(np.float64))
            lights.append(self.object.light)
        return matrices, lights

    def _build_matching_cost(
        self, blurred_image: Float32Array, grey: UInt8Array, lights: list[GainAndShift], slices: ImageSlices
    ) -> _MatchingCost:
        sure = 0.0 if self.object is None else max(self.object.score, self._shown)
        hidden = OCCLUSION_COSTS[0] + (OCCLUSION_COSTS[1] - OCCLUSION_COSTS[0]) * min(1.0, sure / 0.5)
        return _MatchingCost(blurred_image[slices], self.soft_key, self.part, lights, _GuidedFilter(grey[slices]), hidden)

    def _select_tracked_slices(self, region: BoolArray | None, global_positions: list[Float32Array]) -> ImageSlices:
        """The rows and columns of the object and the region, with what is around."""
        if self.object is None:
            return _select_all(self.part)
        there = sample_image(self.part, global_positions[1]) > 0.5
        return _select_around_mask(there if region is None else there | region, MARGIN)

    def _correct_tracker(self, tracker: ObjectTracker, best: _Candidate, slices: ImageSlices) -> None:
        """Tell the object's tracker what the pixels say, where it is less sure."""
        sure = best.on_object_in_key & best.is_object & (best.cost < MAX_RELIABLE_COST)
        self._shown = sure.sum() / max(1.0, float(self.part.sum()) * np.linalg.det(tracker.matrix[:, :2]))
        if self._shown > max(0.3, tracker.score):
            here = np.flatnonzero(sure)
            here = here[:: max(1, len(here) // 800)]
            old, new = (each.reshape(-1, 2)[here] for each in (best.positions, self.home[slices]))
            matrix, _ = cv2.estimateAffine2D(old, new, ransacReprojThreshold=3.0)
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
        """The best positions on one layer: its motion as a whole, flow from frame to frame, and the correction of both."""
        guesses = [matching_cost(global_positions, layer)]
        if layer == 0 and np.mean(guesses[0].cost[~guesses[0].on_object_in_key] < MAX_UNCORRECTED_COST) > 0.95:
            return guesses[0]
        home, now = self.home[slices], np.ascontiguousarray(grey[slices])
        if self._before is not None:
            for guess in self._list_candidate_matrices(layer, matrix):
                guesses.append(matching_cost(self._chain_flow(self._before, layer, guess, home, now), layer, CHAINED_FLOW_PENALTY))
        best = _select_best(guesses)
        away = _extrapolate_values(best.positions - global_positions, np.exp(-best.cost / 0.1).astype(np.float32), COST_RADIUS)
        base = matching_cost(global_positions + away, layer, SMOOTH_MOTION_PENALTY)
        # Where the key frame shows another layer there is nothing to compare.
        moved = np.asarray(np.clip(sample_image(self.grey_key, base.positions).round(), 0, 255), np.uint8)
        rest = self._compute_flow(layer, now, np.where(base.on_object_in_key == bool(layer), moved, now))
        return _select_best([*guesses, base, matching_cost(_warp_positions(base.positions, rest), layer, CORRECTION_PENALTY)])

    def _chain_flow(
        self, previous_frame: _PreviousFrame, layer: int, matrix: Float64Array, pixel_grid: Float32Array, current_image: UInt8Array
    ) -> Float32Array:
        """Positions by the picture before: moved by the layer's motion as a whole, and by the flow that is left."""
        to_before = _transform_positions(pixel_grid, compose_affine(invert_affine(previous_frame.matrices[layer]), matrix))
        moved = np.asarray(np.clip(sample_image(previous_frame.grey, to_before).round(), 0, 255), np.uint8)
        return sample_image(previous_frame.positions[layer], _warp_positions(to_before, self._compute_flow(layer, current_image, moved)))

    def _list_candidate_matrices(self, layer: int, matrix: Float64Array) -> list[Float64Array]:
        """A layer's motion as a whole, and where that is unsure what else it may be: as its corners move, or none."""
        if layer == 0 or self.object is None or self.object.second is None or self._before is None:
            return [matrix]
        ways = list[Float64Array]()
        for way in (matrix, invert_affine(self.object.second), self._before.matrices[layer]):
            if not any(np.abs(way - other).max() < 0.5 for other in ways):
                ways.append(way)
        return ways

    def _compute_flow(self, layer: int, current_image: UInt8Array, other_image: UInt8Array) -> Float32Array:
        return np.asarray(self.flows[layer].calc(current_image, other_image, None), np.float32)  # type: ignore[call-overload]


class _MatchingCost:
    """What a guess costs in a window `[h, w, 3]` of one picture."""

    def __init__(
        self,
        image: Float32Array,
        key_image: Float32Array,
        object_mask: Float32Array,
        lights: list[GainAndShift],
        cost_filter: _GuidedFilter,
        occlusion_cost: float,
    ) -> None:
        self.picture, self.key, self.part, self.lights, self.gather, self.hidden = (
            image,
            key_image,
            object_mask,
            lights,
            cost_filter,
            occlusion_cost,
        )
        self.slopes = _compute_gradients(image)
        self.most = _compute_contrast(cost_filter.spread)

    def __call__(self, positions: Float32Array, layer: int, penalty: float = 0.0) -> _Candidate:
        """The `extra` is what the guess has to win by."""
        own = sample_image(self.part, positions) > 0.5
        gain, shift = self.lights[layer]
        expected = np.clip(sample_image(self.key, positions) * gain + shift, 0, 255).astype(np.float32)
        red, green, blue = cv2.split(cv2.absdiff(self.picture, expected))
        colour = cv2.max(cv2.max(red, green), blue)
        x, y = (cv2.absdiff(mine, other) for mine, other in zip(self.slopes, _compute_gradients(expected), strict=True))
        evidence = 0.5 * np.minimum(colour / self.most, 1) + 0.5 * np.minimum(2 * (x + y) / self.most, 1)
        outside = ((positions < -0.5) | (positions > np.array(self.part.shape[::-1]) - 0.5)).any(-1)
        cost = np.where(own == bool(layer), np.where(outside, OCCLUSION_COSTS[0], evidence), 1.0 if layer else self.hidden)
        cost = self.gather(cost.astype(np.float32)) + np.float32(penalty)
        return _Candidate(positions, cost, np.asarray(evidence, np.float32), own, np.full_like(own, bool(layer)))


class _GuidedFilter:
    """Means over what is around and looks alike in one picture (guided filter)."""

    def __init__(self, grey: UInt8Array) -> None:
        self.guide = grey.astype(np.float32)
        self.mean = _apply_box_filter(self.guide)
        self.spread = _apply_box_filter(self.guide * self.guide) - self.mean * self.mean
        self.variance = np.asarray(self.spread + EDGE_CONTRAST**2, np.float32)

    def __call__(self, values: Float32Array) -> Float32Array:
        mean = _apply_box_filter(values)
        slope = np.asarray((_apply_box_filter(self.guide * values) - self.mean * mean) / self.variance, np.float32)
        return np.asarray(
            _apply_box_filter(slope) * self.guide + _apply_box_filter(np.asarray(mean - slope * self.mean, np.float32)), np.float32
        )


def _create_dense_flow(finest_scale: int) -> cv2.DISOpticalFlow:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(finest_scale)
    return flow


def _compute_contrast(variance: Float32Array) -> Float32Array:
    """How many levels of difference cost most, where colours vary by this around."""
    return np.clip(1.2 * np.sqrt(np.maximum(variance, 0)), *CONTRAST_LIMITS).astype(np.float32)


def _apply_logistic(features: list[Float32Array]) -> Float32Array:
    odds = CONFIDENCE_WEIGHTS[0] + sum(weight * feature for weight, feature in zip(CONFIDENCE_WEIGHTS[1:], features, strict=True))
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def _warp_positions(positions: Float32Array, motion: Float32Array) -> Float32Array:
    """`positions` `[h, w, 2]` read where `motion` `[h, w, 2]` leads to."""
    return sample_image(positions, build_pixel_grid(*motion.shape[:2]) + motion)


def _select_all(image: npt.NDArray[np.generic]) -> ImageSlices:
    return slice(0, image.shape[0]), slice(0, image.shape[1])


def _select_around_mask(mask: BoolArray, margin: int) -> ImageSlices:
    """The rows and columns of a mask and of what is around it, `LEAST` of each at least; all of them where it is empty."""
    bounds = mask_bounds(mask)
    if bounds is None:
        return _select_all(mask)
    spans = []
    for axis in (1, 0):
        low, high, end = bounds[axis] - margin, bounds[axis + 2] + margin, mask.shape[1 - axis]
        lack = max(0, MIN_FLOW_SIZE - (min(high, end) - max(low, 0)))
        spans.append(slice(max(0, low - lack), min(end, high + lack)))
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
    """Per pixel the guess that costs least."""
    best = candidates[0]
    for guess in candidates[1:]:
        better = guess.cost < best.cost
        parts = ((getattr(guess, part.name), getattr(best, part.name)) for part in fields(_Candidate))
        best = _Candidate(*(np.where(better[..., None] if new.ndim > 2 else better, new, old) for new, old in parts))
    return best


def _extrapolate_values(values: Float32Array, known_weight: Float32Array, sigma: float) -> Float32Array:
    """Values `[h, w, 2]` as they are where they are `known` `[h, w]`, smoothed, and continued to where they are not."""
    total, weight = np.zeros_like(values), np.zeros_like(known_weight)
    for width, importance in ((sigma / 4, 1.0), (sigma, 0.02), (6 * sigma, 0.0005)):
        weight += importance * _blur_values(known_weight, width)
        total += importance * _blur_values(values * known_weight[..., None], width)
    return np.asarray(total / (weight + 1e-6)[..., None], np.float32)


def _blur_values(values: Float32Array, sigma: float) -> Float32Array:
    part = max(1, int(sigma / 2))
    if part == 1:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)
    size = (max(1, values.shape[1] // part), max(1, values.shape[0] // part))
    small = cv2.GaussianBlur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / part)
    return np.asarray(cv2.resize(small, values.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
