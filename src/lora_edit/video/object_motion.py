"""Global motion of one object from every frame of a clip to a key frame, without drift.

For each frame, candidate motions are proposed by extrapolation, by tracked corners, by template search and by key points. All are compared
with the key frame, the best are aligned with it, and the best result is the motion. A lost object is searched in the whole frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import BoolArray, Float32Array, Float64Array, UInt8Array
from lora_edit.video.alignment import Fit, compose_affine, invert_affine
from lora_edit.video.appearance import Appearance, KeyPointMatcher
from lora_edit.video.flow import detect_corners, track_points
from lora_edit.video.working_size import WorkingSize, to_grey

SEARCH_EXTENT = 20.0
"""Pixels across the object in the template search."""

MAX_PEAKS = 3
"""Largest number of positions that the template search proposes."""

LOST_SCORE = 0.35
"""Score below which an object is lost."""

LOST_PENALIZED_SCORE = 0.25
"""Score, less the motion penalty, below which an object is lost as well."""

UNSURE_SCORE = 0.6
"""Score below which the motion is unsure and key points are matched as well."""

REFRESH_SCORE = 0.85
"""Score below which the object's recent appearance is replaced, as long as the motion is not unsure."""

MIN_RECENT_SHARE = 0.35
"""Smallest share of the object in a recent appearance."""

RECENT_SCORE_WEIGHT = 0.9
"""Weight of scores of the recent appearance, relative to those of the key frame."""

DISTANCE_PENALTY = 0.5
"""Penalty on the score of a candidate far from the expected position; it decreases to zero after `MAX_LOST_FRAMES` frames."""

DISTANCE_SCALE_LIMITS = (0.12, 0.35)
"""Limits of the distance, in object sizes, at which the penalty reaches two thirds: for steady and for unsteady motion."""

MIN_SEPARATION = 0.2
"""Smallest distance, in object sizes, between two distinct positions."""

SHAPE_CHANGE_SCALE = 0.15
"""Difference of a candidate's linear part from the expected ones at which it costs a third of `DISTANCE_PENALTY`; it costs only where a
distractor may occlude the object."""

MAX_SHAPE_CHANGE = (0.08, 0.6)
"""Largest difference of the linear part from the expected ones for an object that is nearly lost, and its increase per unit of score."""

DISTRACTOR_SCORE = 0.6
"""Score from which another image area counts as a distractor."""

MAX_LOST_FRAMES = 8
"""Frames after which the expectations of a lost object, and hidden distractors, are dropped."""

MAX_ALIGNED_GUESSES = 4
"""Largest number of candidates that are aligned with an image."""

MAX_CORNERS = 120
"""Largest number of corners tracked from frame to frame."""

TRUST_UPDATE_RATE = 0.15
"""Update rate of the trust in each part of the object."""


@dataclass(frozen=True)
class ObjectMotion:
    """Motion of an object in one frame.

    `matrix` `[2, 3]` is the affine map from the frame's pixels to the key frame's (pixel centres at integers). `confidence` is the share
    of the object that the frame shows there, corrected for light; 0 where the object is lost.
    """

    matrix: Float32Array
    confidence: float


def track_object(
    frames: torch.Tensor,
    key_index: int,
    key_mask: torch.Tensor,
    region: torch.Tensor | None = None,
    order: Sequence[int] | None = None,
) -> Iterator[ObjectMotion]:
    """Track the object `key_mask` `[H, W]` bool from each frame of `frames` `[T, H, W, 3]` uint8 to frame `key_index`.

    `order` lists the frames to process; consecutive ones are neighbours. The default is `key_index` and all later frames. If `region`
    `[T, H, W]` bool is given, the object is searched only inside it.
    """
    work = WorkingSize(frames.shape[1], frames.shape[2])
    tracker = ObjectTracker(work.resize_image(frames[key_index]), work.resize_mask(key_mask))
    for number in range(key_index, len(frames)) if order is None else order:
        frame_region = None if region is None else work.resize_mask(region[number])
        motion = tracker.track(work.resize_image(frames[number]), frame_region)
        yield ObjectMotion(work.to_full_size(motion.matrix), motion.confidence)


@dataclass(frozen=True, eq=False)
class _Distractor:
    """Image area that looks like the object: position, velocity per frame (x, y), and frames since it was last distinct from the object."""

    position: Float64Array
    velocity: Float64Array
    num_hidden_frames: int = 0

    @property
    def expected_position(self) -> Float64Array:
        """Position in the next image."""
        return self.position + self.velocity


class ObjectTracker:
    """Tracker of one object of a key image `[h, w, 3]`, 0..255, from image to image.

    Images are compared with the object's appearance in the key image and, where that has changed too much, with a recent appearance.
    """

    def __init__(self, key_image: Float32Array, mask: BoolArray) -> None:
        self.key_image, self.mask = key_image, mask
        self.appearances = [Appearance(key_image, mask, np.eye(2, 3), 1.0)] if mask.sum() >= 16 else []
        self.size = float(np.sqrt(max(1, mask.sum())))
        self.centre = np.argwhere(mask).mean(0)[::-1] if mask.any() else np.zeros(2)
        self.matrix = np.eye(2, 3)  # from the key image to the last image
        self.score = 1.0
        self.alternative: Float64Array | None = None  # alternative to `matrix` while the motion is unsure
        self.velocity, self.acceleration, self.num_lost_frames = np.zeros(2), DISTANCE_SCALE_LIMITS[1] * self.size, 0
        self.distractors = list[_Distractor]()
        self._previous_grey: UInt8Array | None = None
        self._visible_mask = mask.view(np.uint8)
        self._key_point_matcher = KeyPointMatcher(to_grey(key_image), mask)

    @property
    def light(self) -> tuple[Float32Array, Float32Array]:
        """Gain and shift `[3]` from the object's own colours to those of the last image."""
        return self.appearances[0].fine.light if self.appearances else (np.ones(3, np.float32), np.zeros(3, np.float32))

    def track(self, image: Float32Array, search_mask: BoolArray | None = None) -> ObjectMotion:
        """Track the object in the next image; `search_mask` `[h, w]` limits where its centre may be."""
        if not self.appearances:
            return ObjectMotion(np.eye(2, 3, dtype=np.float32), 0.0)
        grey = to_grey(image)
        appearance, best = self._find_best_fit(image, grey, search_mask)
        self._update_state(appearance, best, image)
        self._previous_grey = grey
        inverse = invert_affine(self.matrix)
        return ObjectMotion(np.asarray(inverse, np.float32), best.score if best.score >= LOST_SCORE else 0.0)

    def correct_motion(self, matrix: Float64Array) -> None:
        """Replace the motion of the last image by a map from the key image that was measured elsewhere, if it is plausible."""
        if self._is_plausible(matrix) and not self._may_be_occluded(self.matrix):
            # After a loss the previous position is unknown, so the velocity stays unchanged.
            self.velocity = self.velocity + (self._map_centre(matrix) - self._map_centre(self.matrix) if self.num_lost_frames == 0 else 0)
            self.matrix, self.num_lost_frames = matrix, 0

    def _find_best_fit(self, image: Float32Array, grey: UInt8Array, search_mask: BoolArray | None) -> tuple[Appearance, Fit]:
        reference = self.appearances[0]
        blurred = reference.coarse.blur_image(image)
        expected = [self.matrix + _build_shift(self.velocity)]
        corner_guesses = [] if self._previous_grey is None else self._propose_from_corners(grey)
        guesses = [*expected, *corner_guesses, self.matrix, *self._propose_from_search(blurred, (expected + corner_guesses)[-1])]
        expected += [] if self._may_be_occluded(expected[0]) else corner_guesses
        fits = self._align_guesses(reference, blurred, guesses, expected, search_mask)
        if not fits or fits[0].score < UNSURE_SCORE:
            guesses = [*(fit.matrix for fit in fits[:2]), *self._key_point_matcher.match(grey)]
            fits = self._align_guesses(reference, blurred, guesses, expected, search_mask)
        self._update_distractors(fits)
        self.alternative = None if (fits and fits[0].score > UNSURE_SCORE) or self._may_be_occluded(expected[0]) else expected[-1]
        best = self._refine_fit(reference, image, fits, expected)
        if best.score < UNSURE_SCORE and len(self.appearances) > 1:
            recent = self.appearances[1]
            guesses = [*(fit.matrix for fit in fits[:2]), *expected]
            fits = self._align_guesses(recent, recent.coarse.blur_image(image), guesses, expected, search_mask)
            candidate = self._refine_fit(recent, image, fits, expected)
            # The key image takes precedence wherever it still matches.
            best = max(best, self._refine_fit(reference, image, [candidate], expected), key=lambda fit: fit.score)
            penalty = self._compute_motion_penalty(candidate.matrix, expected)
            if candidate.score > best.score and candidate.score - penalty >= LOST_PENALIZED_SCORE:
                return recent, candidate
        penalty = self._compute_motion_penalty(best.matrix, expected)
        return reference, best if best.score >= LOST_SCORE and best.score - penalty >= LOST_PENALIZED_SCORE else Fit(
            expected[-1], min(best.score, LOST_SCORE - 0.01)
        )

    def _refine_fit(self, appearance: Appearance, image: Float32Array, fits: list[Fit], expected_matrices: list[Float64Array]) -> Fit:
        """Align the first of `fits` finely; an unsure fit keeps the expected linear part."""
        for fit in fits[:1]:
            blurred = appearance.fine.blur_image(image)
            refined = appearance.fit(appearance.fine, blurred, fit.matrix, 10)
            shape_change = min(float(np.abs(refined.matrix[:, :2] - each[:, :2]).max()) for each in expected_matrices)
            max_change = MAX_SHAPE_CHANGE[0] + MAX_SHAPE_CHANGE[1] * max(0.0, refined.score - LOST_SCORE)
            if refined.score < UNSURE_SCORE and shape_change > max_change:
                start = np.column_stack([expected_matrices[-1][:, :2], np.zeros(2)])
                start[:, 2] = self._map_centre(fit.matrix) - self._map_centre(start)
                refined = appearance.fit(appearance.fine, blurred, start, 10, translation_only=True)
            expected_fit = Fit(expected_matrices[-1], appearance.score(appearance.fine, blurred, expected_matrices[-1]))
            candidates = [refined, expected_fit] if self._may_be_occluded(expected_matrices[0]) else [refined]
            return max(
                (each for each in candidates if self._is_plausible(each.matrix)),
                key=lambda each: each.score - self._compute_motion_penalty(each.matrix, expected_matrices),
                default=Fit(self.matrix, 0.0),
            )
        return Fit(self.matrix, 0.0)

    def _align_guesses(
        self,
        appearance: Appearance,
        blurred_image: Float32Array,
        guesses: list[Float64Array],
        expected_matrices: list[Float64Array],
        search_mask: BoolArray | None,
    ) -> list[Fit]:
        """Align the most promising candidates coarsely; return them best first."""
        scored = sorted(
            guesses,
            key=lambda guess: (
                self._compute_motion_penalty(guess, expected_matrices) - appearance.score(appearance.coarse, blurred_image, guess)
            ),
        )
        fits = []
        for guess in self._remove_duplicates(scored)[:MAX_ALIGNED_GUESSES]:
            fit = appearance.fit(appearance.coarse, blurred_image, guess, 6)
            if self._is_plausible(fit.matrix) and self._is_in_search_mask(fit.matrix, search_mask):
                fits.append((fit.score - self._compute_motion_penalty(fit.matrix, expected_matrices), fit))
        if self._may_be_occluded(expected_matrices[0]):
            # Alignment is attracted by the occluder in front.
            fits += [
                (score, Fit(each, score))
                for each in expected_matrices
                for score in (appearance.score(appearance.coarse, blurred_image, each),)
            ]
        return [fit for _, fit in sorted(fits, key=lambda each: -each[0])]

    def _remove_duplicates(self, guesses: list[Float64Array]) -> list[Float64Array]:
        """Remove candidates that are nearly equal to an earlier one."""
        unique = list[Float64Array]()
        for guess in guesses:
            same_position = (
                np.linalg.norm(self._map_centre(guess) - self._map_centre(other)) < MIN_SEPARATION / 4 * self.size for other in unique
            )
            same_shape = (np.abs(guess[:, :2] - other[:, :2]).max() < MAX_SHAPE_CHANGE[0] / 4 for other in unique)
            if not any(a and b for a, b in zip(same_position, same_shape, strict=True)):
                unique.append(guess)
        return unique

    def _compute_motion_penalty(self, matrix: Float64Array, expected_matrices: list[Float64Array]) -> float:
        """Compute the penalty for a position away from the expected one.

        It decreases while the object is lost, except near a distractor.
        """
        centre = self._map_centre(matrix)
        distance = min(float(np.linalg.norm(centre - self._map_centre(each))) for each in expected_matrices) / self.size
        distance_scale = np.clip(4 * self.acceleration / self.size, *DISTANCE_SCALE_LIMITS)
        deviation = 1 - np.exp(-((distance / distance_scale) ** 2))
        if self._may_be_occluded(expected_matrices[0]):
            shape_change = min(float(np.abs(matrix[:, :2] - each[:, :2]).max()) for each in expected_matrices)
            deviation += (1 - np.exp(-((shape_change / SHAPE_CHANGE_SCALE) ** 2))) / 2
        cost = DISTANCE_PENALTY * deviation * max(0.0, 1 - self.num_lost_frames / MAX_LOST_FRAMES)
        distractor_distances = (float(np.linalg.norm(centre - each.expected_position)) for each in self.distractors)
        if min(distractor_distances, default=np.inf) / self.size < distance:
            cost += DISTANCE_PENALTY * (1 - np.exp(-((distance / DISTANCE_SCALE_LIMITS[0]) ** 2 * 4)))
        return float(cost)

    def _update_distractors(self, fits: list[Fit]) -> None:
        """Update the distractors: those found in this image, and those that are hidden and move on as expected."""
        centre = self._map_centre(fits[0].matrix) if fits and fits[0].score >= LOST_SCORE else None
        positions = [self._map_centre(fit.matrix) for fit in fits[min(1, len(fits)) :] if fit.score > DISTRACTOR_SCORE]
        visible = list[_Distractor]()
        for position in positions:
            if centre is not None and np.linalg.norm(position - centre) > MIN_SEPARATION * self.size:
                previous = min(self.distractors, key=lambda each: float(np.linalg.norm(each.expected_position - position)), default=None)
                if previous is not None and np.linalg.norm(previous.expected_position - position) < self.size / 2:
                    self.distractors.remove(previous)
                    visible.append(_Distractor(position, position - previous.position))
                else:
                    visible.append(_Distractor(position, np.zeros(2)))
        hidden = (
            _Distractor(each.expected_position, each.velocity, each.num_hidden_frames + 1)
            for each in self.distractors
            if each.num_hidden_frames < MAX_LOST_FRAMES
        )
        self.distractors = [*visible, *hidden]

    def _may_be_occluded(self, matrix: Float64Array) -> bool:
        """Whether a distractor may be in front of the object; its corners and its appearance are unreliable then."""
        centre = self._map_centre(matrix)
        return any(np.linalg.norm(each.expected_position - centre) < self.size for each in self.distractors)

    def _map_centre(self, matrix: Float64Array) -> Float64Array:
        return np.asarray(matrix[:, :2] @ self.centre + matrix[:, 2], np.float64)

    def _is_plausible(self, matrix: Float64Array) -> bool:
        """Whether the object is neither mirrored nor distorted, and has about its previous size."""
        large, small = np.linalg.svd(matrix[:, :2], compute_uv=False)
        area, previous_area = np.linalg.det(matrix[:, :2]), np.linalg.det(self.matrix[:, :2])
        max_ratio = 1.3 * 1.1 ** min(self.num_lost_frames, MAX_LOST_FRAMES)
        return bool(area > 0 and small > 0.15 and large < 6 and large / small < 3.5 and 1 / max_ratio < area / previous_area < max_ratio)

    def _is_in_search_mask(self, matrix: Float64Array, search_mask: BoolArray | None) -> bool:
        if search_mask is None:
            return True
        x, y = np.rint(self._map_centre(matrix)).astype(int)
        return bool(0 <= y < search_mask.shape[0] and 0 <= x < search_mask.shape[1] and search_mask[y, x]) or not search_mask.any()

    def _propose_from_corners(self, grey: UInt8Array) -> list[Float64Array]:
        """Propose a map from the motion of corners on the object since the previous image; a list of at most one."""
        assert self._previous_grey is not None
        previous_points = detect_corners(self._previous_grey, MAX_CORNERS, max(2.0, self.size / 20), self._visible_mask)
        if len(previous_points) < 4:
            return []
        expected = np.asarray(previous_points + self.velocity, np.float32)
        points, is_found = track_points(self._previous_grey, grey, previous_points, expected)
        points_back, is_found_back = track_points(grey, self._previous_grey, points, np.asarray(points - self.velocity, np.float32))
        is_consistent = is_found & is_found_back & (np.linalg.norm(points_back - previous_points, axis=-1)[:, 0] < 1)
        if is_consistent.sum() < 4:
            return []
        motion, _ = cv2.estimateAffinePartial2D(previous_points[is_consistent], points[is_consistent], ransacReprojThreshold=1.5)
        return [] if motion is None else [compose_affine(np.asarray(motion, np.float64), self.matrix)]

    def _propose_from_search(self, blurred_image: Float32Array, expected_matrix: Float64Array) -> list[Float64Array]:
        """Propose the expected map shifted to the positions with the best template match."""
        scale = min(1.0, SEARCH_EXTENT / self.size)
        size = (max(8, round(blurred_image.shape[1] * scale)), max(8, round(blurred_image.shape[0] * scale)))
        small = cv2.resize(blurred_image, size, interpolation=cv2.INTER_AREA)
        shrink = np.column_stack([np.diag([size[0] / blurred_image.shape[1], size[1] / blurred_image.shape[0]]), np.zeros(2)])
        key_to_small = compose_affine(shrink, compose_affine(expected_matrix, np.eye(2, 3)))
        y, x = np.nonzero(self.mask)
        positions = np.stack([x, y], -1) @ key_to_small[:, :2].T + key_to_small[:, 2]
        low, high = np.floor(positions.min(0)) - 1, np.ceil(positions.max(0)) + 1
        extent = (high - low).astype(int) + 1
        if (extent < 4).any():
            return []
        key_to_template = key_to_small - np.column_stack([np.zeros((2, 2)), low])
        template = cv2.warpAffine(cv2.GaussianBlur(self.key_image, (0, 0), max(0.3, 0.4 / scale)), key_to_template, tuple(extent.tolist()))
        template_mask = cv2.warpAffine(self.mask.astype(np.float32), key_to_template, tuple(extent.tolist()))
        margin = extent // 2
        padded = cv2.copyMakeBorder(small, margin[1], margin[1], margin[0], margin[0], cv2.BORDER_REPLICATE)
        if (np.array(padded.shape[1::-1]) < extent).any() or template_mask.max() <= 0:
            return []
        match = np.asarray(cv2.matchTemplate(padded, template, cv2.TM_CCOEFF_NORMED, None, template_mask), np.float32)
        return [expected_matrix + _build_shift((position - margin - low) / scale) for position in _find_peaks(match, extent)]

    def _update_state(self, appearance: Appearance, best: Fit, image: Float32Array) -> None:
        """Update motion, visibility, light and trust, and the recent appearance."""
        shift = self._map_centre(best.matrix) - self._map_centre(self.matrix)
        is_lost = best.score < LOST_SCORE
        self.acceleration = max(
            0.5 * self.acceleration, 0.0 if is_lost or self.num_lost_frames else float(np.linalg.norm(shift - self.velocity))
        )
        self.velocity = 0.8 * self.velocity if is_lost else shift if self.num_lost_frames == 0 else np.zeros(2)
        self.num_lost_frames = self.num_lost_frames + 1 if is_lost else 0
        self.matrix, self.score = best.matrix, best.score
        self._visible_mask = (self.appearances[-1] if is_lost else appearance).find_visible_pixels(image, best.matrix)
        if is_lost:
            return
        for each in self.appearances:
            each.update_light_and_trust(image, best.matrix, TRUST_UPDATE_RATE if each is appearance and best.score > UNSURE_SCORE else 0.0)
        recent = self.appearances[-1]
        if best.score > UNSURE_SCORE and recent.score(recent.fine, recent.fine.blur_image(image), best.matrix) < REFRESH_SCORE:
            # Only pixels that still match, because something may be passing in front.
            warped = cv2.warpAffine(self.mask.view(np.uint8), best.matrix, (image.shape[1], image.shape[0]))
            mask = np.asarray((np.asarray(warped) > 0) & (self._visible_mask > 0), bool)
            if mask.sum() > max(16.0, MIN_RECENT_SHARE * self.mask.sum() * np.linalg.det(best.matrix[:, :2])):
                self.appearances = [self.appearances[0], Appearance(image, mask, best.matrix, RECENT_SCORE_WEIGHT)]


def _find_peaks(match: Float32Array, extent: npt.NDArray[np.int64]) -> list[Float64Array]:
    """Find the best positions (x, y) of a template match and suppress the neighbourhood of each."""
    match = np.where(np.isfinite(match), match, -1).astype(np.float32)
    peaks = []
    for _ in range(MAX_PEAKS):
        _, maximum, _, (x, y) = cv2.minMaxLoc(match)
        if maximum < 0.2:
            break
        peaks.append(np.array([x, y], np.float64))
        radius = np.maximum(1, extent // 3)
        match[max(0, y - radius[1]) : y + radius[1] + 1, max(0, x - radius[0]) : x + radius[0] + 1] = -1
    return peaks


def _build_shift(offset: Float64Array) -> Float64Array:
    """Build the matrix that adds a shift (x, y) to a map."""
    return np.column_stack([np.zeros((2, 2)), offset])
