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

from lora_edit.video.camera_motion import CameraTracker
from lora_edit.video.flow import grid, resize_motion, sample
from lora_edit.video.object_motion import ObjectTracker, Reduced

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Light = tuple[Floats, Floats]

CONTRAST = (7.0, 24.0)
"""Levels of difference that cost most: as much as colours vary around, but no less and no more than these."""

REACH = 5
"""Pixels around that take part in a pixel's cost."""

EDGE = 12.0
"""Levels from which neighbours look different."""

SMOOTH, REFINED, CHAINED = 0.01, 0.03, 0.05
"""What a smooth motion, its correction, and flow from frame to frame have to win by over the motion that all share: where nothing tells
them apart, the simpler one is right."""

HIDDEN = (0.5, 0.95)
"""What it costs to say that a pixel shows what the object hid in the key frame: where the object is lost, and where it is surely there."""

SOFT = 1.0
"""Standard deviation, in pixels, by which pictures are softened before they are compared: noise and sampling should not count."""

SURE = 0.3
"""Cost below which a position is believed."""

WHOLE = 0.8
"""Share of a frame from which a region holds no object, but everything."""


@dataclass(frozen=True)
class Correspondence:
    """Of one frame with the key frame.

    `positions` `[H, W, 2]` (x, y): where each pixel lies in the key frame, pixel centres at integers. `confidence` `[H, W]` in [0, 1]: the
    chance that the key frame shows the pixel, and within 1.5 % of the frame's shorter side of there.
    """

    positions: Floats
    confidence: Floats


def correspond(
    frames: torch.Tensor, key: int, region: torch.Tensor | None = None, order: Sequence[int] | None = None
) -> Iterator[Correspondence]:
    """The correspondence of each frame of `frames` `[T, H, W, 3]` uint8 with frame `key`.

    Frames come in the given `order` (neighbours follow each other; `key` and what follows it by default). `region` `[T, H, W]` bool is
    where the object is that counts. Time is linear in the frames, memory that of a few frames.
    """
    height, width = frames.shape[1:3]
    work = Reduced(height, width)
    picture = work.picture(frames[key])
    mask = None if region is None else work.mask(region[key])
    if mask is not None and not 16 <= mask.sum() <= WHOLE * mask.size:
        mask = None
    matcher = _Matcher(picture, mask)
    for number in range(key, len(frames)) if order is None else order:
        positions, confidence = matcher.match(work.picture(frames[number]))
        away = positions - grid(*positions.shape[:2])
        sure = cv2.resize(confidence, (width, height), interpolation=cv2.INTER_LINEAR)
        yield Correspondence(grid(height, width) + resize_motion(away, height, width), np.asarray(sure, np.float32))


@dataclass(frozen=True)
class _Guess:
    """Positions in the key picture `[h, w, 2]`, what they cost `[h, w]`, whether each lies on the object there, and whether it shows the
    object here, `[h, w]` each; where the two differ the key frame doesn't show it.
    """

    positions: Floats
    cost: Floats
    own: Bools
    object: Bools


class _Matcher:
    """A key picture `[h, w, 3]`, and pictures that follow each other, the first of them near it in time."""

    def __init__(self, key: Floats, mask: Bools | None) -> None:
        self.key, self.mask = key, mask
        self.soft_key = _softened(key)
        self.part = np.zeros(key.shape[:2], np.float32) if mask is None else mask.astype(np.float32)
        self.camera = CameraTracker(key, np.ones(key.shape[:2], bool) if mask is None else ~mask)
        self.object = None if mask is None else ObjectTracker(key, mask)
        self.dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.dis.setFinestScale(1)
        self.grey_key = _grey(key)
        self.home = grid(*key.shape[:2])
        self._before: Bytes | None = None
        self._positions = [self.home, self.home]

    def match(self, picture: Floats) -> tuple[Floats, Floats]:
        """Positions `[h, w, 2]` and confidence `[h, w]` of the next picture."""
        grey = _grey(picture)
        judge = _Judge(_softened(picture), self.soft_key, self.part, _Gather(grey))
        whole = self._whole_motions(picture, grey, judge)
        back = None
        if self._before is not None:
            back = np.asarray(self.dis.calc(grey, self._before, None), np.float32)  # type: ignore[call-overload]
        layers = [self._layer(layer, motion, back, grey, judge) for layer, motion in enumerate(whole)]
        best = _best(layers)
        if self.object is not None:
            self._correct(self.object, best)
        self._before, self._positions = grey, [layer.positions for layer in layers]
        return best.positions, np.where(best.own == best.object, np.exp(-best.cost / 0.3), 0.05).astype(np.float32)

    def _whole_motions(self, picture: Floats, grey: Bytes, judge: _Judge) -> list[Floats]:
        """The positions of the ground and, if there is one, of the object by the motion of each as a whole."""
        whole = [_moved(self.home, self.camera.follow(picture, grey))]
        judge.lights = [self.camera.light]
        if self.object is not None:
            whole.append(_moved(self.home, self.object.follow(picture).matrix))
            judge.lights.append(self.object.patches[1].light)
            judge.hidden = HIDDEN[0] + (HIDDEN[1] - HIDDEN[0]) * min(1.0, self.object.score / 0.5)
        return whole

    def _correct(self, tracker: ObjectTracker, best: _Guess) -> None:
        """Tell the object's tracker what the pixels say, where it is less sure."""
        sure = best.own & (best.cost < SURE)
        share = sure.sum() / max(1.0, self.part.sum() * np.linalg.det(tracker.matrix[:, :2]))
        if share > max(0.3, tracker.score):
            here = np.flatnonzero(sure)
            here = here[:: max(1, len(here) // 800)]
            old, new = (np.ascontiguousarray(each.reshape(-1, 2)[here]) for each in (best.positions, self.home))
            matrix, _ = cv2.estimateAffine2D(old, new, ransacReprojThreshold=3.0)
            if matrix is not None:
                tracker.correct(np.asarray(matrix, np.float64))

    def _layer(self, layer: int, motion: Floats, back: Floats | None, grey: Bytes, judge: _Judge) -> _Guess:
        """The best positions on one layer: its motion as a whole, flow from frame to frame, and the correction of both."""
        guesses = [judge(motion, layer)]
        if back is not None:
            guesses.append(judge(sample(self._positions[layer], self.home + back), layer, CHAINED))
        best = _best(guesses)
        away = _continued(best.positions - motion, np.exp(-best.cost / 0.1).astype(np.float32), REACH)
        base = judge(motion + away, layer, SMOOTH)
        # Where the key frame shows another layer there is nothing to compare.
        moved = np.asarray(np.clip(sample(self.grey_key, base.positions).round(), 0, 255), np.uint8)
        moved = np.where(base.own == bool(layer), moved, grey)
        rest = np.asarray(self.dis.calc(grey, moved, None), np.float32)  # type: ignore[call-overload]
        return _best([*guesses, base, judge(sample(base.positions, self.home + rest), layer, REFINED)])


class _Judge:
    """What a guess costs in one picture `[h, w, 3]`."""

    def __init__(self, picture: Floats, key: Floats, part: Floats, gather: _Gather) -> None:
        self.picture, self.key, self.part, self.gather = picture, key, part, gather
        self.lights = list[Light]()
        self.hidden = HIDDEN[0]
        self.slopes = _slopes(picture)
        self.most = np.clip(1.2 * np.sqrt(np.maximum(gather.spread, 0)), *CONTRAST).astype(np.float32)

    def __call__(self, positions: Floats, layer: int, extra: float = 0.0) -> _Guess:
        """The `extra` is what the guess has to win by."""
        own = sample(self.part, positions) > 0.5
        gain, shift = self.lights[layer]
        expected = np.clip(sample(self.key, positions) * gain + shift, 0, 255).astype(np.float32)
        red, green, blue = cv2.split(cv2.absdiff(self.picture, expected))
        colour = cv2.max(cv2.max(red, green), blue)
        x, y = (cv2.absdiff(mine, other) for mine, other in zip(self.slopes, _slopes(expected), strict=True))
        cost = 0.5 * np.minimum(colour / self.most, 1) + 0.5 * np.minimum(2 * (x + y) / self.most, 1)
        outside = ((positions < -0.5) | (positions > np.array(self.part.shape[::-1]) - 0.5)).any(-1)
        cost = np.where(own == bool(layer), np.where(outside, HIDDEN[0], cost), 1.0 if layer else self.hidden)
        return _Guess(positions, self.gather(cost.astype(np.float32)) + np.float32(extra), own, np.full_like(own, bool(layer)))


class _Gather:
    """Means over what is around and looks alike in one picture (guided filter)."""

    def __init__(self, grey: Bytes) -> None:
        self.guide = grey.astype(np.float32)
        self.mean = _mean(self.guide)
        self.spread = _mean(self.guide * self.guide) - self.mean * self.mean
        self.variance = np.asarray(self.spread + EDGE**2, np.float32)

    def __call__(self, values: Floats) -> Floats:
        mean = _mean(values)
        slope = np.asarray((_mean(self.guide * values) - self.mean * mean) / self.variance, np.float32)
        return np.asarray(_mean(slope) * self.guide + _mean(np.asarray(mean - slope * self.mean, np.float32)), np.float32)


def _mean(values: Floats) -> Floats:
    return np.asarray(cv2.blur(values, (2 * REACH + 1, 2 * REACH + 1)), np.float32)


def _softened(picture: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), SOFT), np.float32)


def _slopes(picture: Floats) -> tuple[Floats, Floats]:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    x, y = (np.asarray(cv2.Sobel(grey, cv2.CV_32F, 1 - axis, axis, scale=0.25), np.float32) for axis in (0, 1))
    return x, y


def _moved(home: Floats, matrix: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(home @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32), np.float32)


def _best(guesses: list[_Guess]) -> _Guess:
    """Per pixel the guess that costs least."""
    best = guesses[0]
    for guess in guesses[1:]:
        better = guess.cost < best.cost
        parts = ((getattr(guess, part.name), getattr(best, part.name)) for part in fields(_Guess))
        best = _Guess(*(np.where(better[..., None] if new.ndim > 2 else better, new, old) for new, old in parts))
    return best


def _continued(values: Floats, known: Floats, sigma: float) -> Floats:
    """Values `[h, w, 2]` as they are where they are `known` `[h, w]`, smoothed, and continued to where they are not."""
    total, weight = np.zeros_like(values), np.zeros_like(known)
    for width, importance in ((sigma / 2, 1.0), (2 * sigma, 0.05), (6 * sigma, 0.001)):
        weight += importance * _soft(known, width)
        total += importance * _soft(values * known[..., None], width)
    return np.asarray(total / (weight + 1e-6)[..., None], np.float32)


def _soft(values: Floats, sigma: float) -> Floats:
    part = max(1, int(sigma / 2))
    if part == 1:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)
    size = (max(1, values.shape[1] // part), max(1, values.shape[0] // part))
    small = cv2.GaussianBlur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / part)
    return np.asarray(cv2.resize(small, values.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _grey(picture: Floats) -> Bytes:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).round(), np.uint8)
