"""What a person points at in one frame: boxes and clicks to a mask, by GrabCut (Rother et al., 2004) and cuts of our own.

Pictures here have the size that motion is computed at; points are (x, y) in their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lora_edit.masks.graph_cut import ObjectColourModel, compute_colour_odds, cut_graph_within_bounds, remove_small_parts_and_holes
from lora_edit.masks.morphology import compute_ring, dilate_mask, erode_mask, find_slices
from lora_edit.masks.saliency import (
    MIN_STABLE_IOU,
    SaliencyNetwork,
    compute_iou,
    find_mask_edges,
    find_objects_at_points,
    predict_box_saliency,
)
from lora_edit.types import BoolArray, Float32Array, UInt8Array

Point = tuple[float, float]

GRABCUT_ITERATIONS, GRABCUT_MAX_SIDE = 4, 200
"""GrabCut's rounds of learning colours and cutting, and the rows and columns that it sees at most."""

TRIAL_LIMITS = (2, 110)
"""The same while sizes are tried."""

SURROUND_SHARE = 0.35
"""How much of the surroundings GrabCut sees beyond a box, share of the box's sides."""

SURE_SALIENCY = 0.95
"""Salience from which a pixel stays the thing's."""

MIN_PART_SHARE = 0.05
"""Parts smaller than this share of the largest are dropped."""

RADII = (0.05, 0.08, 0.12, 0.18, 0.27)
"""Sizes that a clicked thing may have: radius, share of the frame's shorter side."""

EDGE_LEVELS, EDGE_MOTION = 40.0, 1.0
"""Difference in colour (levels) and in motion (pixels of the picture) across an edge that is as clear as can be."""

SURROUND_WIDTH = 0.06
"""Width of the surroundings whose colours a clicked thing is told from, share of the frame's shorter side."""

AREA_EXPONENT = 0.2
"""Of things that stand out alike the larger is meant: its score grows by this power of its area."""

CLICK_RADIUS = 0.012
"""Radius of what a click surely covers, share of the frame's shorter side."""

COLOUR_TOLERANCE = 28
"""Levels by which the surroundings of a correcting click may differ from it."""


def segment_box(
    picture: UInt8Array, box: Float32Array, motion: Float32Array | None = None, network: SaliencyNetwork | None = None
) -> BoolArray:
    """The thing inside a box (left, top, right, bottom): `[h, w]` of `[h, w, 3]`; with a network the clearest of what both ways find."""
    found = _segment_box_by_colour(picture, box)
    if network is None:
        return found
    inside = np.zeros(found.shape, np.bool_)
    left, top, right, bottom = (int(value) for value in (*np.floor(np.maximum(box[:2], 0)), *np.ceil(box[2:])))
    inside[top:bottom, left:right] = True
    seen = predict_box_saliency(network, picture, box)
    things = [remove_small_parts_and_holes((each > 0.5) & inside, MIN_PART_SHARE) for each in seen]
    near = np.asarray((seen[0] + seen[1]) / 2, np.float32)
    return _select_clearest_mask([found, *things, _segment_from_saliency(picture, near, inside)], picture, motion)


def _segment_from_saliency(picture: UInt8Array, saliency: Float32Array, inside: BoolArray) -> BoolArray:
    """GrabCut that starts from what stands out `[h, w]`, and keeps what does so most."""
    labels = np.where(saliency > SURE_SALIENCY, cv2.GC_FGD, np.where(saliency > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD)).astype(np.uint8)
    labels[~inside] = cv2.GC_BGD
    window = find_slices(inside, round(SURROUND_SHARE * min(picture.shape[:2])))
    mask = np.zeros(inside.shape, np.bool_)
    mask[window] = _run_grabcut(picture[window], labels[window])
    return remove_small_parts_and_holes(mask, MIN_PART_SHARE)


def _select_clearest_mask(masks: Sequence[BoolArray], picture: UInt8Array, motion: Float32Array | None) -> BoolArray:
    """Of several masks the one with the clearest edge; the first where all are alike."""
    return max(masks, key=lambda mask: _score_mask(mask, picture, motion) if mask.any() else -1.0)


def _segment_box_by_colour(picture: UInt8Array, box: Float32Array) -> BoolArray:
    """The thing inside a box, by its colours."""
    height, width = picture.shape[:2]
    left, top = (max(0, int(np.floor(value))) for value in box[:2])
    right, bottom = (
        int(np.clip(np.ceil(value), low + 1, most)) for value, low, most in zip(box[2:], (left, top), (width, height), strict=True)
    )
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    labels[top:bottom, left:right] = cv2.GC_PR_FGD
    more_x, more_y = max(8, round(SURROUND_SHARE * (right - left))), max(8, round(SURROUND_SHARE * (bottom - top)))
    window = np.s_[max(0, top - more_y) : bottom + more_y, max(0, left - more_x) : right + more_x]
    mask = np.zeros((height, width), np.bool_)
    mask[window] = _run_grabcut(picture[window], labels[window])
    mask = remove_small_parts_and_holes(mask, MIN_PART_SHARE)
    if mask.sum() >= 0.05 * (right - left) * (bottom - top):
        return mask
    # Nothing in the box stands out: then the person means all of it.
    mask[top:bottom, left:right] = True
    return mask


def _run_grabcut(
    picture: UInt8Array, labels: UInt8Array, iterations: int = GRABCUT_ITERATIONS, max_side: int = GRABCUT_MAX_SIDE
) -> BoolArray:
    """GrabCut from labels `[h, w]` on, on a picture of `most` rows and columns at most."""
    if not (labels == cv2.GC_PR_FGD).any() or not (labels == cv2.GC_BGD).any():
        return np.asarray(labels != cv2.GC_BGD)
    shrink = min(1.0, max_side / max(labels.shape))
    size = (max(2, round(labels.shape[1] * shrink)), max(2, round(labels.shape[0] * shrink)))
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
    found = cv2.resize(np.ascontiguousarray(labels), size, interpolation=cv2.INTER_NEAREST)
    # The clusters that colour models start from are drawn at random.
    cv2.setRNGSeed(0)
    cv2.grabCut(small, found, None, np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    mask = ((found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)).astype(np.float32)
    return np.asarray(cv2.resize(mask, labels.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5)


def segment_points(
    picture: UInt8Array, points: Sequence[Point], motion: Float32Array | None = None, network: SaliencyNetwork | None = None
) -> BoolArray:
    """The thing under the clicks: of several sizes the one that stands out most by its colours, its edge and its `motion` `[h, w, 2]`.

    With a network, what it takes for no thing gives way to the clearest thing that it sees there.
    """
    height, width = picture.shape[:2]
    places = np.array(points, np.float32)
    middle, spread = places.mean(0), float(np.abs(places - places.mean(0)).max(initial=0))
    best, best_score = 0.0, -1.0
    for share in RADII:
        radius = share * min(height, width) + spread
        score = _score_mask(_segment_at_radius(picture, places, middle, radius, *TRIAL_LIMITS), picture, motion, middle, radius)
        if score > best_score:
            best, best_score = radius, score
    found = _segment_at_radius(picture, places, middle, best, GRABCUT_ITERATIONS - 1, GRABCUT_MAX_SIDE)
    return found if network is None else _refine_with_saliency(network, picture, places, found, motion)


def _refine_with_saliency(
    network: SaliencyNetwork, picture: UInt8Array, points: Float32Array, colour_mask: BoolArray, motion: Float32Array | None
) -> BoolArray:
    """What clicks found by colour, if the network sees about the same in a window around it; else the clearest thing that it sees."""
    same = [each > 0.5 for each in predict_box_saliency(network, picture, find_mask_edges(colour_mask))]
    same = [each for each in same if compute_iou(each, colour_mask) > MIN_STABLE_IOU]
    things = [colour_mask, *same] if same else find_objects_at_points(network, picture, points)
    return _select_clearest_mask(things, picture, motion) if things else colour_mask


def _segment_at_radius(
    picture: UInt8Array, points: Float32Array, centre: Float32Array, radius: float, iterations: int, max_side: int
) -> BoolArray:
    """The clicked thing if its radius is about `radius`."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    away = np.hypot(x + 0.5 - centre[0], y + 0.5 - centre[1])
    labels = np.where(away < 0.8 * radius, cv2.GC_PR_FGD, np.where(away < 1.8 * radius, cv2.GC_PR_BGD, cv2.GC_BGD)).astype(np.uint8)
    _draw_points(labels, points, max(2, round(0.2 * radius)) if len(points) == 1 else compute_click_radius(picture), cv2.GC_FGD)
    reach = round(2.6 * radius)
    left, top = (max(0, int(value) - reach) for value in centre)
    window = np.s_[top : int(centre[1]) + reach, left : int(centre[0]) + reach]
    mask = np.zeros((height, width), np.bool_)
    mask[window] = _run_grabcut(picture[window], labels[window], iterations, max_side)
    return _select_parts_at_points(mask | (labels == cv2.GC_FGD), points)


def compute_click_radius(picture: UInt8Array) -> int:
    """Radius, in pixels, of what a click surely covers."""
    return max(2, round(CLICK_RADIUS * min(picture.shape[:2])))


def _draw_points(labels: UInt8Array, points: Float32Array, radius: int, value: int) -> None:
    for x, y in points:
        cv2.circle(labels, (int(x), int(y)), radius, value, -1)


def _select_parts_at_points(mask: BoolArray, points: Float32Array) -> BoolArray:
    """The parts of the mask that hold a point."""
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
    chosen = {int(labels[int(y), int(x)]) for x, y in points} - {0}
    return remove_small_parts_and_holes(np.isin(labels, list(chosen)), MIN_PART_SHARE)


def _score_mask(
    mask: BoolArray, picture: UInt8Array, motion: Float32Array | None, centre: Float32Array | None = None, radius: float = np.inf
) -> float:
    """How clear the mask's edge is, in colour and motion, how unlike its colours are to those around it, and how large it is.

    What is cut off at `radius` around `middle` counts less.
    """
    inner, outer = mask & ~erode_mask(mask, 2), dilate_mask(mask, 4) & ~dilate_mask(mask, 2)
    if not inner.any() or not outer.any() or mask.mean() > 0.6:
        return 0.0
    window = find_slices(mask, 20)
    score = _measure_edge_contrast(picture[window].astype(np.float32), mask[window], EDGE_LEVELS, 2)
    if motion is not None:
        score += _measure_edge_contrast(motion[window], mask[window], EDGE_MOTION, 6)
    y, x = np.nonzero(inner)
    cut_off = 0.0 if centre is None else float((np.hypot(x - centre[0], y - centre[1]) > 1.7 * radius).mean())
    alike = _compare_colours(picture[mask], picture[compute_ring(mask, max(2, round(SURROUND_WIDTH * min(mask.shape))), 2)])
    return float(score * (1 - cut_off) * (1 - alike**3) * mask.mean() ** AREA_EXPONENT)


def _compare_colours(colours: UInt8Array, other_colours: UInt8Array) -> float:
    """How far two sets of pixels `[N, 3]` have the same colours: Bhattacharyya's coefficient of their histograms, 0 to 1.

    A thing taken with a piece of what is behind it, or a patch of a checked shirt, has the colours of what is around it.
    """
    shares = []
    for pixels in (colours, other_colours):
        cells = (pixels >> 5).astype(np.int32) @ np.array([64, 8, 1], np.int32)
        shares.append(np.bincount(cells, minlength=512) / max(1, len(cells)))
    return float(np.sqrt(shares[0] * shares[1]).sum())


def _measure_edge_contrast(values: Float32Array, mask: BoolArray, max_difference: float, radius: int) -> float:
    """Mean difference across the mask's edge, no place counting for more than `clear`, which is 1."""
    edge = mask & ~erode_mask(mask, 1)
    sides = []
    for part in (erode_mask(mask, radius // 2), ~dilate_mask(mask, radius // 2)):
        share = part.astype(np.float32)
        size = (4 * radius + 1,) * 2
        weight = cv2.blur(share, size)[..., None] if values.ndim == 3 else cv2.blur(share, size)
        sides.append(cv2.blur(values * share[..., None], size) / np.maximum(weight, 1e-4))
    difference = np.abs(sides[0] - sides[1]).max(-1)[edge]
    return float(np.minimum(difference / max_difference, 1).mean()) if len(difference) else 0.0


def correct_mask(picture: UInt8Array, mask: BoolArray, positive_points: Sequence[Point], negative_points: Sequence[Point]) -> BoolArray:
    """The mask after clicks on the object and off it: each takes what looks alike around it along, off it a part of its own whole."""
    radius = compute_click_radius(picture)
    soft = np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5), np.uint8)
    odds = np.where(mask, 2.0, -2.0).astype(np.float32)
    sure = {True: np.zeros(mask.shape, np.uint8), False: np.zeros(mask.shape, np.uint8)}
    blobs = {True: np.zeros_like(mask), False: np.zeros_like(mask)}
    for wanted, points in ((True, positive_points), (False, negative_points)):
        _draw_points(sure[wanted], np.array(points, np.float32).reshape(-1, 2), radius, 1)
        for x, y in points:
            if mask[int(y), int(x)] != wanted:
                blobs[wanted] |= _find_similar_pixels(soft, mask == (not wanted), int(x), int(y))
                if not wanted:
                    blobs[wanted] |= _find_removable_part(mask, (x, y), positive_points)
    if not (blobs[True] | blobs[False]).any():
        return np.asarray((mask | (sure[True] > 0)) & (sure[False] == 0))
    around = compute_ring(mask, round(SURROUND_SHARE * min(mask.shape)))
    colours = ObjectColourModel().add_pixels(picture[(mask & ~blobs[False]) | blobs[True]], picture[(around & ~blobs[True]) | blobs[False]])
    odds += 0.5 * compute_colour_odds(picture, colours)
    odds[blobs[True]], odds[blobs[False]] = 6, -6
    near = dilate_mask(mask | blobs[True], 3 * radius)
    found = cut_graph_within_bounds(odds, picture, (sure[True] > 0) & (sure[False] == 0), ~near | (sure[False] > 0))
    return remove_small_parts_and_holes(found, 0.02)


def _find_removable_part(mask: BoolArray, negative_point: Point, positive_points: Sequence[Point]) -> BoolArray:
    """The part of the mask that a click off it fell on, where it is one of several and holds no click on the object; else nothing."""
    part = _select_parts_at_points(mask, np.array([negative_point], np.float32))
    rest = mask & ~part
    alone = rest.sum() < MIN_PART_SHARE * part.sum() or any(part[int(y), int(x)] for x, y in positive_points)
    return np.zeros_like(mask) if alone else part


def _find_similar_pixels(picture: UInt8Array, allowed_mask: BoolArray, x: int, y: int) -> BoolArray:
    """The connected pixels of about the click's colour, in `within`, no farther than a quarter of the frame."""
    barrier = np.pad((~allowed_mask).astype(np.uint8), 1, constant_values=1)
    reach = round(0.25 * min(allowed_mask.shape))
    near = np.zeros(barrier.shape, np.uint8)
    cv2.circle(near, (x + 1, y + 1), reach, 1, -1)
    barrier[near == 0] = 1
    barrier[y + 1, x + 1] = 0
    before = barrier.copy()
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (2 << 8)
    cv2.floodFill(picture.copy(), barrier, (x, y), 0, (COLOUR_TOLERANCE,) * 3, (COLOUR_TOLERANCE,) * 3, flags)
    return np.asarray(((barrier == 2) & (before == 0))[1:-1, 1:-1] & allowed_mask)
