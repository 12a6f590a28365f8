"""The motion of one object as a whole, from every frame of a clip to a key frame, without drift.

In every frame some guesses (as it moved so far, where its corners moved, where a search finds its look, where its key points match) are
each compared with the key frame; the best are aligned with it, and the best of these is the motion. A lost object is looked for in the
whole frame.
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
"""Pixels across the object when it is searched for."""

MAX_PEAKS = 3
"""Places that a search proposes."""

LOST_SCORE = 0.35
"""Agreement below which an object is lost."""

LOST_PENALIZED_SCORE = 0.25
"""Agreement, less what a strange place costs, below which an object is lost as well."""

UNSURE_SCORE = 0.6
"""Agreement below which key points are matched as well."""

REFRESH_SCORE = 0.85
"""Agreement below which the object's recent look is taken anew, as long as it is not unsure."""

MIN_RECENT_SHARE = 0.35
"""Share of the object that has to be left in its recent look."""

RECENT_SCORE_WEIGHT = 0.9
"""What agreement with a recent look counts beside agreement with the key frame."""

DISTANCE_PENALTY = 0.5
"""What a guess far off the expected place loses of its agreement; nothing after `FORGOTTEN` frames."""

DISTANCE_SCALE_LIMITS = (0.12, 0.35)
"""The distance, in sizes of the object, at which a guess loses two thirds of that: of an object that moves steadily, and of one that does
not."""

MIN_SEPARATION = 0.2
"""Sizes of the object that two places have to be apart to count as two."""

SHAPE_CHANGE_SCALE = 0.15
"""By how much its linear part differs from the expected ones where a guess loses a third of what it loses far off, where something that
looks like the object may be in front of it."""

MAX_SHAPE_CHANGE = (0.08, 0.6)
"""By how much its linear part may differ from the expected ones while the object is nearly lost, and how much more for each unit of
agreement beyond."""

DISTRACTOR_SCORE = 0.6
"""Agreement from which something else counts as one that looks like the object."""

MAX_LOST_FRAMES = 8

MAX_ALIGNED_GUESSES = 4
"""So many guesses are aligned with a picture."""

MAX_CORNERS = 120
"""Corners followed from frame to frame."""

TRUST_UPDATE_RATE = 0.15
"""Weight of a new frame in what is known of which parts of the object follow its motion."""


@dataclass(frozen=True)
class ObjectMotion:
    """`matrix` `[2, 3]`: the affine map from a frame's pixels to the key frame's (pixel centres at integers); `confidence`: the share of
    the object that the frame shows there, light apart; 0 where it is lost.
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
    """The motion of `mask_in_key` `[H, W]` bool from each frame of `frames` `[T, H, W, 3]` uint8 to frame `key`.

    Frames come in the given `order` (neighbours follow each other; `key` and what follows it by default). Where `region` `[T, H, W]` bool
    is given, the object is looked for in it only.
    """
    work = WorkingSize(frames.shape[1], frames.shape[2])
    tracker = ObjectTracker(work.resize_image(frames[key_index]), work.resize_mask(key_mask))
    for number in range(key_index, len(frames)) if order is None else order:
        within = None if region is None else work.resize_mask(region[number])
        motion = tracker.track(work.resize_image(frames[number]), within)
        yield ObjectMotion(work.to_full_size(motion.matrix), motion.confidence)


@dataclass(frozen=True, eq=False)
class _Distractor:
    """What looks like the object: place, velocity per frame (x, y), and for how many frames it was not to be told from the object."""

    position: Float64Array
    velocity: Float64Array
    num_hidden_frames: int = 0

    @property
    def expected_position(self) -> Float64Array:
        """Its place in the next picture."""
        return self.position + self.velocity


class ObjectTracker:
    """One object of a key picture `[h, w, 3]`, 0..255, followed from picture to picture.

    It is compared with how the key picture shows it, and, where that looks too different by now, with how a recent one does.
    """

    def __init__(self, key_image: Float32Array, mask: BoolArray) -> None:
        self.key, self.mask = key_image, mask
        self.looks = [Appearance(key_image, mask, np.eye(2, 3), 1.0)] if mask.sum() >= 16 else []
        self.side = float(np.sqrt(max(1, mask.sum())))
        self.middle = np.argwhere(mask).mean(0)[::-1] if mask.any() else np.zeros(2)
        self.matrix = np.eye(2, 3)  # from the key picture
        self.score = 1.0
        self.second: Float64Array | None = None  # where else it may be
        self.velocity, self.acceleration, self.lost = np.zeros(2), DISTANCE_SCALE_LIMITS[1] * self.side, 0
        self.distractors = list[_Distractor]()
        self._before: UInt8Array | None = None
        self._seen = mask.view(np.uint8)
        self._points = KeyPointMatcher(to_grey(key_image), mask)

    @property
    def light(self) -> tuple[Float32Array, Float32Array]:
        """Factor and shift `[3]` from the object's own colours to those of the last picture."""
        return self.looks[0].fine.light if self.looks else (np.ones(3, np.float32), np.zeros(3, np.float32))

    def track(self, image: Float32Array, search_mask: BoolArray | None = None) -> ObjectMotion:
        """The motion in the next picture, the object within the mask `within` `[h, w]` if one is given."""
        if not self.looks:
            return ObjectMotion(np.eye(2, 3, dtype=np.float32), 0.0)
        grey = to_grey(image)
        look, best = self._find_best_fit(image, grey, search_mask)
        self._update_state(look, best, image)
        self._before = grey
        back = invert_affine(self.matrix)
        return ObjectMotion(np.asarray(back, np.float32), best.score if best.score >= LOST_SCORE else 0.0)

    def correct_motion(self, matrix: Float64Array) -> None:
        """Put the object of the last picture where others saw it, by a map from the key picture."""
        if self._is_plausible(matrix) and not self._may_be_occluded(self.matrix):
            # The picture before is not known any more, so the velocity stays what it was.
            self.velocity = self.velocity + (self._map_centre(matrix) - self._map_centre(self.matrix) if self.lost == 0 else 0)
            self.matrix, self.lost = matrix, 0

    def _find_best_fit(self, image: Float32Array, grey: UInt8Array, search_mask: BoolArray | None) -> tuple[Appearance, Fit]:
        key = self.looks[0]
        soft = key.rough.blur_image(image)
        expected = [self.matrix + _build_shift(self.velocity)]
        cornered = [] if self._before is None else self._propose_from_corners(grey)
        guesses = [*expected, *cornered, self.matrix, *self._propose_from_search(soft, (expected + cornered)[-1])]
        expected += [] if self._may_be_occluded(expected[0]) else cornered
        fits = self._align_guesses(key, soft, guesses, expected, search_mask)
        if not fits or fits[0].score < UNSURE_SCORE:
            fits = self._align_guesses(key, soft, [*(fit.matrix for fit in fits[:2]), *self._points.match(grey)], expected, search_mask)
        self._update_distractors(fits)
        self.second = None if (fits and fits[0].score > UNSURE_SCORE) or self._may_be_occluded(expected[0]) else expected[-1]
        found = self._refine_fit(key, image, fits, expected)
        if found.score < UNSURE_SCORE and len(self.looks) > 1:
            recent = self.looks[1]
            guesses = [*(fit.matrix for fit in fits[:2]), *expected]
            fits = self._align_guesses(recent, recent.rough.blur_image(image), guesses, expected, search_mask)
            second = self._refine_fit(recent, image, fits, expected)
            # The key picture has the last word, wherever it still can tell.
            found = max(found, self._refine_fit(key, image, [second], expected), key=lambda fit: fit.score)
            if second.score > found.score and second.score - self._compute_motion_penalty(second.matrix, expected) >= LOST_PENALIZED_SCORE:
                return recent, second
        doubt = self._compute_motion_penalty(found.matrix, expected)
        return key, found if found.score >= LOST_SCORE and found.score - doubt >= LOST_PENALIZED_SCORE else Fit(
            expected[-1], min(found.score, LOST_SCORE - 0.01)
        )

    def _refine_fit(self, appearance: Appearance, image: Float32Array, fits: list[Fit], expected_matrices: list[Float64Array]) -> Fit:
        """The first of some fits, aligned finely; an unsure one keeps its shape."""
        for fit in fits[:1]:
            soft = appearance.fine.blur_image(image)
            fine = appearance.fit(appearance.fine, soft, fit.matrix, 10)
            bent = min(float(np.abs(fine.matrix[:, :2] - each[:, :2]).max()) for each in expected_matrices)
            if fine.score < UNSURE_SCORE and bent > MAX_SHAPE_CHANGE[0] + MAX_SHAPE_CHANGE[1] * max(0.0, fine.score - LOST_SCORE):
                start = np.column_stack([expected_matrices[-1][:, :2], np.zeros(2)])
                start[:, 2] = self._map_centre(fit.matrix) - self._map_centre(start)
                fine = appearance.fit(appearance.fine, soft, start, 10, translation_only=True)
            stay = Fit(expected_matrices[-1], appearance.score(appearance.fine, soft, expected_matrices[-1]))
            found = [each for each in (fine, stay)[: 1 + self._may_be_occluded(expected_matrices[0])] if self._is_plausible(each.matrix)]
            return max(
                found,
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
        """The most promising guesses, aligned roughly, best first."""
        scored = sorted(
            guesses,
            key=lambda guess: (
                self._compute_motion_penalty(guess, expected_matrices) - appearance.score(appearance.rough, blurred_image, guess)
            ),
        )
        fits = []
        for guess in self._remove_duplicates(scored)[:MAX_ALIGNED_GUESSES]:
            fit = appearance.fit(appearance.rough, blurred_image, guess, 6)
            if self._is_plausible(fit.matrix) and self._is_in_search_mask(fit.matrix, search_mask):
                fits.append((fit.score - self._compute_motion_penalty(fit.matrix, expected_matrices), fit))
        if self._may_be_occluded(expected_matrices[0]):
            # Alignment is drawn to what lies in front.
            fits += [
                (score, Fit(each, score))
                for each in expected_matrices
                for score in (appearance.score(appearance.rough, blurred_image, each),)
            ]
        return [fit for _, fit in sorted(fits, key=lambda each: -each[0])]

    def _remove_duplicates(self, guesses: list[Float64Array]) -> list[Float64Array]:
        """The guesses without those that come to nearly the same as one before."""
        kept = list[Float64Array]()
        for guess in guesses:
            near = (np.linalg.norm(self._map_centre(guess) - self._map_centre(other)) < MIN_SEPARATION / 4 * self.side for other in kept)
            alike = (np.abs(guess[:, :2] - other[:, :2]).max() < MAX_SHAPE_CHANGE[0] / 4 for other in kept)
            if not any(a and b for a, b in zip(near, alike, strict=True)):
                kept.append(guess)
        return kept

    def _compute_motion_penalty(self, matrix: Float64Array, expected_matrices: list[Float64Array]) -> float:
        """What a place off the expected one costs; less the longer the object is lost, unless something that looks like it was there."""
        here = self._map_centre(matrix)
        away = min(float(np.linalg.norm(here - self._map_centre(each))) for each in expected_matrices) / self.side
        near = np.clip(4 * self.acceleration / self.side, *DISTANCE_SCALE_LIMITS)
        strange = 1 - np.exp(-((away / near) ** 2))
        if self._may_be_occluded(expected_matrices[0]):
            bent = min(float(np.abs(matrix[:, :2] - each[:, :2]).max()) for each in expected_matrices)
            strange += (1 - np.exp(-((bent / SHAPE_CHANGE_SCALE) ** 2))) / 2
        cost = DISTANCE_PENALTY * strange * max(0.0, 1 - self.lost / MAX_LOST_FRAMES)
        other = min((float(np.linalg.norm(here - each.expected_position)) for each in self.distractors), default=np.inf) / self.side
        return float(cost + (DISTANCE_PENALTY * (1 - np.exp(-((away / DISTANCE_SCALE_LIMITS[0]) ** 2 * 4))) if other < away else 0.0))

    def _update_distractors(self, fits: list[Fit]) -> None:
        """Where else something looks like the object, and where those go on to that can't be told from it now."""
        here = self._map_centre(fits[0].matrix) if fits and fits[0].score >= LOST_SCORE else None
        places = [self._map_centre(fit.matrix) for fit in fits[min(1, len(fits)) :] if fit.score > DISTRACTOR_SCORE]
        found = list[_Distractor]()
        for place in places:
            if here is not None and np.linalg.norm(place - here) > MIN_SEPARATION * self.side:
                known = min(self.distractors, key=lambda each: float(np.linalg.norm(each.expected_position - place)), default=None)
                if known is not None and np.linalg.norm(known.expected_position - place) < self.side / 2:
                    self.distractors.remove(known)
                    found.append(_Distractor(place, place - known.position))
                else:
                    found.append(_Distractor(place, np.zeros(2)))
        hidden = (
            _Distractor(each.expected_position, each.velocity, each.num_hidden_frames + 1)
            for each in self.distractors
            if each.num_hidden_frames < MAX_LOST_FRAMES
        )
        self.distractors = [*found, *hidden]

    def _may_be_occluded(self, matrix: Float64Array) -> bool:
        """May something that looks like the object lie in front of it? Its corners and its look say nothing then."""
        here = self._map_centre(matrix)
        return any(np.linalg.norm(each.expected_position - here) < self.side for each in self.distractors)

    def _map_centre(self, matrix: Float64Array) -> Float64Array:
        return np.asarray(matrix[:, :2] @ self.middle + matrix[:, 2], np.float64)

    def _is_plausible(self, matrix: Float64Array) -> bool:
        """Is the object neither mirrored nor torn, and of about the size it had?"""
        large, small = np.linalg.svd(matrix[:, :2], compute_uv=False)
        area, was = np.linalg.det(matrix[:, :2]), np.linalg.det(self.matrix[:, :2])
        reach = 1.3 * 1.1 ** min(self.lost, MAX_LOST_FRAMES)
        return bool(area > 0 and small > 0.15 and large < 6 and large / small < 3.5 and 1 / reach < area / was < reach)

    def _is_in_search_mask(self, matrix: Float64Array, search_mask: BoolArray | None) -> bool:
        if search_mask is None:
            return True
        x, y = np.rint(self._map_centre(matrix)).astype(int)
        return bool(0 <= y < search_mask.shape[0] and 0 <= x < search_mask.shape[1] and search_mask[y, x]) or not search_mask.any()

    def _propose_from_corners(self, grey: UInt8Array) -> list[Float64Array]:
        """The map from where corners on the object were in the picture before."""
        assert self._before is not None
        old = detect_corners(self._before, MAX_CORNERS, max(2.0, self.side / 20), self._seen)
        if len(old) < 4:
            return []
        there = np.asarray(old + self.velocity, np.float32)
        new, found = track_points(self._before, grey, old, there)
        back, returned = track_points(grey, self._before, new, np.asarray(new - self.velocity, np.float32))
        sure = found & returned & (np.linalg.norm(back - old, axis=-1)[:, 0] < 1)
        if sure.sum() < 4:
            return []
        moved, _ = cv2.estimateAffinePartial2D(old[sure], new[sure], ransacReprojThreshold=1.5)
        return [] if moved is None else [compose_affine(np.asarray(moved, np.float64), self.matrix)]

    def _propose_from_search(self, blurred_image: Float32Array, expected_matrix: Float64Array) -> list[Float64Array]:
        """The expected map moved to where the picture looks most like the object."""
        scale = min(1.0, SEARCH_EXTENT / self.side)
        size = (max(8, round(blurred_image.shape[1] * scale)), max(8, round(blurred_image.shape[0] * scale)))
        small = cv2.resize(blurred_image, size, interpolation=cv2.INTER_AREA)
        shrink = np.column_stack([np.diag([size[0] / blurred_image.shape[1], size[1] / blurred_image.shape[0]]), np.zeros(2)])
        linear = compose_affine(shrink, compose_affine(expected_matrix, np.eye(2, 3)))
        y, x = np.nonzero(self.mask)
        places = np.stack([x, y], -1) @ linear[:, :2].T + linear[:, 2]
        low, high = np.floor(places.min(0)) - 1, np.ceil(places.max(0)) + 1
        extent = (high - low).astype(int) + 1
        if (extent < 4).any():
            return []
        placed = linear - np.column_stack([np.zeros((2, 2)), low])
        look = cv2.warpAffine(cv2.GaussianBlur(self.key, (0, 0), max(0.3, 0.4 / scale)), placed, tuple(extent.tolist()))
        part = cv2.warpAffine(self.mask.astype(np.float32), placed, tuple(extent.tolist()))
        margin = extent // 2
        field = cv2.copyMakeBorder(small, margin[1], margin[1], margin[0], margin[0], cv2.BORDER_REPLICATE)
        if (np.array(field.shape[1::-1]) < extent).any() or part.max() <= 0:
            return []
        match = np.asarray(cv2.matchTemplate(field, look, cv2.TM_CCOEFF_NORMED, None, part), np.float32)
        return [expected_matrix + _build_shift((place - margin - low) / scale) for place in _find_peaks(match, extent)]

    def _update_state(self, appearance: Appearance, best: Fit, image: Float32Array) -> None:
        """Remember the motion, and which parts follow it."""
        moved = self._map_centre(best.matrix) - self._map_centre(self.matrix)
        lost = best.score < LOST_SCORE
        self.acceleration = max(0.5 * self.acceleration, 0.0 if lost or self.lost else float(np.linalg.norm(moved - self.velocity)))
        self.velocity = 0.8 * self.velocity if lost else moved if self.lost == 0 else np.zeros(2)
        self.lost = self.lost + 1 if lost else 0
        self.matrix, self.score = best.matrix, best.score
        self._seen = (self.looks[-1] if lost else appearance).find_visible_pixels(image, best.matrix)
        if lost:
            return
        for each in self.looks:
            each.update_light_and_trust(image, best.matrix, TRUST_UPDATE_RATE if each is appearance and best.score > UNSURE_SCORE else 0.0)
        recent = self.looks[-1]
        if best.score > UNSURE_SCORE and recent.score(recent.fine, recent.fine.blur_image(image), best.matrix) < REFRESH_SCORE:
            # Only what still looks as it did: something may be passing in front.
            where = cv2.warpAffine(self.mask.view(np.uint8), best.matrix, (image.shape[1], image.shape[0]))
            mask = np.asarray((np.asarray(where) > 0) & (self._seen > 0), bool)
            if mask.sum() > max(16.0, MIN_RECENT_SHARE * self.mask.sum() * np.linalg.det(best.matrix[:, :2])):
                self.looks = [self.looks[0], Appearance(image, mask, best.matrix, RECENT_SCORE_WEIGHT)]


def _find_peaks(match: Float32Array, extent: npt.NDArray[np.int64]) -> list[Float64Array]:
    """The best places (x, y) of a match, at least half the object's size apart."""
    match = np.where(np.isfinite(match), match, -1).astype(np.float32)
    found = []
    for _ in range(MAX_PEAKS):
        _, most, _, (x, y) = cv2.minMaxLoc(match)
        if most < 0.2:
            break
        found.append(np.array([x, y], np.float64))
        reach = np.maximum(1, extent // 3)
        match[max(0, y - reach[1]) : y + reach[1] + 1, max(0, x - reach[0]) : x + reach[0] + 1] = -1
    return found


def _build_shift(offset: Float64Array) -> Float64Array:
    """What a shift (x, y) adds to a map."""
    return np.column_stack([np.zeros((2, 2)), offset])
