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
from lora_edit.video.alignment import Fit, inverted, joined
from lora_edit.video.appearance import Appearance, KeyPoints
from lora_edit.video.flow import corners, tracked
from lora_edit.video.working_size import WorkingSize, to_grey

SEARCHED = 20.0
"""Pixels across the object when it is searched for."""

PEAKS = 3
"""Places that a search proposes."""

LOST = 0.35
"""Agreement below which an object is lost."""

SUDDEN = 0.25
"""Agreement, less what a strange place costs, below which an object is lost as well."""

UNSURE = 0.6
"""Agreement below which key points are matched as well."""

RENEWED = 0.85
"""Agreement below which the object's recent look is taken anew, as long as it is not unsure."""

KEPT = 0.35
"""Share of the object that has to be left in its recent look."""

SECOND_HAND = 0.9
"""What agreement with a recent look counts beside agreement with the key frame."""

FAR = 0.5
"""What a guess far off the expected place loses of its agreement; nothing after `FORGOTTEN` frames."""

NEAR = (0.12, 0.35)
"""The distance, in sizes of the object, at which a guess loses two thirds of that: of an object that moves steadily, and of one that does
not."""

APART = 0.2
"""Sizes of the object that two places have to be apart to count as two."""

TURNED = 0.15
"""By how much its linear part differs from the expected ones where a guess loses a third of what it loses far off, where something that
looks like the object may be in front of it."""

BENT = (0.08, 0.6)
"""By how much its linear part may differ from the expected ones while the object is nearly lost, and how much more for each unit of
agreement beyond."""

LOOKALIKE = 0.6
"""Agreement from which something else counts as one that looks like the object."""

FORGOTTEN = 8

ALIGNED = 4
"""So many guesses are aligned with a picture."""

CORNERS = 120
"""Corners followed from frame to frame."""

LEARNED = 0.15
"""Weight of a new frame in what is known of which parts of the object follow its motion."""


@dataclass(frozen=True)
class ObjectMotion:
    """`matrix` `[2, 3]`: the affine map from a frame's pixels to the key frame's (pixel centres at integers); `confidence`: the share of
    the object that the frame shows there, light apart; 0 where it is lost.
    """

    matrix: Float32Array
    confidence: float


def object_motion(
    frames: torch.Tensor,
    key: int,
    mask_in_key: torch.Tensor,
    region: torch.Tensor | None = None,
    order: Sequence[int] | None = None,
) -> Iterator[ObjectMotion]:
    """The motion of `mask_in_key` `[H, W]` bool from each frame of `frames` `[T, H, W, 3]` uint8 to frame `key`.

    Frames come in the given `order` (neighbours follow each other; `key` and what follows it by default). Where `region` `[T, H, W]` bool
    is given, the object is looked for in it only.
    """
    work = WorkingSize(frames.shape[1], frames.shape[2])
    tracker = ObjectTracker(work.picture(frames[key]), work.mask(mask_in_key))
    for number in range(key, len(frames)) if order is None else order:
        within = None if region is None else work.mask(region[number])
        motion = tracker.follow(work.picture(frames[number]), within)
        yield ObjectMotion(work.full(motion.matrix), motion.confidence)


@dataclass(frozen=True, eq=False)
class _Distractor:
    """What looks like the object: place, velocity per frame (x, y), and for how many frames it was not to be told from the object."""

    place: Float64Array
    velocity: Float64Array
    unseen: int = 0

    @property
    def expected(self) -> Float64Array:
        """Its place in the next picture."""
        return self.place + self.velocity


class ObjectTracker:
    """One object of a key picture `[h, w, 3]`, 0..255, followed from picture to picture.

    It is compared with how the key picture shows it, and, where that looks too different by now, with how a recent one does.
    """

    def __init__(self, key: Float32Array, mask: BoolArray) -> None:
        self.key, self.mask = key, mask
        self.looks = [Appearance(key, mask, np.eye(2, 3), 1.0)] if mask.sum() >= 16 else []
        self.side = float(np.sqrt(max(1, mask.sum())))
        self.middle = np.argwhere(mask).mean(0)[::-1] if mask.any() else np.zeros(2)
        self.matrix = np.eye(2, 3)  # from the key picture
        self.score = 1.0
        self.second: Float64Array | None = None  # where else it may be
        self.velocity, self.acceleration, self.lost = np.zeros(2), NEAR[1] * self.side, 0
        self.distractors = list[_Distractor]()
        self._before: UInt8Array | None = None
        self._seen = mask.view(np.uint8)
        self._points = KeyPoints(to_grey(key), mask)

    @property
    def light(self) -> tuple[Float32Array, Float32Array]:
        """Factor and shift `[3]` from the object's own colours to those of the last picture."""
        return self.looks[0].fine.light if self.looks else (np.ones(3, np.float32), np.zeros(3, np.float32))

    def follow(self, picture: Float32Array, within: BoolArray | None = None) -> ObjectMotion:
        """The motion in the next picture, the object within the mask `within` `[h, w]` if one is given."""
        if not self.looks:
            return ObjectMotion(np.eye(2, 3, dtype=np.float32), 0.0)
        grey = to_grey(picture)
        look, best = self._best(picture, grey, within)
        self._note(look, best, picture)
        self._before = grey
        back = inverted(self.matrix)
        return ObjectMotion(np.asarray(back, np.float32), best.score if best.score >= LOST else 0.0)

    def correct(self, matrix: Float64Array) -> None:
        """Put the object of the last picture where others saw it, by a map from the key picture."""
        if self._possible(matrix) and not self._covered(self.matrix):
            # The picture before is not known any more, so the velocity stays what it was.
            self.velocity = self.velocity + (self._place(matrix) - self._place(self.matrix) if self.lost == 0 else 0)
            self.matrix, self.lost = matrix, 0

    def _best(self, picture: Float32Array, grey: UInt8Array, within: BoolArray | None) -> tuple[Appearance, Fit]:
        key = self.looks[0]
        soft = key.rough.softened(picture)
        expected = [self.matrix + _shift(self.velocity)]
        cornered = [] if self._before is None else self._by_corners(grey)
        guesses = [*expected, *cornered, self.matrix, *self._by_search(soft, (expected + cornered)[-1])]
        expected += [] if self._covered(expected[0]) else cornered
        fits = self._aligned(key, soft, guesses, expected, within)
        if not fits or fits[0].score < UNSURE:
            fits = self._aligned(key, soft, [*(fit.matrix for fit in fits[:2]), *self._points.match(grey)], expected, within)
        self._note_distractors(fits)
        self.second = None if (fits and fits[0].score > UNSURE) or self._covered(expected[0]) else expected[-1]
        found = self._refined(key, picture, fits, expected)
        if found.score < UNSURE and len(self.looks) > 1:
            recent = self.looks[1]
            guesses = [*(fit.matrix for fit in fits[:2]), *expected]
            fits = self._aligned(recent, recent.rough.softened(picture), guesses, expected, within)
            second = self._refined(recent, picture, fits, expected)
            # The key picture has the last word, wherever it still can tell.
            found = max(found, self._refined(key, picture, [second], expected), key=lambda fit: fit.score)
            if second.score > found.score and second.score - self._strangeness(second.matrix, expected) >= SUDDEN:
                return recent, second
        doubt = self._strangeness(found.matrix, expected)
        return key, found if found.score >= LOST and found.score - doubt >= SUDDEN else Fit(expected[-1], min(found.score, LOST - 0.01))

    def _refined(self, look: Appearance, picture: Float32Array, fits: list[Fit], expected: list[Float64Array]) -> Fit:
        """The first of some fits, aligned finely; an unsure one keeps its shape."""
        for fit in fits[:1]:
            soft = look.fine.softened(picture)
            fine = look.fit(look.fine, soft, fit.matrix, 10)
            bent = min(float(np.abs(fine.matrix[:, :2] - each[:, :2]).max()) for each in expected)
            if fine.score < UNSURE and bent > BENT[0] + BENT[1] * max(0.0, fine.score - LOST):
                start = np.column_stack([expected[-1][:, :2], np.zeros(2)])
                start[:, 2] = self._place(fit.matrix) - self._place(start)
                fine = look.fit(look.fine, soft, start, 10, shift_only=True)
            stay = Fit(expected[-1], look.score(look.fine, soft, expected[-1]))
            found = [each for each in (fine, stay)[: 1 + self._covered(expected[0])] if self._possible(each.matrix)]
            return max(found, key=lambda each: each.score - self._strangeness(each.matrix, expected), default=Fit(self.matrix, 0.0))
        return Fit(self.matrix, 0.0)

    def _aligned(
        self, look: Appearance, soft: Float32Array, guesses: list[Float64Array], expected: list[Float64Array], within: BoolArray | None
    ) -> list[Fit]:
        """The most promising guesses, aligned roughly, best first."""
        scored = sorted(guesses, key=lambda guess: self._strangeness(guess, expected) - look.score(look.rough, soft, guess))
        fits = []
        for guess in self._distinct(scored)[:ALIGNED]:
            fit = look.fit(look.rough, soft, guess, 6)
            if self._possible(fit.matrix) and self._in_region(fit.matrix, within):
                fits.append((fit.score - self._strangeness(fit.matrix, expected), fit))
        if self._covered(expected[0]):
            # Alignment is drawn to what lies in front.
            fits += [(score, Fit(each, score)) for each in expected for score in (look.score(look.rough, soft, each),)]
        return [fit for _, fit in sorted(fits, key=lambda each: -each[0])]

    def _distinct(self, guesses: list[Float64Array]) -> list[Float64Array]:
        """The guesses without those that come to nearly the same as one before."""
        kept = list[Float64Array]()
        for guess in guesses:
            near = (np.linalg.norm(self._place(guess) - self._place(other)) < APART / 4 * self.side for other in kept)
            alike = (np.abs(guess[:, :2] - other[:, :2]).max() < BENT[0] / 4 for other in kept)
            if not any(a and b for a, b in zip(near, alike, strict=True)):
                kept.append(guess)
        return kept

    def _strangeness(self, matrix: Float64Array, expected: list[Float64Array]) -> float:
        """What a place off the expected one costs; less the longer the object is lost, unless something that looks like it was there."""
        here = self._place(matrix)
        away = min(float(np.linalg.norm(here - self._place(each))) for each in expected) / self.side
        near = np.clip(4 * self.acceleration / self.side, *NEAR)
        strange = 1 - np.exp(-((away / near) ** 2))
        if self._covered(expected[0]):
            bent = min(float(np.abs(matrix[:, :2] - each[:, :2]).max()) for each in expected)
            strange += (1 - np.exp(-((bent / TURNED) ** 2))) / 2
        cost = FAR * strange * max(0.0, 1 - self.lost / FORGOTTEN)
        other = min((float(np.linalg.norm(here - each.expected)) for each in self.distractors), default=np.inf) / self.side
        return float(cost + (FAR * (1 - np.exp(-((away / NEAR[0]) ** 2 * 4))) if other < away else 0.0))

    def _note_distractors(self, fits: list[Fit]) -> None:
        """Where else something looks like the object, and where those go on to that can't be told from it now."""
        here = self._place(fits[0].matrix) if fits and fits[0].score >= LOST else None
        places = [self._place(fit.matrix) for fit in fits[min(1, len(fits)) :] if fit.score > LOOKALIKE]
        found = list[_Distractor]()
        for place in places:
            if here is not None and np.linalg.norm(place - here) > APART * self.side:
                known = min(self.distractors, key=lambda each: float(np.linalg.norm(each.expected - place)), default=None)
                if known is not None and np.linalg.norm(known.expected - place) < self.side / 2:
                    self.distractors.remove(known)
                    found.append(_Distractor(place, place - known.place))
                else:
                    found.append(_Distractor(place, np.zeros(2)))
        hidden = (_Distractor(each.expected, each.velocity, each.unseen + 1) for each in self.distractors if each.unseen < FORGOTTEN)
        self.distractors = [*found, *hidden]

    def _covered(self, matrix: Float64Array) -> bool:
        """May something that looks like the object lie in front of it? Its corners and its look say nothing then."""
        here = self._place(matrix)
        return any(np.linalg.norm(each.expected - here) < self.side for each in self.distractors)

    def _place(self, matrix: Float64Array) -> Float64Array:
        return np.asarray(matrix[:, :2] @ self.middle + matrix[:, 2], np.float64)

    def _possible(self, matrix: Float64Array) -> bool:
        """Is the object neither mirrored nor torn, and of about the size it had?"""
        large, small = np.linalg.svd(matrix[:, :2], compute_uv=False)
        area, was = np.linalg.det(matrix[:, :2]), np.linalg.det(self.matrix[:, :2])
        reach = 1.3 * 1.1 ** min(self.lost, FORGOTTEN)
        return bool(area > 0 and small > 0.15 and large < 6 and large / small < 3.5 and 1 / reach < area / was < reach)

    def _in_region(self, matrix: Float64Array, within: BoolArray | None) -> bool:
        if within is None:
            return True
        x, y = np.rint(self._place(matrix)).astype(int)
        return bool(0 <= y < within.shape[0] and 0 <= x < within.shape[1] and within[y, x]) or not within.any()

    def _by_corners(self, grey: UInt8Array) -> list[Float64Array]:
        """The map from where corners on the object were in the picture before."""
        assert self._before is not None
        old = corners(self._before, CORNERS, max(2.0, self.side / 20), self._seen)
        if len(old) < 4:
            return []
        there = np.asarray(old + self.velocity, np.float32)
        new, found = tracked(self._before, grey, old, there)
        back, returned = tracked(grey, self._before, new, np.asarray(new - self.velocity, np.float32))
        sure = found & returned & (np.linalg.norm(back - old, axis=-1)[:, 0] < 1)
        if sure.sum() < 4:
            return []
        moved, _ = cv2.estimateAffinePartial2D(old[sure], new[sure], ransacReprojThreshold=1.5)
        return [] if moved is None else [joined(np.asarray(moved, np.float64), self.matrix)]

    def _by_search(self, soft: Float32Array, expected: Float64Array) -> list[Float64Array]:
        """The expected map moved to where the picture looks most like the object."""
        scale = min(1.0, SEARCHED / self.side)
        size = (max(8, round(soft.shape[1] * scale)), max(8, round(soft.shape[0] * scale)))
        small = cv2.resize(soft, size, interpolation=cv2.INTER_AREA)
        shrink = np.column_stack([np.diag([size[0] / soft.shape[1], size[1] / soft.shape[0]]), np.zeros(2)])
        linear = joined(shrink, joined(expected, np.eye(2, 3)))
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
        return [expected + _shift((place - margin - low) / scale) for place in _peaks(match, extent)]

    def _note(self, look: Appearance, best: Fit, picture: Float32Array) -> None:
        """Remember the motion, and which parts follow it."""
        moved = self._place(best.matrix) - self._place(self.matrix)
        lost = best.score < LOST
        self.acceleration = max(0.5 * self.acceleration, 0.0 if lost or self.lost else float(np.linalg.norm(moved - self.velocity)))
        self.velocity = 0.8 * self.velocity if lost else moved if self.lost == 0 else np.zeros(2)
        self.lost = self.lost + 1 if lost else 0
        self.matrix, self.score = best.matrix, best.score
        self._seen = (self.looks[-1] if lost else look).seen(picture, best.matrix)
        if lost:
            return
        for each in self.looks:
            each.remember(picture, best.matrix, LEARNED if each is look and best.score > UNSURE else 0.0)
        recent = self.looks[-1]
        if best.score > UNSURE and recent.score(recent.fine, recent.fine.softened(picture), best.matrix) < RENEWED:
            # Only what still looks as it did: something may be passing in front.
            where = cv2.warpAffine(self.mask.view(np.uint8), best.matrix, (picture.shape[1], picture.shape[0]))
            mask = np.asarray((np.asarray(where) > 0) & (self._seen > 0), bool)
            if mask.sum() > max(16.0, KEPT * self.mask.sum() * np.linalg.det(best.matrix[:, :2])):
                self.looks = [self.looks[0], Appearance(picture, mask, best.matrix, SECOND_HAND)]


def _peaks(match: Float32Array, extent: npt.NDArray[np.int64]) -> list[Float64Array]:
    """The best places (x, y) of a match, at least half the object's size apart."""
    match = np.where(np.isfinite(match), match, -1).astype(np.float32)
    found = []
    for _ in range(PEAKS):
        _, most, _, (x, y) = cv2.minMaxLoc(match)
        if most < 0.2:
            break
        found.append(np.array([x, y], np.float64))
        reach = np.maximum(1, extent // 3)
        match[max(0, y - reach[1]) : y + reach[1] + 1, max(0, x - reach[0]) : x + reach[0] + 1] = -1
    return found


def _shift(by: Float64Array) -> Float64Array:
    """What a shift (x, y) adds to a map."""
    return np.column_stack([np.zeros((2, 2)), by])
