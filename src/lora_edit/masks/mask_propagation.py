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

from lora_edit.masks.graph_cut import ObjectColourModel, compute_colour_odds, cut_graph_within_bounds, remove_small_parts_and_holes
from lora_edit.masks.morphology import (
    PixelSlices,
    compute_ring,
    compute_signed_distance,
    dilate_mask,
    erode_mask,
    find_slices,
    max_channel_difference,
)
from lora_edit.masks.rigid_motion import MAX_COLOUR_DIFFERENCE, ObjectTemplate, estimate_rigid_motion, locate_object
from lora_edit.types import BoolArray, Float32Array, UInt8Array
from lora_edit.video.flow import OpticalFlow, build_pixel_grid, sample_image

BAND = 0.016
"""Half the width of the strip along the carried edge that is cut anew, share of the frame's shorter side."""

SURROUND_WIDTH = 0.12
"""Width of the surroundings whose colours an object is told from, share of the frame's shorter side."""

UNKNOWN_COST = 4.0
"""Levels that it costs to say that a pixel came from a place that was part of something else."""

LEVELS_PER_ODDS = 6.0

REENTRY_ODDS = 2.0
"""Log-odds of the colours from which a pixel at some distance from the carried edge may be the object's."""

MAX_DEVIATION = 3.0
"""Squared deviations from which a colour is foreign, however far it is: new sides of things have new colours."""

LOCAL_NOISE = 12.0
"""Levels by which colours of one thing differ anyway."""

COLOUR_WEIGHT, MOTION_WEIGHT, EDGE_WEIGHT = 0.9, 1.0, 0.5
"""Weights of the three kinds of evidence, each in log-odds."""

MIN_PART_SHARE = 0.03
"""Parts smaller than this share of the largest are dropped."""

MAX_LOOKALIKE_AREA = 0.75
"""Beyond this share of the object's area, what looks like it close by and came with the rest is no part of it that was missed."""

MAX_REENTRY_SHARE = 0.3
"""Share of the surroundings beyond which they may not all return: the ground looks like the object."""

MIN_LOOKALIKE_SHARE = 0.15
"""Share of the prompted frame's surroundings from which an object that looks like them is a part of something of one colour."""

MAX_HIDDEN_FRAMES = 40
"""So long a part that is not seen is remembered, unless the whole object is hidden."""

MIN_VISIBLE_SHARE = 0.08
"""An object of which less than this share of its usual area is in sight is gone."""

COLOUR_DECAY = 0.8
"""Weight of what was learned of colours before, from frame to frame."""


@dataclass(frozen=True)
class ObjectState:
    """What is known of an object at one frame.

    `mask` is what is in sight; `unseen` counts the frames since each pixel of the object's whole shape was in sight `[h, w]`, -1 outside;
    `look` shows the shape's colours `[h, w, 3]`. `first` and `late` are the colours of the prompt's frame and of late. `area` is the usual
    number of pixels in sight, `side` the frame's shorter side, `pace` the motion per frame (x, y), `gone` the number of frames since the
    object was seen at all, `part` whether it is a part of something that looks like it, such as a lid of its jar.
    """

    mask: BoolArray
    frames_since_visible: Float32Array
    appearance: UInt8Array
    prompt_colours: ObjectColourModel
    recent_colours: ObjectColourModel
    visible_area: float
    short_side: int
    velocity: Float32Array = field(default_factory=lambda: np.zeros(2, np.float32))
    num_lost_frames: int = 0
    is_part: bool = False

    @property
    def band(self) -> int:
        """Half the width, in pixels, of the strip along an edge that is cut anew."""
        return max(3, round(BAND * self.short_side))

    @property
    def surround_width(self) -> int:
        """Width, in pixels, of the surroundings whose colours count."""
        return round(SURROUND_WIDTH * self.short_side)

    @property
    def search_radius(self) -> int:
        """How far, in pixels, an object that is gone is looked for."""
        return round(min(0.5, 0.03 * (2 + self.num_lost_frames)) * self.short_side) if self.num_lost_frames else 0


def init_object_state(picture: UInt8Array, mask: BoolArray) -> ObjectState:
    """An object as a prompt found it."""
    side = min(mask.shape)
    colours = ObjectColourModel().add_pixels(picture[mask], picture[compute_ring(mask, round(SURROUND_WIDTH * side))])
    state = ObjectState(mask, np.where(mask, 0, -1).astype(np.float32), picture, colours, colours, float(mask.sum()), side)
    beside = picture[compute_ring(mask, 4 * state.band, state.band)]
    return replace(
        state, is_part=bool(len(beside)) and float((compute_colour_odds(beside[None], colours) > 0).mean()) > MIN_LOOKALIKE_SHARE
    )


def propagate_object(state: ObjectState, previous_frame: UInt8Array, current_frame: UInt8Array, flow: OpticalFlow) -> ObjectState:
    """The object one frame on, from the picture `before` to the picture `now`, `[h, w, 3]` each."""
    margin = state.surround_width + 3 * state.band + 2 * round(float(np.abs(state.velocity).max())) + state.search_radius
    window = find_slices(state.frames_since_visible >= 0, margin)
    cut_out = replace(
        state,
        mask=state.mask[window],
        frames_since_visible=state.frames_since_visible[window],
        appearance=np.ascontiguousarray(state.appearance[window]),
    )
    pictures = [np.ascontiguousarray(picture[window]) for picture in (previous_frame, current_frame)]
    greys = [np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8) for picture in pictures]
    return _paste_into_frame(
        _propagate_locally(cut_out, pictures[0], pictures[1], *flow.compute_backward_flow(greys[1], greys[0])), window, state
    )


def _paste_into_frame(local_state: ObjectState, slices: PixelSlices, state: ObjectState) -> ObjectState:
    """The state of a window of the frame as one of the frame."""
    mask, unseen = np.zeros_like(state.mask), np.full_like(state.frames_since_visible, -1)
    mask[slices], unseen[slices] = local_state.mask, local_state.frames_since_visible
    look = state.appearance.copy()
    look[slices] = local_state.appearance
    return replace(local_state, mask=mask, frames_since_visible=unseen, appearance=look)


def _propagate_locally(
    state: ObjectState, previous_frame: UInt8Array, current_frame: UInt8Array, backward_flow: Float32Array, visible_mask: BoolArray
) -> ObjectState:
    """`back` is the motion `[h, w, 2]` from each pixel of `now` to `before`, `seen` whether it was in sight there."""
    look = _match_brightness(state.appearance, previous_frame, current_frame, backward_flow, visible_mask)
    known = ObjectTemplate(state.frames_since_visible >= 0, look, state.velocity)
    there, pace = estimate_rigid_motion(known, None if state.num_lost_frames else state.mask, current_frame, backward_flow, visible_mask)
    if state.num_lost_frames == 0 and np.any(state.velocity):
        pace = 0.5 * pace + 0.5 * state.velocity
    unseen, look = sample_image(state.frames_since_visible, there, cv2.INTER_NEAREST), np.asarray(sample_image(look, there), np.uint8)
    if state.num_lost_frames:
        unseen, look = _relocate_object(unseen, look, current_frame, state.search_radius)
    mask, rest = _segment_object(state, previous_frame, current_frame, (backward_flow, visible_mask, there), unseen, look)
    return _update_state(state, mask, current_frame, unseen, look, pace, rest)


def _segment_object(
    state: ObjectState,
    previous_frame: UInt8Array,
    current_frame: UInt8Array,
    motion: tuple[Float32Array, BoolArray, Float32Array],
    frames_since_visible: Float32Array,
    appearance: UInt8Array,
) -> tuple[BoolArray, BoolArray]:
    """What is in sight of the object in `now` `[h, w]`, and what surely came with the rest."""
    band = state.band
    carried, story = _compute_origin_costs(state.mask, previous_frame, current_frame, motion, band)
    away = compute_signed_distance(carried)
    colours, foreign = _combine_colour_odds(state, current_frame, carried, away)
    # Far from the edge only what has the object's colours may return: what was missed, or comes out from behind something.
    near = dilate_mask((frames_since_visible >= 0) | carried, 4 * band) & (colours > REENTRY_ODDS)
    beyond = dilate_mask(carried, 4 * band) & (away < -band)
    if state.is_part or (near & beyond).sum() > MAX_REENTRY_SHARE * beyond.sum():
        # Here colours outside the object's edge say nothing for it.
        near, colours = np.zeros_like(near), np.where(away < 0, np.minimum(colours, 0), colours)
    # What comes out from behind the object most likely looks like what is around; if not, it is as well a new side of the object.
    strange = story.disocclusion * foreign
    rest = story.background_cost + strange * (MAX_COLOUR_DIFFERENCE - UNKNOWN_COST)
    moved = np.clip((rest - story.object_cost) / LEVELS_PER_ODDS, -6, 6)
    # What was missed moves on with the rest, and what was taken in by mistake with the object: where colours are clear they decide.
    moved = np.where(colours > REENTRY_ODDS, np.maximum(moved, 0), np.where(colours < -REENTRY_ODDS, np.minimum(moved, 0), moved))
    edge = np.clip(4 * away / band, -4, 4)
    odds = COLOUR_WEIGHT * colours + MOTION_WEIGHT * moved + EDGE_WEIGHT * np.where(edge < 0, edge * (1 - strange), edge)
    hidden = (frames_since_visible > 0) & (away < 0)
    match = cv2.blur(max_channel_difference(current_frame, appearance), (3, 3))
    back_again: Float32Array = np.clip((0.6 * MAX_COLOUR_DIFFERENCE - match) / LEVELS_PER_ODDS * 2, -6, 6)
    odds = np.where(hidden, np.maximum(odds, back_again), odds)
    outside = (away < -band) & ~dilate_mask(hidden, band // 2) & ~near
    inside = (away > band) & (colours > -REENTRY_ODDS)
    return remove_small_parts_and_holes(
        cut_graph_within_bounds(np.asarray(odds, np.float32), current_frame, inside, outside), MIN_PART_SHARE
    ), rest < MAX_COLOUR_DIFFERENCE / 2


def _update_state(
    state: ObjectState,
    mask: BoolArray,
    current_frame: UInt8Array,
    frames_since_visible: Float32Array,
    appearance: UInt8Array,
    velocity: Float32Array,
    background: BoolArray,
) -> ObjectState:
    """The state after `mask` was found in the picture `now`."""
    seen = float(mask.sum())
    if seen < MIN_VISIBLE_SHARE * state.visible_area:
        frames_since_visible = np.where(frames_since_visible >= 0, np.maximum(frames_since_visible, 1), -1).astype(np.float32)
        return replace(
            state,
            mask=np.zeros_like(mask),
            frames_since_visible=frames_since_visible,
            appearance=appearance,
            num_lost_frames=state.num_lost_frames + 1,
        )
    anchored = compute_colour_odds(current_frame, state.prompt_colours)
    # What was taken in by mistake is not the object, and a side of it that was missed is no background: what is learned there was there
    # before, moved with the rest and keeps a distance.
    core = erode_mask(mask, 2) & (anchored > -2)
    behind = compute_ring(mask, state.surround_width, 2 * state.band) & background
    alike = behind & (anchored >= 2)
    # So much of its colours cannot be a part of it that was missed: it came before a ground that looks like it.
    others = behind if alike.sum() > MAX_LOOKALIKE_AREA * state.visible_area else behind & ~alike
    late = state.recent_colours.add_pixels(current_frame[core if core.any() else mask], current_frame[others], COLOUR_DECAY)
    frames_since_visible = np.where(frames_since_visible >= 0, frames_since_visible + 1, -1)
    frames_since_visible = np.where(mask, 0, np.where(frames_since_visible > MAX_HIDDEN_FRAMES, -1, frames_since_visible)).astype(
        np.float32
    )
    appearance = np.where(mask[..., None], current_frame, appearance)
    area = 0.9 * state.visible_area + 0.1 * seen if seen < state.visible_area else seen
    return replace(
        state,
        mask=mask,
        frames_since_visible=frames_since_visible,
        appearance=appearance,
        recent_colours=late,
        visible_area=area,
        velocity=np.asarray(velocity, np.float32),
        num_lost_frames=0,
    )


def _combine_colour_odds(
    state: ObjectState, current_frame: UInt8Array, propagated_mask: BoolArray, edge_distance: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Log-odds of the colours: as they were of late, as the prompt's frame showed them, and as they are close by; and how foreign they are
    to what is around, 0 to 1.
    """
    band = state.band
    core = current_frame[edge_distance > band / 2] if (edge_distance > band / 2).any() else current_frame[propagated_mask]
    # In another light the first frame's colours say nothing.
    first = 0.5 * state.prompt_colours.compute_known_share(core)
    anchored, late = compute_colour_odds(current_frame, state.prompt_colours), compute_colour_odds(current_frame, state.recent_colours)
    whole = late + first * (anchored - late)
    local, foreign = _compute_local_odds(current_frame, edge_distance > band / 2, (edge_distance < -band / 2) & (anchored < 2), 3.0 * band)
    return 0.6 * whole + 0.4 * local, foreign


def _compute_local_odds(
    current_frame: UInt8Array, inside: BoolArray, outside: BoolArray, sigma: float
) -> tuple[Float32Array, Float32Array]:
    """Log-odds of the colours by mean and spread of what surely lies inside and outside close by; and how foreign they are outside."""
    picture = current_frame.astype(np.float32)
    costs, foreign = [], np.zeros_like(picture[..., 0])
    for part in (inside, outside):
        mean, variance = _compute_local_moments(picture, part, sigma)
        variance = variance + LOCAL_NOISE**2
        foreign = np.minimum(_compute_mean_square(picture - mean) / variance, MAX_DEVIATION)
        costs.append(foreign + np.log(variance))
    return np.asarray(np.clip(1.5 * (costs[1] - costs[0]), -6, 6), np.float32), foreign / MAX_DEVIATION


def _compute_mean_square(values: Float32Array) -> Float32Array:
    """`[h, w]` of `[h, w, 3]`."""
    return np.asarray(cv2.transform(values * values, np.full((1, 3), 1 / 3, np.float32)), np.float32)


def _compute_local_moments(picture: Float32Array, part: BoolArray, sigma: float) -> tuple[Float32Array, Float32Array]:
    """Mean `[h, w, 3]` and variance `[h, w]` of a part's colours around each pixel, at a quarter of the resolution."""
    size, quarter = part.shape[::-1], (max(1, part.shape[1] // 4), max(1, part.shape[0] // 4))
    share = part.astype(np.float32)
    fed = (picture * share[..., None], np.dstack([_compute_mean_square(picture) * share, share]))
    small = np.dstack([cv2.resize(each, quarter, interpolation=cv2.INTER_AREA).reshape(*quarter[::-1], -1) for each in fed])
    small = cv2.GaussianBlur(small, (0, 0), sigma / 4) + 1e-3 * cv2.GaussianBlur(small, (0, 0), sigma) + 1e-6 * small.mean((0, 1)) + 1e-9
    found = cv2.resize(small[..., :4] / small[..., 4:], size, interpolation=cv2.INTER_LINEAR)
    return found[..., :3], np.maximum(found[..., 3] - _compute_mean_square(found[..., :3]), 0)


@dataclass(frozen=True)
class _OriginCosts:
    """For each pixel `[h, w]`: what it costs, in levels, to say that it came along with the object (`own`) or with the `rest`, and how
    far it would be `revealed` then: the object hid it before.
    """

    object_cost: Float32Array
    background_cost: Float32Array
    disocclusion: Float32Array


def _compute_origin_costs(
    mask: BoolArray, previous_frame: UInt8Array, current_frame: UInt8Array, motion: tuple[Float32Array, BoolArray, Float32Array], band: int
) -> tuple[BoolArray, _OriginCosts]:
    """Where the mask is carried to `[h, w]`, and what the two stories cost."""
    back, seen, there = motion
    home, previous = build_pixel_grid(*mask.shape), mask.astype(np.float32)
    was = sample_image(previous, home + back) > 0.5
    core = erode_mask(was, max(1, band // 2))
    known = core & seen
    along = _extrapolate_motion(back, known, band * 3.0) if known.sum() > 20 else there - home
    behind = _extrapolate_motion(back, ~dilate_mask(was, band) & seen, band * 3.0)
    from_object, own = _compute_origin_cost(previous, previous_frame, current_frame, home + along)
    as_whole, own_whole = _compute_origin_cost(previous, previous_frame, current_frame, there)
    from_rest, behind_it = _compute_origin_cost(1 - previous, previous_frame, current_frame, home + behind, is_occluded=True)
    return own + own_whole > 1, _OriginCosts(np.minimum(from_object, as_whole), from_rest, 1 - behind_it)


def _compute_origin_cost(
    membership: Float32Array, previous_frame: UInt8Array, current_frame: UInt8Array, positions: Float32Array, is_occluded: bool = False
) -> tuple[Float32Array, Float32Array]:
    """What it costs, in levels, to say that pixels came from `places`, where `belongs` says how far these are part of the same; and that.

    A part that another `hides` may have looked like anything.
    """
    part = sample_image(membership, positions)
    levels = max_channel_difference(current_frame, sample_image(previous_frame, positions))
    other = np.float32(0) if is_occluded else np.minimum(levels, MAX_COLOUR_DIFFERENCE - UNKNOWN_COST)
    return np.asarray(part * np.minimum(levels, 2 * MAX_COLOUR_DIFFERENCE) + (1 - part) * (UNKNOWN_COST + other), np.float32), part


def _match_brightness(
    appearance: UInt8Array, previous_frame: UInt8Array, current_frame: UInt8Array, backward_flow: Float32Array, visible_mask: BoolArray
) -> UInt8Array:
    """The remembered colours as much brighter or darker as the picture became."""
    some = np.s_[::4, ::4]
    shown = visible_mask[some]
    if not shown.any():
        return appearance
    then = sample_image(previous_frame, build_pixel_grid(*visible_mask.shape)[some] + backward_flow[some])[shown].mean(0)
    gain = np.clip((current_frame[some][shown].mean(0) + 1) / (then + 1), 0.8, 1.25)
    return np.asarray(np.clip(appearance * gain.astype(np.float32), 0, 255), np.uint8)


def _relocate_object(
    frames_since_visible: Float32Array, appearance: UInt8Array, current_frame: UInt8Array, search_radius: int
) -> tuple[Float32Array, UInt8Array]:
    """The remembered shape put where the picture shows it best, near where it should be."""
    found = locate_object(ObjectTemplate(frames_since_visible >= 0, appearance, np.zeros(2, np.float32)), current_frame, search_radius)
    if found is None:
        return frames_since_visible, appearance
    move, size = np.array([[1, 0, found[0]], [0, 1, found[1]]], np.float32), frames_since_visible.shape[::-1]
    moved = cv2.warpAffine(frames_since_visible, move, size, flags=cv2.INTER_NEAREST, borderValue=-1)
    return np.asarray(moved, np.float32), np.asarray(cv2.warpAffine(appearance, move, size), np.uint8)


def _extrapolate_motion(motion: Float32Array, known: BoolArray, sigma: float) -> Float32Array:
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
