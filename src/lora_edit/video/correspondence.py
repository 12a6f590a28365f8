"""Where every pixel of a clip lies in a key frame, and how sure that is.

Three guesses compete for every pixel: it moved as the object does as a whole (`object_motion`), as the ground does (`camera_motion`), or as
the pixel of the frame before that optical flow leads to. Moved by what won, smoothly continued, the key frame is compared with the frame
once more, separately for the object and for the ground, and optical flow corrects what is left: so errors don't add up, and the object's
edge doesn't take part in the ground's motion. Differences of colour and of slope, gathered within what looks alike (guided filter; He, Sun
and Tang 2010; as cost filter: Hosni et al. 2013), decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
Light = tuple[np.float32, Floats]

COLOUR, SLOPE = 24.0, 12.0
"""Levels of difference in colour, and in slope, that cost most."""

REACH = 5
"""Pixels around that take part in a pixel's cost."""

EDGE = 12.0
"""Levels from which neighbours look different."""

SMOOTH, REFINED, CHAINED = 0.01, 0.03, 0.05
"""What a smooth motion, its correction, and flow from frame to frame have to win by over the motion that all share: where nothing tells
them apart, the simpler one is right."""

HIDDEN = 0.6
"""What it costs to say that a pixel of the ground was behind the object in the key frame."""

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
    """Positions in the key picture `[h, w, 2]`, what they cost `[h, w]`, and whether each lies on the object `[h, w]`."""

    positions: Floats
    cost: Floats
    own: Bools


class _Matcher:
    """A key picture `[h, w, 3]`, and pictures that follow each other, the first of them near it in time."""

    def __init__(self, key: Floats, mask: Bools | None) -> None:
        self.key, self.mask = key, mask
        self.part = np.zeros(key.shape[:2], np.float32) if mask is None else mask.astype(np.float32)
        self.camera = CameraTracker(key, np.ones(key.shape[:2], bool) if mask is None else ~mask)
        self.object = None if mask is None else ObjectTracker(key, mask)
        self.dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.dis.setFinestScale(1)
        self.grey_key = _grey(key)
        self.home = grid(*key.shape[:2])
        self._before: Bytes | None = None
        self._positions = self.home

    def match(self, picture: Floats) -> tuple[Floats, Floats]:
        """Positions `[h, w, 2]` and confidence `[h, w]` of the next picture."""
        grey = _grey(picture)
        judge = _Judge(picture, self.key, self.part, _Gather(grey))
        whole = self._whole_motions(picture, grey, judge)
        chained = self._chained(grey)
        best = _best([self._layer(layer, motion, chained, grey, judge) for layer, motion in whole.items()])
        self._before, self._positions = grey, best.positions
        return best.positions, np.exp(-best.cost / 0.3).astype(np.float32)

    def _whole_motions(self, picture: Floats, grey: Bytes, judge: _Judge) -> dict[int, Floats]:
        """The positions of the ground (0) and, unless it is lost, of the object (1) by the motion of each as a whole."""
        whole = {0: _moved(self.home, self.camera.follow(picture, grey))}
        judge.lights = [self.camera.light, self.camera.light]
        if self.object is not None:
            motion = self.object.follow(picture)
            if motion.confidence > 0:
                whole[1] = _moved(self.home, motion.matrix)
                judge.lights[1] = self.object.patches[1].light
        return whole

    def _chained(self, grey: Bytes) -> Floats | None:
        if self._before is None:
            return None
        back = np.asarray(self.dis.calc(grey, self._before, None), np.float32)  # type: ignore[call-overload]
        return sample(self._positions, self.home + back)

    def _layer(self, layer: int, motion: Floats, chained: Floats | None, grey: Bytes, judge: _Judge) -> _Guess:
        """The best positions on one layer: its motion as a whole, flow from frame to frame, and the correction of both."""
        guesses = [judge(motion, layer)]
        if chained is not None:
            guesses.append(judge(chained, layer, CHAINED))
        best = _best(guesses)
        away = _continued(best.positions - motion, np.exp(-best.cost / 0.1).astype(np.float32), REACH)
        base = judge(motion + away, layer, SMOOTH)
        moved = np.asarray(np.clip(sample(self.grey_key, base.positions).round(), 0, 255), np.uint8)
        rest = np.asarray(self.dis.calc(grey, moved, None), np.float32)  # type: ignore[call-overload]
        return _best([*guesses, base, judge(sample(base.positions, self.home + rest), layer, REFINED)])


class _Judge:
    """What a guess costs in one picture `[h, w, 3]`."""

    def __init__(self, picture: Floats, key: Floats, part: Floats, gather: _Gather) -> None:
        self.picture, self.key, self.part, self.gather = picture, key, part, gather
        self.lights: list[Light] = [(np.float32(1), np.zeros(3, np.float32))] * 2
        self.slopes = _slopes(picture)

    def __call__(self, positions: Floats, layer: int, extra: float = 0.0) -> _Guess:
        """The `extra` is what the guess has to win by."""
        own = sample(self.part, positions) > 0.5
        gain, shift = self.lights[layer]
        expected = np.clip(sample(self.key, positions) * gain + shift, 0, 255).astype(np.float32)
        red, green, blue = cv2.split(cv2.absdiff(self.picture, expected))
        colour = cv2.max(cv2.max(red, green), blue)
        x, y = (cv2.absdiff(mine, other) for mine, other in zip(self.slopes, _slopes(expected), strict=True))
        cost = 0.5 * np.minimum(colour / COLOUR, 1) + 0.5 * np.minimum((x + y) / SLOPE, 1)
        outside = ((positions < -0.5) | (positions > np.array(self.part.shape[::-1]) - 0.5)).any(-1)
        strange = HIDDEN if layer == 0 else 1.0
        cost = np.where(own == bool(layer), np.where(outside, HIDDEN, cost), strange)
        return _Guess(positions, self.gather(cost.astype(np.float32)) + np.float32(extra), own)


class _Gather:
    """Means over what is around and looks alike in one picture (guided filter)."""

    def __init__(self, grey: Bytes) -> None:
        self.guide = grey.astype(np.float32)
        self.mean = _mean(self.guide)
        self.variance = _mean(self.guide * self.guide) - self.mean * self.mean + np.float32(EDGE**2)

    def __call__(self, values: Floats) -> Floats:
        mean = _mean(values)
        slope = (_mean(self.guide * values) - self.mean * mean) / self.variance
        return np.asarray(_mean(slope) * self.guide + _mean(mean - slope * self.mean), np.float32)


def _mean(values: Floats) -> Floats:
    return np.asarray(cv2.blur(values, (2 * REACH + 1, 2 * REACH + 1)), np.float32)


def _slopes(picture: Floats) -> tuple[Floats, Floats]:
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 0.8)
    x, y = (np.asarray(cv2.Sobel(grey, cv2.CV_32F, 1 - axis, axis, scale=0.25), np.float32) for axis in (0, 1))
    return x, y


def _moved(home: Floats, matrix: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(home @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32), np.float32)


def _best(guesses: list[_Guess]) -> _Guess:
    """Per pixel the guess that costs least."""
    best = guesses[0]
    for guess in guesses[1:]:
        better = guess.cost < best.cost
        positions = np.where(better[..., None], guess.positions, best.positions)
        best = _Guess(positions, np.minimum(guess.cost, best.cost), np.where(better, guess.own, best.own))
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
