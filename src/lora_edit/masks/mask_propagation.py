"""Propagation of one object's mask from frame to frame: moved by the object's motion, re-segmented along its edge, and remembered while
hidden.

All pictures have the size at which motion is computed, and all work is done in a window around the object. Near the object's edge two
hypotheses are compared for every pixel: it moved with the object, or with the background. Colours and the previous edge contribute,
and a minimum cut decides. Hidden parts are remembered as shape and colours, move with the visible parts, and reappear where the
picture shows them.
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
"""Half the width of the band along the propagated edge that is re-segmented, as a share of the frame's shorter side."""

SURROUND_WIDTH = 0.12
"""Width of the surroundings whose colours an object is compared with, as a share of the frame's shorter side."""

UNKNOWN_COST = 4.0
"""Cost, in levels, of a pixel's origin that was part of something else."""

LEVELS_PER_ODDS = 6.0
"""Difference of costs, in levels, that corresponds to one unit of log-odds."""

REENTRY_ODDS = 2.0
"""Log-odds of the colours from which a pixel at some distance from the propagated edge may belong to the object."""

MAX_DEVIATION = 3.0
"""Squared deviation at which a colour counts as completely foreign: new sides of objects have new colours."""

LOCAL_NOISE = 12.0
"""Variation of the colours of one object, in levels, that is always assumed."""

COLOUR_WEIGHT, MOTION_WEIGHT, EDGE_WEIGHT = 0.9, 1.0, 0.5
"""Weights of the three kinds of evidence, each in log-odds."""

MIN_PART_SHARE = 0.03
"""Parts smaller than this share of the largest are dropped."""

MAX_LOOKALIKE_AREA = 0.75
"""Share of the object's area above which nearby pixels that look like the object but moved with the background are not missed parts of
it."""

MAX_REENTRY_SHARE = 0.3
"""Share of the surroundings above which re-entry is disabled: the background looks like the object."""

MIN_LOOKALIKE_SHARE = 0.15
"""Share of the prompted frame's surroundings from which an object that looks like them counts as a part of a larger object of one
colour."""

MAX_HIDDEN_FRAMES = 40
"""Number of frames for which a hidden part is remembered, unless the whole object is hidden."""

MIN_VISIBLE_SHARE = 0.08
"""Visible share of an object's usual area below which the object counts as lost."""

COLOUR_DECAY = 0.8
"""Factor by which the weight of earlier colours decays from frame to frame."""


@dataclass(frozen=True)
class ObjectState:
    """The state of an object at one frame.

    `mask` is the visible part. `frames_since_visible` `[h, w]` counts the frames since each pixel of the object's whole shape was
    visible, -1 outside of it; `appearance` `[h, w, 3]` holds the shape's colours. `prompt_colours` and `recent_colours` are colour
    models of the prompted frame and of recent frames, `visible_area` is the usual number of visible pixels, `short_side` the frame's
    shorter side, `velocity` the motion per frame (x, y), `num_lost_frames` the number of frames since any of the object was visible.
    `is_part` is True for a part of an object that looks like it, such as the lid of a jar.
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
        """Half the width, in pixels, of the band along an edge that is re-segmented."""
        return max(3, round(BAND * self.short_side))

    @property
    def surround_width(self) -> int:
        """Width, in pixels, of the surroundings whose colours are modelled."""
        return round(SURROUND_WIDTH * self.short_side)

    @property
    def search_radius(self) -> int:
        """Distance, in pixels, up to which a lost object is searched."""
        return round(min(0.5, 0.03 * (2 + self.num_lost_frames)) * self.short_side) if self.num_lost_frames else 0


def init_object_state(picture: UInt8Array, mask: BoolArray) -> ObjectState:
    """Create the state of an object from a prompted frame's mask."""
    short_side = min(mask.shape)
    colours = ObjectColourModel().add_pixels(picture[mask], picture[compute_ring(mask, round(SURROUND_WIDTH * short_side))])
    state = ObjectState(mask, np.where(mask, 0, -1).astype(np.float32), picture, colours, colours, float(mask.sum()), short_side)
    adjacent_colours = picture[compute_ring(mask, 4 * state.band, state.band)]
    lookalikes = compute_colour_odds(adjacent_colours[None], colours) > 0
    return replace(state, is_part=bool(len(adjacent_colours)) and float(lookalikes.mean()) > MIN_LOOKALIKE_SHARE)


def propagate_object(state: ObjectState, previous_frame: UInt8Array, current_frame: UInt8Array, flow: OpticalFlow) -> ObjectState:
    """Propagate the object by one frame, from `previous_frame` to `current_frame`, `[h, w, 3]` each."""
    margin = state.surround_width + 3 * state.band + 2 * round(float(np.abs(state.velocity).max())) + state.search_radius
    window = find_slices(state.frames_since_visible >= 0, margin)
    local_state = replace(
        state,
        mask=state.mask[window],
        frames_since_visible=state.frames_since_visible[window],
        appearance=np.ascontiguousarray(state.appearance[window]),
    )
    pictures = [np.ascontiguousarray(picture[window]) for picture in (previous_frame, current_frame)]
    greys = [np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8) for picture in pictures]
    local_state = _propagate_locally(local_state, pictures[0], pictures[1], *flow.compute_backward_flow(greys[1], greys[0]))
    return _paste_into_frame(local_state, window, state)


def _paste_into_frame(local_state: ObjectState, slices: PixelSlices, state: ObjectState) -> ObjectState:
    """Paste the state of a window into the state of the whole frame."""
    mask, frames_since_visible = np.zeros_like(state.mask), np.full_like(state.frames_since_visible, -1)
    mask[slices], frames_since_visible[slices] = local_state.mask, local_state.frames_since_visible
    appearance = state.appearance.copy()
    appearance[slices] = local_state.appearance
    return replace(local_state, mask=mask, frames_since_visible=frames_since_visible, appearance=appearance)


def _propagate_locally(
    state: ObjectState, previous_frame: UInt8Array, current_frame: UInt8Array, backward_flow: Float32Array, visible_mask: BoolArray
) -> ObjectState:
    """Propagate the object inside a window. `backward_flow` is the motion `[h, w, 2]` from each pixel of `current_frame` to
    `previous_frame`, and `visible_mask` is set where the pixel was visible there."""
    appearance = _match_brightness(state.appearance, previous_frame, current_frame, backward_flow, visible_mask)
    template = ObjectTemplate(state.frames_since_visible >= 0, appearance, state.velocity)
    rigid_origins, velocity = estimate_rigid_motion(
        template, None if state.num_lost_frames else state.mask, current_frame, backward_flow, visible_mask
    )
    if state.num_lost_frames == 0 and np.any(state.velocity):
        velocity = 0.5 * velocity + 0.5 * state.velocity
    frames_since_visible = sample_image(state.frames_since_visible, rigid_origins, cv2.INTER_NEAREST)
    appearance = np.asarray(sample_image(appearance, rigid_origins), np.uint8)
    if state.num_lost_frames:
        frames_since_visible, appearance = _relocate_object(frames_since_visible, appearance, current_frame, state.search_radius)
    mask, background = _segment_object(
        state, previous_frame, current_frame, (backward_flow, visible_mask, rigid_origins), frames_since_visible, appearance
    )
    return _update_state(state, mask, current_frame, frames_since_visible, appearance, velocity, background)


def _segment_object(
    state: ObjectState,
    previous_frame: UInt8Array,
    current_frame: UInt8Array,
    motion: tuple[Float32Array, BoolArray, Float32Array],
    frames_since_visible: Float32Array,
    appearance: UInt8Array,
) -> tuple[BoolArray, BoolArray]:
    """Segment the visible part of the object in `current_frame` `[h, w]`, and the pixels that certainly moved with the background."""
    band = state.band
    propagated_mask, costs = _compute_origin_costs(state.mask, previous_frame, current_frame, motion, band)
    edge_distance = compute_signed_distance(propagated_mask)
    colours, foreign = _combine_colour_odds(state, current_frame, propagated_mask, edge_distance)
    # Far from the edge only pixels with the object's colours may join: missed parts, and parts that reappear from behind an occluder.
    reentry_area = dilate_mask((frames_since_visible >= 0) | propagated_mask, 4 * band) & (colours > REENTRY_ODDS)
    surroundings = dilate_mask(propagated_mask, 4 * band) & (edge_distance < -band)
    if state.is_part or (reentry_area & surroundings).sum() > MAX_REENTRY_SHARE * surroundings.sum():
        # Colours outside the object's edge are no evidence for the object here.
        reentry_area, colours = np.zeros_like(reentry_area), np.where(edge_distance < 0, np.minimum(colours, 0), colours)
    # Pixels that the object uncovers most likely look like the surroundings. If not, they may as well be a new side of the object.
    foreign_disocclusion = costs.disocclusion * foreign
    background_cost = costs.background_cost + foreign_disocclusion * (MAX_COLOUR_DIFFERENCE - UNKNOWN_COST)
    motion_odds = np.clip((background_cost - costs.object_cost) / LEVELS_PER_ODDS, -6, 6)
    # Missed parts keep moving with the background, and wrongly included ones with the object: clear colours override the motion.
    motion_odds = np.where(
        colours > REENTRY_ODDS, np.maximum(motion_odds, 0), np.where(colours < -REENTRY_ODDS, np.minimum(motion_odds, 0), motion_odds)
    )
    edge_odds = np.clip(4 * edge_distance / band, -4, 4)
    odds = (
        COLOUR_WEIGHT * colours
        + MOTION_WEIGHT * motion_odds
        + EDGE_WEIGHT * np.where(edge_odds < 0, edge_odds * (1 - foreign_disocclusion), edge_odds)
    )
    hidden = (frames_since_visible > 0) & (edge_distance < 0)
    appearance_error = cv2.blur(max_channel_difference(current_frame, appearance), (3, 3))
    reappearance_odds: Float32Array = np.clip((0.6 * MAX_COLOUR_DIFFERENCE - appearance_error) / LEVELS_PER_ODDS * 2, -6, 6)
    odds = np.where(hidden, np.maximum(odds, reappearance_odds), odds)
    outside = (edge_distance < -band) & ~dilate_mask(hidden, band // 2) & ~reentry_area
    inside = (edge_distance > band) & (colours > -REENTRY_ODDS)
    mask = cut_graph_within_bounds(np.asarray(odds, np.float32), current_frame, inside, outside)
    return remove_small_parts_and_holes(mask, MIN_PART_SHARE), background_cost < MAX_COLOUR_DIFFERENCE / 2


def _update_state(
    state: ObjectState,
    mask: BoolArray,
    current_frame: UInt8Array,
    frames_since_visible: Float32Array,
    appearance: UInt8Array,
    velocity: Float32Array,
    background: BoolArray,
) -> ObjectState:
    """Return the state after `mask` was segmented in `current_frame`."""
    visible_area = float(mask.sum())
    if visible_area < MIN_VISIBLE_SHARE * state.visible_area:
        frames_since_visible = np.where(frames_since_visible >= 0, np.maximum(frames_since_visible, 1), -1).astype(np.float32)
        return replace(
            state,
            mask=np.zeros_like(mask),
            frames_since_visible=frames_since_visible,
            appearance=appearance,
            num_lost_frames=state.num_lost_frames + 1,
        )
    prompt_odds = compute_colour_odds(current_frame, state.prompt_colours)
    # Wrongly included pixels are not the object, and a missed side of it is not background. The background samples therefore existed
    # before, moved with the background and keep a distance.
    core = erode_mask(mask, 2) & (prompt_odds > -2)
    surroundings = compute_ring(mask, state.surround_width, 2 * state.band) & background
    lookalikes = surroundings & (prompt_odds >= 2)
    # Such a large area of its colours cannot be a missed part: the object moved in front of a background that looks like it.
    background_samples = surroundings if lookalikes.sum() > MAX_LOOKALIKE_AREA * state.visible_area else surroundings & ~lookalikes
    recent_colours = state.recent_colours.add_pixels(
        current_frame[core if core.any() else mask], current_frame[background_samples], COLOUR_DECAY
    )
    frames_since_visible = np.where(frames_since_visible >= 0, frames_since_visible + 1, -1)
    is_forgotten = frames_since_visible > MAX_HIDDEN_FRAMES
    frames_since_visible = np.where(mask, 0, np.where(is_forgotten, -1, frames_since_visible)).astype(np.float32)
    appearance = np.where(mask[..., None], current_frame, appearance)
    usual_area = 0.9 * state.visible_area + 0.1 * visible_area if visible_area < state.visible_area else visible_area
    return replace(
        state,
        mask=mask,
        frames_since_visible=frames_since_visible,
        appearance=appearance,
        recent_colours=recent_colours,
        visible_area=usual_area,
        velocity=np.asarray(velocity, np.float32),
        num_lost_frames=0,
    )


def _combine_colour_odds(
    state: ObjectState, current_frame: UInt8Array, propagated_mask: BoolArray, edge_distance: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Combine log-odds of the colours from recent frames, the prompted frame and the local neighbourhood. Also returns how foreign the
    colours are to the surroundings, 0 to 1."""
    band = state.band
    core = current_frame[edge_distance > band / 2] if (edge_distance > band / 2).any() else current_frame[propagated_mask]
    # Under other lighting the prompted frame's colours carry no information.
    prompt_weight = 0.5 * state.prompt_colours.compute_known_share(core)
    prompt_odds = compute_colour_odds(current_frame, state.prompt_colours)
    recent_odds = compute_colour_odds(current_frame, state.recent_colours)
    global_odds = recent_odds + prompt_weight * (prompt_odds - recent_odds)
    local_odds, foreign = _compute_local_odds(
        current_frame, edge_distance > band / 2, (edge_distance < -band / 2) & (prompt_odds < 2), 3.0 * band
    )
    return 0.6 * global_odds + 0.4 * local_odds, foreign


def _compute_local_odds(
    current_frame: UInt8Array, inside: BoolArray, outside: BoolArray, sigma: float
) -> tuple[Float32Array, Float32Array]:
    """Compute log-odds of the colours by mean and variance of the nearby pixels that are certainly inside and outside. Also returns how
    foreign the colours are to the outside."""
    picture = current_frame.astype(np.float32)
    costs, foreign = [], np.zeros_like(picture[..., 0])
    for part in (inside, outside):
        mean, variance = _compute_local_moments(picture, part, sigma)
        variance = variance + LOCAL_NOISE**2
        foreign = np.minimum(_compute_mean_square(picture - mean) / variance, MAX_DEVIATION)
        costs.append(foreign + np.log(variance))
    return np.asarray(np.clip(1.5 * (costs[1] - costs[0]), -6, 6), np.float32), foreign / MAX_DEVIATION


def _compute_mean_square(values: Float32Array) -> Float32Array:
    """Compute the mean square over channels, `[h, w]` of `[h, w, 3]`."""
    return np.asarray(cv2.transform(values * values, np.full((1, 3), 1 / 3, np.float32)), np.float32)


def _compute_local_moments(picture: Float32Array, part: BoolArray, sigma: float) -> tuple[Float32Array, Float32Array]:
    """Compute mean `[h, w, 3]` and variance `[h, w]` of a part's colours around each pixel, at a quarter of the resolution."""
    size, quarter = part.shape[::-1], (max(1, part.shape[1] // 4), max(1, part.shape[0] // 4))
    share = part.astype(np.float32)
    weighted_sums = (picture * share[..., None], np.dstack([_compute_mean_square(picture) * share, share]))
    small = np.dstack([cv2.resize(each, quarter, interpolation=cv2.INTER_AREA).reshape(*quarter[::-1], -1) for each in weighted_sums])
    small = cv2.GaussianBlur(small, (0, 0), sigma / 4) + 1e-3 * cv2.GaussianBlur(small, (0, 0), sigma) + 1e-6 * small.mean((0, 1)) + 1e-9
    moments = cv2.resize(small[..., :4] / small[..., 4:], size, interpolation=cv2.INTER_LINEAR)
    return moments[..., :3], np.maximum(moments[..., 3] - _compute_mean_square(moments[..., :3]), 0)


@dataclass(frozen=True)
class _OriginCosts:
    """The cost in levels, for each pixel `[h, w]`, of having moved with the object or with the background, and the degree to which the
    object hid the pixel before in the latter case."""

    object_cost: Float32Array
    background_cost: Float32Array
    disocclusion: Float32Array


def _compute_origin_costs(
    mask: BoolArray, previous_frame: UInt8Array, current_frame: UInt8Array, motion: tuple[Float32Array, BoolArray, Float32Array], band: int
) -> tuple[BoolArray, _OriginCosts]:
    """Propagate the mask `[h, w]`, and compute the costs of both hypotheses."""
    backward_flow, visible_mask, rigid_origins = motion
    grid, membership = build_pixel_grid(*mask.shape), mask.astype(np.float32)
    flow_mask = sample_image(membership, grid + backward_flow) > 0.5
    core = erode_mask(flow_mask, max(1, band // 2))
    visible_core = core & visible_mask
    object_motion = _extrapolate_motion(backward_flow, visible_core, band * 3.0) if visible_core.sum() > 20 else rigid_origins - grid
    background_motion = _extrapolate_motion(backward_flow, ~dilate_mask(flow_mask, band) & visible_mask, band * 3.0)
    flow_cost, flow_membership = _compute_origin_cost(membership, previous_frame, current_frame, grid + object_motion)
    rigid_cost, rigid_membership = _compute_origin_cost(membership, previous_frame, current_frame, rigid_origins)
    background_cost, background_membership = _compute_origin_cost(
        1 - membership, previous_frame, current_frame, grid + background_motion, is_occluded=True
    )
    costs = _OriginCosts(np.minimum(flow_cost, rigid_cost), background_cost, 1 - background_membership)
    return flow_membership + rigid_membership > 1, costs


def _compute_origin_cost(
    membership: Float32Array, previous_frame: UInt8Array, current_frame: UInt8Array, positions: Float32Array, is_occluded: bool = False
) -> tuple[Float32Array, Float32Array]:
    """Compute the cost, in levels, of pixels originating at `positions`. Also returns the `membership` sampled there.

    Membership is the degree to which positions belong to the same surface. An occluded surface (`is_occluded`) may have looked like
    anything.
    """
    sampled_membership = sample_image(membership, positions)
    levels = max_channel_difference(current_frame, sample_image(previous_frame, positions))
    mismatch_cost = np.float32(0) if is_occluded else np.minimum(levels, MAX_COLOUR_DIFFERENCE - UNKNOWN_COST)
    match_cost = np.minimum(levels, 2 * MAX_COLOUR_DIFFERENCE)
    cost = sampled_membership * match_cost + (1 - sampled_membership) * (UNKNOWN_COST + mismatch_cost)
    return np.asarray(cost, np.float32), sampled_membership


def _match_brightness(
    appearance: UInt8Array, previous_frame: UInt8Array, current_frame: UInt8Array, backward_flow: Float32Array, visible_mask: BoolArray
) -> UInt8Array:
    """Scale the remembered colours by the change of brightness between the two frames."""
    subsampled = np.s_[::4, ::4]
    is_visible = visible_mask[subsampled]
    if not is_visible.any():
        return appearance
    origins = build_pixel_grid(*visible_mask.shape)[subsampled] + backward_flow[subsampled]
    previous_mean = sample_image(previous_frame, origins)[is_visible].mean(0)
    gain = np.clip((current_frame[subsampled][is_visible].mean(0) + 1) / (previous_mean + 1), 0.8, 1.25)
    return np.asarray(np.clip(appearance * gain.astype(np.float32), 0, 255), np.uint8)


def _relocate_object(
    frames_since_visible: Float32Array, appearance: UInt8Array, current_frame: UInt8Array, search_radius: int
) -> tuple[Float32Array, UInt8Array]:
    """Move the remembered shape to where the picture matches it best, near its expected position."""
    offset = locate_object(ObjectTemplate(frames_since_visible >= 0, appearance, np.zeros(2, np.float32)), current_frame, search_radius)
    if offset is None:
        return frames_since_visible, appearance
    matrix, size = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32), frames_since_visible.shape[::-1]
    moved = cv2.warpAffine(frames_since_visible, matrix, size, flags=cv2.INTER_NEAREST, borderValue=-1)
    return np.asarray(moved, np.float32), np.asarray(cv2.warpAffine(appearance, matrix, size), np.uint8)


def _extrapolate_motion(motion: Float32Array, known: BoolArray, sigma: float) -> Float32Array:
    """Extrapolate a motion field `[h, w, 2]` smoothly from the pixels where it is known."""
    quarter = (max(1, known.shape[1] // 4), max(1, known.shape[0] // 4))
    share = cv2.resize(known.astype(np.float32), quarter, interpolation=cv2.INTER_AREA)
    total = cv2.resize(motion * known[..., None], quarter, interpolation=cv2.INTER_AREA)
    # Nearby pixels dominate. The wide blur and the mean give distant pixels a small weight, so that the weight is never zero.
    mean = motion[known].mean(0) if known.any() else np.zeros(2, np.float32)
    weights, totals = np.full_like(share, 1e-5), np.full_like(total, 1e-5) * mean
    for width, importance in ((sigma / 4, 1.0), (sigma, 0.01)):
        weights = weights + importance * cv2.GaussianBlur(share, (0, 0), width)
        totals = totals + importance * cv2.GaussianBlur(total, (0, 0), width)
    smooth = cv2.resize(totals / weights[..., None], known.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.where(known[..., None], motion, smooth), np.float32)
