"""What an edit may be, told as pictures: each explanation says what a frame shows, and how far there is reason to believe it.

| explanation | the edit is | reads the hidden source |
|---|---|---|
| flow, chain, layer | pixels that move with the source: densely, by flow between frames, or as one object | no (its motion only) |
| pasted flow, layer, support | what the edit changed, cut out and laid over the source, moved so or with what it sits on | around it |
| pasted region | the same, moved as the region was: a thing that only the edit knows goes where the person marks it | around it |
| lit flow, chain, layer | the same, with the source's changes of light and detail where the edit keeps its structure | where kept |
| colours | a smooth function of the source's colours | where the function explains the edit |
| source | nothing at all: this was not edited | where frame 0 was left alone |
| still | something that stays with the camera | no |
| plate | what stood behind: the source's pixels from frames in which they are outside the region | no |

A key frame is a frame that a person edited: frame 0 and the references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.propagation.changed import changed_pixels, cut_out
from lora_edit.propagation.colours import ColourMap, fit_colours
from lora_edit.propagation.images import FloatImage, affine_positions, blur, local_gain, outside
from lora_edit.propagation.motion import Motion
from lora_edit.video.flow import sample

NAMES = (
    "flow", "lit flow", "chain", "lit chain", "layer", "lit layer", "colours", "source", "still", "plate", "pasted flow", "pasted layer",
    "pasted support", "pasted region",
)  # fmt: skip
CHANNELS = 99
"""Six for each explanation, and fifteen that are common to all."""
READERS = (1, 3, 5, 6, 7, 10, 11, 12, 13)
"""Explanations that read the source inside the region."""

CHANGED = 16.0
"""Levels of 255, over a few pixels, at which a pixel counts as half edited."""
EXPLAINED = 0.5
"""Share of the edit's change that a colour map has to explain before it may read the source."""
LIGHT = 1.4
"""Largest change of light between a key frame and another, as a factor."""


Draw = Callable[[], FloatImage]
"""Draws one explanation, when it is wanted."""


class KeyFrame:
    """An edited frame beside the source's own, `[H, W, 3]` float32 in levels, and what the edit did within `region` `[H, W]` bool."""

    def __init__(self, edited: FloatImage, source: FloatImage, region: npt.NDArray[np.bool_]) -> None:
        self.edited, self.source, self.region = edited, source, region
        self.reach = max(1.0, min(source.shape[:2]) / 128)
        self._change = np.abs(blur(edited - source, self.reach)).max(-1)
        self.edited_share = 1 - np.exp(-((self._change / CHANGED) ** 2))
        self._weight = self.edited_share * region
        self.gain, self._unkept = local_gain(source, edited, 3 * self.reach, 30.0)
        self.colours: ColourMap = fit_colours(source, edited, np.asarray(self._weight, np.float32))

    @cached_property
    def layer(self) -> FloatImage:
        """What the edit changes, cut out with a soft edge: colours times opacity, and opacity in [0, 1], `[H, W, 4]`."""
        source, edited = (np.asarray(np.round(each), np.uint8) for each in (self.source, self.edited))
        return cut_out(edited, changed_pixels(source, edited, self.region))

    # Evidence needs these; at full size, where nothing is weighed, they are never computed.
    @cached_property
    def changed_share(self) -> float:
        """How much of the region the edit changes."""
        return float(self._weight.sum() / max(self.region.sum(), 1))

    @cached_property
    def edge_share(self) -> float:
        """How much of the edges around the change is left (`_edge_share`)."""
        return _edge_share(self.edited, self.source, np.asarray(self._weight > 0.5, np.uint8))

    @cached_property
    def analysis(self) -> FloatImage:
        """`[H, W, 3]` in levels: what the edit changes, what a local regression and what the colour map leave unexplained."""
        mapped, _ = self.colours(self.source)
        missed = np.abs(blur(mapped - self.edited, self.reach)).max(-1)
        return np.stack([self._change, self._unkept, missed], -1).astype(np.float32)


def _edge_share(edited: FloatImage, source: FloatImage, changed: npt.NDArray[np.uint8]) -> float:
    """How much of the edges along the border of what `changed` is left in the edited frame, in [0, 2].

    Little where a thing was removed, more than all where one was added.
    """
    ring = (cv2.dilate(changed, np.ones((5, 5), np.uint8)) > 0) & (cv2.erode(changed, np.ones((5, 5), np.uint8)) == 0)
    steps = [np.abs(cv2.Laplacian(cv2.GaussianBlur(picture, (0, 0), 1.0), cv2.CV_32F)).mean(-1) for picture in (edited, source)]
    after, before = (float(step[ring].mean()) if ring.any() else 1.0 for step in steps)
    return float(np.clip(after / max(before, 0.5), 0, 2))


@dataclass(frozen=True)
class Explained:
    """One frame by every explanation: `pictures` `[K, H, W, 3]` in levels, `allowed` `[K]` (what may be shown at all), the `evidence`
    `[C, H, W]` for the mixture, and in [0, 1] how sure it is that the edit `left_alone` what stands there `[H, W]`."""

    pictures: FloatImage
    allowed: npt.NDArray[np.bool_]
    evidence: FloatImage
    left_alone: FloatImage


def explain(
    key: KeyFrame,
    now: FloatImage,
    given: FloatImage,
    motion: Motion,
    plate: tuple[FloatImage, FloatImage],
    behind: float,
    time: float,
    may_read: bool = True,
) -> Explained:
    """Every explanation of the frame `now` `[H, W, 3]`, from `key`.

    `given` `[H, W]` is 1 outside the region; `plate` is the picture behind with its validity `[H, W]`, and `behind` in [0, 1] how far the
    edit shows just that (`Plate.behind`); `time` in [0, 1] is how far away the key frame is. `motion` is at the frame's own size. Without
    `may_read` the explanations that read the hidden source are ruled out.
    """
    marked = region_motion(key.region, given < 0.5, motion)
    moved = [_Moved(key, now, field) for field in _fields(motion, marked, *now.shape[:2])]
    mapped, miss = key.colours(now)
    drawn = _pictures(key, now, given, motion, plate[0], moved, lambda: mapped)
    pictures = np.stack([draw() for draw in drawn]).astype(np.float32)
    allowed = np.ones(len(NAMES), bool)
    allowed[NAMES.index("colours")] = key.colours.explained >= EXPLAINED
    allowed[list(READERS)] &= may_read
    facts = behind, time, *_strides(motion, marked, key.region)
    evidence = _evidence(key, now, pictures, allowed, moved, motion, miss, given, plate[1], facts)
    return Explained(pictures, allowed, evidence, _left_alone(moved[0], motion.confidence))


PROVEN = 0.4
"""Confidence of a position in the key frame from which it may tell that nothing was edited there."""
UNTOUCHED, SAME_THING = 6.0, 12.0
"""Levels of 255 by which the edit may change such a pixel, and by which the source may differ there, each for a third of the certainty."""


def _left_alone(flow: _Moved, confidence: FloatImage) -> FloatImage:
    """How sure it is that a frame shows what the key frame shows too, and that the edit left it alone there, `[H, W]` in [0, 1]."""
    seen = np.clip((confidence * (1 - flow.out) - PROVEN) / (1 - PROVEN), 0, 1)
    change, far = flow.analysis[..., 0], flow.misses[0]
    return np.asarray(seen * np.exp(-((change / UNTOUCHED) ** 2)) * np.exp(-((far / SAME_THING) ** 2)), np.float32)


LEAST_SHARE = 0.02
"""An explanation that has no larger share anywhere is not drawn at full size."""


def mix_explanations(
    key: KeyFrame, now: FloatImage, given: FloatImage, motion: Motion, plate: tuple[FloatImage, FloatImage], shares: FloatImage
) -> FloatImage:
    """The explanations mixed by `shares` `[K, H, W]`, `[H, W, 3]`, without drawing those that have none."""
    used = shares.reshape(len(shares), -1).max(1) > LEAST_SHARE
    fields = _fields(motion, region_motion(key.region, given < 0.5, motion), *now.shape[:2])
    moved = [_Moved(key, now, field) for field in fields]
    drawn = _pictures(key, now, given, motion, plate[0], moved, lambda: key.colours(now)[0])
    out, total = np.zeros_like(now), np.full(now.shape[:2], 1e-6, np.float32)
    for draw, share, wanted in zip(drawn, shares, used, strict=True):
        if wanted:
            out += share[..., None] * draw()
            total += share
    return out / total[..., None]


ALIKE = 0.12
"""Sizes of the region by which its sides may miss where a known motion takes them for it to count as moving so."""
SURE = 0.3
"""Confidence from which the object's motion may be the region's."""


def region_motion(key: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_], motion: Motion) -> FloatImage:
    """How the region in a frame `[H, W]` lies in the key frame, `[2, 3]`: as the object, what it sits on or the camera moves, whichever its
    box says, if any.

    Else it is shifted with its box; not at all where one of the frames has no region.

    Only sides of the box that the frame's border does not cut are compared.
    """
    out = np.eye(2, 3, dtype=np.float32)
    if not (key.any() and now.any()):
        return out
    found = ((motion.matrix, motion.object_confidence), (motion.support, motion.support_confidence), (motion.camera, 1.0))
    known = [matrix for matrix, confidence in found if confidence > SURE]
    misses = [_side_misses(key, now, matrix) for matrix in known]
    if min(misses) < ALIKE * float(np.sqrt(key.sum())):
        return known[int(np.argmin(misses))]
    for axis in (0, 1):
        shifts = [there - here for there, here in _whole_sides(key, now, axis)]
        out[axis, 2] = np.mean(shifts) if shifts else 0.0
    return out


def _side_misses(key: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_], matrix: FloatImage) -> float:
    """Pixels by which the sides of the box in a frame miss those in the key frame when moved by a map, on the mean."""
    middle = _middle(now)
    misses = []
    for axis in (0, 1):
        for there, here in _whole_sides(key, now, axis):
            at = middle.copy()
            at[axis] = here
            misses.append(abs(float(matrix[axis, :2] @ at + matrix[axis, 2]) - there))
    return float(np.mean(misses)) if misses else 0.0


def _whole_sides(key: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_], axis: int) -> list[tuple[int, int]]:
    """First and last position along x (axis 0) or y that each region reaches, in the key frame and now, where no border cuts either."""
    there, here, last = _extent(key, axis), _extent(now, axis), key.shape[1 - axis] - 1
    sides = [(there[0], here[0])] if min(there[0], here[0]) > 0 else []
    return [*sides, (there[1], here[1])] if max(there[1], here[1]) < last else sides


def _extent(region: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """The first and the last column (axis 0) or row (axis 1) that the region reaches."""
    reached = np.flatnonzero(region.any(axis))
    return int(reached[0]), int(reached[-1])


def _middle(region: npt.NDArray[np.bool_]) -> FloatImage:
    """The middle (x, y) of the region's bounding box."""
    return np.array([np.mean(_extent(region, axis)) for axis in (0, 1)], np.float32)


def _strides(motion: Motion, marked: FloatImage, region: npt.NDArray[np.bool_]) -> list[float]:
    """How far the object, the camera and what the edit sits on move apart from the marked region, in its sizes, in [0, 1]."""
    if not region.any():
        return [0.0] * 3
    there, size = _middle(region), float(np.sqrt(region.sum()))
    here = np.linalg.solve(marked[:, :2].astype(np.float64), there - marked[:, 2])
    away = (m[:, :2] @ here + m[:, 2] - there for m in (motion.matrix, motion.camera, motion.support))
    return [float(np.tanh(2 * np.linalg.norm(each) / size)) for each in away]


def _fields(motion: Motion, marked: FloatImage, height: int, width: int) -> list[FloatImage]:
    """Positions in the key frame by dense motion, by chained flow, and as the object, camera, what the edit sits on, and region move."""
    affine = [affine_positions(matrix, height, width) for matrix in (motion.matrix, motion.camera, motion.support, marked)]
    return [motion.positions, motion.chained, *affine]


def _pictures(
    key: KeyFrame,
    now: FloatImage,
    given: FloatImage,
    motion: Motion,
    plate: FloatImage,
    moved: Sequence[_Moved],
    mapped: Draw,
) -> list[Draw]:
    """What draws each of them, in the order of `NAMES`."""
    flow, chain, layer, still, support, marked = moved
    light = _light(now, flow.source, given * motion.confidence, key.reach)

    def plain(each: _Moved) -> FloatImage:
        return np.clip(each.edited * light, 0, 255)

    def lit(each: _Moved) -> FloatImage:
        return np.clip(each.edited + each.gain * (now - each.source), 0, 255)

    def pasted(each: _Moved) -> FloatImage:
        return np.clip(each.layer[..., :3] * light + (1 - each.layer[..., 3:]) * now, 0, 255)

    by_motion = [partial(draw, each) for each in (flow, chain, layer) for draw in (plain, lit)]
    others: list[Draw] = [lambda: np.clip(mapped(), 0, 255), lambda: now, partial(plain, still), lambda: plate]
    return [*by_motion, *others, *(partial(pasted, each) for each in (flow, layer, support, marked))]


class _Moved:
    """A key frame read at the positions of the frame `now`, as far as it is asked for."""

    def __init__(self, key: KeyFrame, now: FloatImage, positions: FloatImage) -> None:
        self.key, self.now, self.positions = key, now, positions

    @cached_property
    def source(self) -> FloatImage:
        """The source there, `[H, W, 3]`."""
        return sample(self.key.source, self.positions)

    @cached_property
    def edited(self) -> FloatImage:
        """The edited picture there, `[H, W, 3]`."""
        return sample(self.key.edited, self.positions)

    @cached_property
    def gain(self) -> FloatImage:
        """How strongly the edit keeps the source's structure there, `[H, W, 3]`."""
        return sample(self.key.gain, self.positions)

    @cached_property
    def layer(self) -> FloatImage:
        """What the edit put there: colours times opacity, and opacity, `[H, W, 4]`."""
        return sample(self.key.layer, self.positions)

    @cached_property
    def misses(self) -> tuple[FloatImage, FloatImage]:
        """How far its source is from the frame's, by colour and by fine detail, `[H, W]` each."""
        reach, away = self.key.reach, self.source - self.now
        far = np.abs(blur(away, 1.5 * reach)).max(-1)
        return far, blur(np.abs(away - blur(away, 3 * reach)).mean(-1), 1.5 * reach)

    @property
    def out(self) -> npt.NDArray[np.bool_]:
        """Where it lies beyond the key frame."""
        return outside(self.positions, *self.key.source.shape[:2])

    @cached_property
    def analysis(self) -> FloatImage:
        """What the edit did there."""
        return sample(self.key.analysis, self.positions)


def _light(now: FloatImage, moved: FloatImage, weight: FloatImage, reach: float) -> FloatImage:
    """How much lighter the frame is than the key frame, as a factor `[H, W, 1]`, seen where both are given."""
    sigma = 16 * reach
    ratio = (blur(now.mean(-1) * weight, sigma) + 2) / (blur(moved.mean(-1) * weight, sigma) + 2)
    if float(weight.mean()) < 0.02:
        return np.ones((*now.shape[:2], 1), np.float32)
    return np.asarray(np.clip(ratio, 1 / LIGHT, LIGHT)[..., None], np.float32)


def _around(values: FloatImage, given: FloatImage, reach: float) -> FloatImage:
    """`values` where pixels are given, and elsewhere their mean in the given surroundings, `[H, W]`."""
    mean = blur(values * given, 6 * reach) / (blur(given, 6 * reach) + 0.02)
    return np.asarray(np.where(given > 0.5, values, mean), np.float32)


def _evidence(
    key: KeyFrame,
    now: FloatImage,
    pictures: FloatImage,
    allowed: npt.NDArray[np.bool_],
    moved: list[_Moved],
    motion: Motion,
    colour_miss: FloatImage,
    given: FloatImage,
    plate_valid: FloatImage,
    known: Sequence[float],
) -> FloatImage:
    """`[CHANNELS, H, W]`, each about 0 to 1: six channels for each explanation, then what is common to all."""
    height, width = given.shape
    zero, one = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    flow, chain, layer, behind, below, marked = [(each.out, each.analysis, *each.misses) for each in moved]
    # What stands behind can't be held against the hidden thing before it, only against what is given around.
    still = (behind[0], behind[1], _around(behind[2], given, key.reach), _around(behind[3], given, key.reach))
    confidence, chained = motion.confidence * (1 - flow[0]), motion.chained_confidence * (1 - chain[0])
    sure = motion.object_confidence * (1 - layer[0])
    own = (
        (confidence, flow), (confidence, flow), (chained, chain), (chained, chain), (sure, layer), (sure, layer),
        (one * key.colours.explained, flow), (confidence, flow), (1.0 - still[0], still), (plate_valid, still),
        (confidence, flow), (sure, layer), (motion.support_confidence * (1 - below[0]), below), (1.0 - marked[0], marked),
    )  # fmt: skip
    opacities = {
        f"pasted {name}": 48 * each.layer[..., 3]
        for name, each in (("flow", moved[0]), ("layer", moved[2]), ("support", moved[4]), ("region", moved[5]))
    }
    centre = np.median(pictures[allowed], axis=0)
    rows = []
    for number, picture in enumerate(pictures):
        trust, (_, analysis, far, fine) = own[number]
        change, unkept, missed = np.moveaxis(analysis, -1, 0)
        specifics = {"colours": colour_miss, "source": missed} | opacities
        specific = specifics.get(NAMES[number], unkept)
        apart = np.abs(blur(picture - centre, key.reach)).mean(-1)
        channels = (trust * one, far / 64, fine / 32, change / 64, specific / 48, apart / 64)
        rows += [c if allowed[number] else zero for c in channels]
    border = cv2.distanceTransform((given < 0.5).astype(np.uint8), cv2.DIST_L2, 3) / (16 * key.reach)
    facts = (*known, key.colours.explained, key.changed_share, key.edge_share, motion.object_confidence, motion.support_confidence)
    rows += [given, np.tanh(border), *(fact * one for fact in facts)]
    for a, b in ((0, 2), (0, 4), (1, 6)):
        rows.append(np.abs(pictures[a] - pictures[b]).mean(-1) / 64 if allowed[a] and allowed[b] else zero)
    return np.clip(np.stack([np.asarray(r, np.float32) for r in rows]), 0, 3)
