"""One object from frame to frame: carried by its own motion, cut out anew where it ends, remembered while something hides it.

All pictures here have the size that motion is computed at, and all work is done in a window around the object. Near the object's edge two
stories are compared for every pixel: it came along with the object, or with what is behind. Colours and where the edge was have their
say, and the cheapest cut decides. Parts that something hides go on as remembered shape and colours, by the motion of the parts in sight,
and return where the picture shows them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from lora_edit.masks.cut import Palette, colour_odds, windowed_cut, without_specks
from lora_edit.masks.morph import Window, difference, eroded, grown, ring, signed_distance, window_of
from lora_edit.masks.whole import DIFFERENT, Remembered, search, whole_motion
from lora_edit.types import BoolArray, Float32Array, UInt8Array
from lora_edit.video.flow import OpticalFlow, grid, sample

BAND = 0.016
"""Half the width of the strip along the carried edge that is cut anew, share of the frame's shorter side."""

AROUND = 0.12
"""Width of the surroundings whose colours an object is told from, share of the frame's shorter side."""

UNKNOWN = 4.0
"""Levels that it costs to say that a pixel came from a place that was part of something else."""

LEVELS_PER_ODDS = 6.0

RETURNS = 2.0
"""Log-odds of the colours from which a pixel at some distance from the carried edge may be the object's."""

FOREIGN = 3.0
"""Squared deviations from which a colour is foreign, however far it is: new sides of things have new colours."""

LOCAL_NOISE = 12.0
"""Levels by which colours of one thing differ anyway."""

COLOUR, MOTION, EDGE = 0.9, 1.0, 0.5
"""Weights of the three kinds of evidence, each in log-odds."""

SPECK = 0.03
"""Parts smaller than this share of the largest are dropped."""

GROUND = 0.75
"""Beyond this share of the object's area, what looks like it close by and came with the rest is no part of it that was missed."""

SPILL = 0.3
"""Share of the surroundings beyond which they may not all return: the ground looks like the object."""

PART = 0.15
"""Share of the prompted frame's surroundings from which an object that looks like them is a part of something of one colour."""

HIDDEN_FRAMES = 40
"""So long a part that is not seen is remembered, unless the whole object is hidden."""

GONE = 0.08
"""An object of which less than this share of its usual area is in sight is gone."""

FADING = 0.8
"""Weight of what was learned of colours before, from frame to frame."""


@dataclass(frozen=True)
class Carried:
    """What is known of an object at one frame.

    `mask` is what is in sight; `unseen` counts the frames since each pixel of the object's whole shape was in sight `[h, w]`, -1 outside;
    `look` shows the shape's colours `[h, w, 3]`. `first` and `late` are the colours of the prompt's frame and of late. `area` is the usual
    number of pixels in sight, `side` the frame's shorter side, `pace` the motion per frame (x, y), `gone` the number of frames since the
    object was seen at all, `part` whether it is a part of something that looks like it, such as a lid of its jar.
    """

    mask: BoolArray
    unseen: Float32Array
    look: UInt8Array
    first: Palette
    late: Palette
    area: float
    side: int
    pace: Float32Array = field(default_factory=lambda: np.zeros(2, np.float32))
    gone: int = 0
    part: bool = False

    @property
    def band(self) -> int:
        """Half the width, in pixels, of the strip along an edge that is cut anew."""
        return max(3, round(BAND * self.side))

    @property
    def around(self) -> int:
        """Width, in pixels, of the surroundings whose colours count."""
        return round(AROUND * self.side)

    @property
    def reach(self) -> int:
        """How far, in pixels, an object that is gone is looked for."""
        return round(min(0.5, 0.03 * (2 + self.gone)) * self.side) if self.gone else 0


def begin(picture: UInt8Array, mask: BoolArray) -> Carried:
    """An object as a prompt found it."""
    side = min(mask.shape)
    colours = Palette().learned(picture[mask], picture[ring(mask, round(AROUND * side))])
    state = Carried(mask, np.where(mask, 0, -1).astype(np.float32), picture, colours, colours, float(mask.sum()), side)
    beside = picture[ring(mask, 4 * state.band, state.band)]
    return replace(state, part=bool(len(beside)) and float((colour_odds(beside[None], colours) > 0).mean()) > PART)


def step(state: Carried, before: UInt8Array, now: UInt8Array, flow: OpticalFlow) -> Carried:
    """The object one frame on, from the picture `before` to the picture `now`, `[h, w, 3]` each."""
    margin = state.around + 3 * state.band + 2 * round(float(np.abs(state.pace).max())) + state.reach
    window = window_of(state.unseen >= 0, margin)
    cut_out = replace(state, mask=state.mask[window], unseen=state.unseen[window], look=np.ascontiguousarray(state.look[window]))
    pictures = [np.ascontiguousarray(picture[window]) for picture in (before, now)]
    greys = [np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8) for picture in pictures]
    return _in_frame(_step(cut_out, pictures[0], pictures[1], *flow.back(greys[1], greys[0])), window, state)


def _in_frame(part: Carried, window: Window, state: Carried) -> Carried:
    """The state of a window of the frame as one of the frame."""
    mask, unseen = np.zeros_like(state.mask), np.full_like(state.unseen, -1)
    mask[window], unseen[window] = part.mask, part.unseen
    look = state.look.copy()
    look[window] = part.look
    return replace(part, mask=mask, unseen=unseen, look=look)


def _step(state: Carried, before: UInt8Array, now: UInt8Array, back: Float32Array, seen: BoolArray) -> Carried:
    """`back` is the motion `[h, w, 2]` from each pixel of `now` to `before`, `seen` whether it was in sight there."""
    look = _in_this_light(state.look, before, now, back, seen)
    known = Remembered(state.unseen >= 0, look, state.pace)
    there, pace = whole_motion(known, None if state.gone else state.mask, now, back, seen)
    if state.gone == 0 and np.any(state.pace):
        pace = 0.5 * pace + 0.5 * state.pace
    unseen, look = sample(state.unseen, there, cv2.INTER_NEAREST), np.asarray(sample(look, there), np.uint8)
    if state.gone:
        unseen, look = _searched(unseen, look, now, state.reach)
    mask, rest = _cut_anew(state, before, now, (back, seen, there), unseen, look)
    return _noted(state, mask, now, unseen, look, pace, rest)


def _cut_anew(
    state: Carried,
    before: UInt8Array,
    now: UInt8Array,
    motion: tuple[Float32Array, BoolArray, Float32Array],
    unseen: Float32Array,
    look: UInt8Array,
) -> tuple[BoolArray, BoolArray]:
    """What is in sight of the object in `now` `[h, w]`, and what surely came with the rest."""
    band = state.band
    carried, story = _stories(state.mask, before, now, motion, band)
    away = signed_distance(carried)
    colours, foreign = _colours(state, now, carried, away)
    # Far from the edge only what has the object's colours may return: what was missed, or comes out from behind something.
    near = grown((unseen >= 0) | carried, 4 * band) & (colours > RETURNS)
    beyond = grown(carried, 4 * band) & (away < -band)
    if state.part or (near & beyond).sum() > SPILL * beyond.sum():
        # Here colours outside the object's edge say nothing for it.
        near, colours = np.zeros_like(near), np.where(away < 0, np.minimum(colours, 0), colours)
    # What comes out from behind the object most likely looks like what is around; if not, it is as well a new side of the object.
    strange = story.revealed * foreign
    rest = story.rest + strange * (DIFFERENT - UNKNOWN)
    moved = np.clip((rest - story.own) / LEVELS_PER_ODDS, -6, 6)
    # What was missed moves on with the rest, and what was taken in by mistake with the object: where colours are clear they decide.
    moved = np.where(colours > RETURNS, np.maximum(moved, 0), np.where(colours < -RETURNS, np.minimum(moved, 0), moved))
    edge = np.clip(4 * away / band, -4, 4)
    odds = COLOUR * colours + MOTION * moved + EDGE * np.where(edge < 0, edge * (1 - strange), edge)
    hidden = (unseen > 0) & (away < 0)
    match = cv2.blur(difference(now, look), (3, 3))
    back_again: Float32Array = np.clip((0.6 * DIFFERENT - match) / LEVELS_PER_ODDS * 2, -6, 6)
    odds = np.where(hidden, np.maximum(odds, back_again), odds)
    outside = (away < -band) & ~grown(hidden, band // 2) & ~near
    inside = (away > band) & (colours > -RETURNS)
    return without_specks(windowed_cut(np.asarray(odds, np.float32), now, inside, outside), SPECK), rest < DIFFERENT / 2


def _noted(
    state: Carried, mask: BoolArray, now: UInt8Array, unseen: Float32Array, look: UInt8Array, pace: Float32Array, rest: BoolArray
) -> Carried:
    """The state after `mask` was found in the picture `now`."""
    seen = float(mask.sum())
    if seen < GONE * state.area:
        unseen = np.where(unseen >= 0, np.maximum(unseen, 1), -1).astype(np.float32)
        return replace(state, mask=np.zeros_like(mask), unseen=unseen, look=look, gone=state.gone + 1)
    anchored = colour_odds(now, state.first)
    # What was taken in by mistake is not the object, and a side of it that was missed is no background: what is learned there was there
    # before, moved with the rest and keeps a distance.
    core = eroded(mask, 2) & (anchored > -2)
    behind = ring(mask, state.around, 2 * state.band) & rest
    alike = behind & (anchored >= 2)
    # So much of its colours cannot be a part of it that was missed: it came before a ground that looks like it.
    others = behind if alike.sum() > GROUND * state.area else behind & ~alike
    late = state.late.learned(now[core if core.any() else mask], now[others], FADING)
    unseen = np.where(unseen >= 0, unseen + 1, -1)
    unseen = np.where(mask, 0, np.where(unseen > HIDDEN_FRAMES, -1, unseen)).astype(np.float32)
    look = np.where(mask[..., None], now, look)
    area = 0.9 * state.area + 0.1 * seen if seen < state.area else seen
    return replace(state, mask=mask, unseen=unseen, look=look, late=late, area=area, pace=np.asarray(pace, np.float32), gone=0)


def _colours(state: Carried, now: UInt8Array, carried: BoolArray, away: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Log-odds of the colours: as they were of late, as the prompt's frame showed them, and as they are close by; and how foreign they are
    to what is around, 0 to 1.
    """
    band = state.band
    core = now[away > band / 2] if (away > band / 2).any() else now[carried]
    # In another light the first frame's colours say nothing.
    first = 0.5 * state.first.familiar(core)
    anchored, late = colour_odds(now, state.first), colour_odds(now, state.late)
    whole = late + first * (anchored - late)
    local, foreign = _local_odds(now, away > band / 2, (away < -band / 2) & (anchored < 2), 3.0 * band)
    return 0.6 * whole + 0.4 * local, foreign


def _local_odds(now: UInt8Array, inside: BoolArray, outside: BoolArray, sigma: float) -> tuple[Float32Array, Float32Array]:
    """Log-odds of the colours by mean and spread of what surely lies inside and outside close by; and how foreign they are outside."""
    picture = now.astype(np.float32)
    costs, foreign = [], np.zeros_like(picture[..., 0])
    for part in (inside, outside):
        mean, variance = _local_moments(picture, part, sigma)
        variance = variance + LOCAL_NOISE**2
        foreign = np.minimum(_mean_square(picture - mean) / variance, FOREIGN)
        costs.append(foreign + np.log(variance))
    return np.asarray(np.clip(1.5 * (costs[1] - costs[0]), -6, 6), np.float32), foreign / FOREIGN


def _mean_square(values: Float32Array) -> Float32Array:
    """`[h, w]` of `[h, w, 3]`."""
    return np.asarray(cv2.transform(values * values, np.full((1, 3), 1 / 3, np.float32)), np.float32)


def _local_moments(picture: Float32Array, part: BoolArray, sigma: float) -> tuple[Float32Array, Float32Array]:
    """Mean `[h, w, 3]` and variance `[h, w]` of a part's colours around each pixel, at a quarter of the resolution."""
    size, quarter = part.shape[::-1], (max(1, part.shape[1] // 4), max(1, part.shape[0] // 4))
    share = part.astype(np.float32)
    fed = (picture * share[..., None], np.dstack([_mean_square(picture) * share, share]))
    small = np.dstack([cv2.resize(each, quarter, interpolation=cv2.INTER_AREA).reshape(*quarter[::-1], -1) for each in fed])
    small = cv2.GaussianBlur(small, (0, 0), sigma / 4) + 1e-3 * cv2.GaussianBlur(small, (0, 0), sigma) + 1e-6 * small.mean((0, 1)) + 1e-9
    found = cv2.resize(small[..., :4] / small[..., 4:], size, interpolation=cv2.INTER_LINEAR)
    return found[..., :3], np.maximum(found[..., 3] - _mean_square(found[..., :3]), 0)


@dataclass(frozen=True)
class _Story:
    """For each pixel `[h, w]`: what it costs, in levels, to say that it came along with the object (`own`) or with the `rest`, and how
    far it would be `revealed` then: the object hid it before.
    """

    own: Float32Array
    rest: Float32Array
    revealed: Float32Array


def _stories(
    mask: BoolArray, before: UInt8Array, now: UInt8Array, motion: tuple[Float32Array, BoolArray, Float32Array], band: int
) -> tuple[BoolArray, _Story]:
    """Where the mask is carried to `[h, w]`, and what the two stories cost."""
    back, seen, there = motion
    home, previous = grid(*mask.shape), mask.astype(np.float32)
    was = sample(previous, home + back) > 0.5
    core = eroded(was, max(1, band // 2))
    known = core & seen
    along = _spread_motion(back, known, band * 3.0) if known.sum() > 20 else there - home
    behind = _spread_motion(back, ~grown(was, band) & seen, band * 3.0)
    from_object, own = _cost(previous, before, now, home + along)
    as_whole, own_whole = _cost(previous, before, now, there)
    from_rest, behind_it = _cost(1 - previous, before, now, home + behind, hides=True)
    return own + own_whole > 1, _Story(np.minimum(from_object, as_whole), from_rest, 1 - behind_it)


def _cost(
    belongs: Float32Array, before: UInt8Array, now: UInt8Array, places: Float32Array, hides: bool = False
) -> tuple[Float32Array, Float32Array]:
    """What it costs, in levels, to say that pixels came from `places`, where `belongs` says how far these are part of the same; and that.

    A part that another `hides` may have looked like anything.
    """
    part = sample(belongs, places)
    levels = difference(now, sample(before, places))
    other = np.float32(0) if hides else np.minimum(levels, DIFFERENT - UNKNOWN)
    return np.asarray(part * np.minimum(levels, 2 * DIFFERENT) + (1 - part) * (UNKNOWN + other), np.float32), part


def _in_this_light(look: UInt8Array, before: UInt8Array, now: UInt8Array, back: Float32Array, seen: BoolArray) -> UInt8Array:
    """The remembered colours as much brighter or darker as the picture became."""
    some = np.s_[::4, ::4]
    shown = seen[some]
    if not shown.any():
        return look
    then = sample(before, grid(*seen.shape)[some] + back[some])[shown].mean(0)
    gain = np.clip((now[some][shown].mean(0) + 1) / (then + 1), 0.8, 1.25)
    return np.asarray(np.clip(look * gain.astype(np.float32), 0, 255), np.uint8)


def _searched(unseen: Float32Array, look: UInt8Array, now: UInt8Array, reach: int) -> tuple[Float32Array, UInt8Array]:
    """The remembered shape put where the picture shows it best, near where it should be."""
    found = search(Remembered(unseen >= 0, look, np.zeros(2, np.float32)), now, reach)
    if found is None:
        return unseen, look
    move, size = np.array([[1, 0, found[0]], [0, 1, found[1]]], np.float32), unseen.shape[::-1]
    moved = cv2.warpAffine(unseen, move, size, flags=cv2.INTER_NEAREST, borderValue=-1)
    return np.asarray(moved, np.float32), np.asarray(cv2.warpAffine(look, move, size), np.uint8)


def _spread_motion(motion: Float32Array, known: BoolArray, sigma: float) -> Float32Array:
    """A field of motion `[h, w, 2]`, known in places, continued smoothly to where it is not."""
    quarter = (max(1, known.shape[1] // 4), max(1, known.shape[0] // 4))
    share = cv2.resize(known.astype(np.float32), quarter, interpolation=cv2.INTER_AREA)
    total = cv2.resize(motion * known[..., None], quarter, interpolation=cv2.INTER_AREA)
    # Close by counts most; farther on there is always something that counts a little.
    mean = motion[known].mean(0) if known.any() else np.zeros(2, np.float32)
    weights, totals = np.full_like(share, 1e-5), np.full_like(total, 1e-5) * mean
    for width, importance in ((sigma / 4, 1.0), (sigma, 0.01)):
        weights = weights + importance * cv2.GaussianBlur(share, (0, 0), width)
        totals = totals + importance * cv2.GaussianBlur(total, (0, 0), width)
    smooth = cv2.resize(totals / weights[..., None], known.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.where(known[..., None], motion, smooth), np.float32)
