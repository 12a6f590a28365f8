"""Segmentation from boxes and clicks in one frame, by GrabCut (Rother et al., 2004) and graph cuts.

Pictures have the size at which motion is computed. Points are (x, y) in their pixels.
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
    find_objects_at_points,
    predict_box_saliency,
)
from lora_edit.types import BoolArray, Float32Array, UInt8Array, mask_bounds

Point = tuple[float, float]

GRABCUT_ITERATIONS, GRABCUT_MAX_SIDE = 4, 200
"""GrabCut's iterations, and the maximum rows and columns of its input."""

TRIAL_LIMITS = (2, 110)
"""The same limits while candidate sizes are compared."""

SURROUND_SHARE = 0.35
"""Surroundings beyond a box that GrabCut receives, as a share of the box's sides."""

SURE_SALIENCY = 0.95
"""Saliency from which a pixel is fixed as the object's."""

MIN_PART_SHARE = 0.05
"""Parts smaller than this share of the largest are dropped."""

RADII = (0.05, 0.08, 0.12, 0.18, 0.27)
"""Candidate radii of a clicked object, as shares of the frame's shorter side."""

EDGE_LEVELS, EDGE_MOTION = 40.0, 1.0
"""Differences in colour (levels) and in motion (pixels of the picture) across an edge at which its contrast saturates."""

SURROUND_WIDTH = 0.06
"""Width of the surroundings whose colours a clicked object is compared with, as a share of the frame's shorter side."""

AREA_EXPONENT = 0.2
"""Exponent of the area in a mask's score: of objects with equal contrast the larger one is selected."""

CLICK_RADIUS = 0.012
"""Radius of the disc that a click certainly covers, as a share of the frame's shorter side."""

COLOUR_TOLERANCE = 28
"""Maximum difference, in levels, between a correcting click and the similar pixels around it."""


def segment_box(
    picture: UInt8Array, box: Float32Array, motion: Float32Array | None = None, network: SaliencyNetwork | None = None
) -> BoolArray:
    """Segment the object inside a box (left, top, right, bottom): `[h, w]` for a picture `[h, w, 3]`.

    With a network, the mask with the clearest edge among those by colour and by saliency is selected.
    """
    colour_mask = _segment_box_by_colour(picture, box)
    if network is None:
        return colour_mask
    inside = np.zeros(colour_mask.shape, np.bool_)
    left, top, right, bottom = (int(value) for value in (*np.floor(np.maximum(box[:2], 0)), *np.ceil(box[2:])))
    inside[top:bottom, left:right] = True
    saliency_maps = predict_box_saliency(network, picture, box)
    saliency_masks = [remove_small_parts_and_holes((each > 0.5) & inside, MIN_PART_SHARE) for each in saliency_maps]
    mean_saliency = np.asarray((saliency_maps[0] + saliency_maps[1]) / 2, np.float32)
    return _select_clearest_mask([colour_mask, *saliency_masks, _segment_from_saliency(picture, mean_saliency, inside)], picture, motion)


def _segment_from_saliency(picture: UInt8Array, saliency: Float32Array, inside: BoolArray) -> BoolArray:
    """Run GrabCut from labels by saliency `[h, w]`, with the most salient pixels fixed as the object's."""
    labels = np.where(saliency > SURE_SALIENCY, cv2.GC_FGD, np.where(saliency > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD)).astype(np.uint8)
    labels[~inside] = cv2.GC_BGD
    window = find_slices(inside, round(SURROUND_SHARE * min(picture.shape[:2])))
    mask = np.zeros(inside.shape, np.bool_)
    mask[window] = _run_grabcut(picture[window], labels[window])
    return remove_small_parts_and_holes(mask, MIN_PART_SHARE)


def _select_clearest_mask(masks: Sequence[BoolArray], picture: UInt8Array, motion: Float32Array | None) -> BoolArray:
    """Select the mask with the clearest edge, or the first of equal ones."""
    return max(masks, key=lambda mask: _score_mask(mask, picture, motion) if mask.any() else -1.0)


def _segment_box_by_colour(picture: UInt8Array, box: Float32Array) -> BoolArray:
    """Segment the object inside a box by its colours."""
    height, width = picture.shape[:2]
    left, top = (max(0, int(np.floor(value))) for value in box[:2])
    right, bottom = (
        int(np.clip(np.ceil(value), lower + 1, upper)) for value, lower, upper in zip(box[2:], (left, top), (width, height), strict=True)
    )
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    labels[top:bottom, left:right] = cv2.GC_PR_FGD
    margin_x, margin_y = max(8, round(SURROUND_SHARE * (right - left))), max(8, round(SURROUND_SHARE * (bottom - top)))
    window = np.s_[max(0, top - margin_y) : bottom + margin_y, max(0, left - margin_x) : right + margin_x]
    mask = np.zeros((height, width), np.bool_)
    mask[window] = _run_grabcut(picture[window], labels[window])
    mask = remove_small_parts_and_holes(mask, MIN_PART_SHARE)
    if mask.sum() >= 0.05 * (right - left) * (bottom - top):
        return mask
    # Nothing in the box stands out, so the whole box is the object.
    mask[top:bottom, left:right] = True
    return mask


def _run_grabcut(
    picture: UInt8Array, labels: UInt8Array, iterations: int = GRABCUT_ITERATIONS, max_side: int = GRABCUT_MAX_SIDE
) -> BoolArray:
    """Run GrabCut from labels `[h, w]` on a picture of at most `max_side` rows and columns."""
    if not (labels == cv2.GC_PR_FGD).any() or not (labels == cv2.GC_BGD).any():
        return np.asarray(labels != cv2.GC_BGD)
    shrink = min(1.0, max_side / max(labels.shape))
    size = (max(2, round(labels.shape[1] * shrink)), max(2, round(labels.shape[0] * shrink)))
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
    small_labels = cv2.resize(np.ascontiguousarray(labels), size, interpolation=cv2.INTER_NEAREST)
    # GrabCut initialises its colour models from random clusters.
    cv2.setRNGSeed(0)
    cv2.grabCut(small, small_labels, None, np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    mask = ((small_labels == cv2.GC_FGD) | (small_labels == cv2.GC_PR_FGD)).astype(np.float32)
    return np.asarray(cv2.resize(mask, labels.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5)


def segment_points(
    picture: UInt8Array, points: Sequence[Point], motion: Float32Array | None = None, network: SaliencyNetwork | None = None
) -> BoolArray:
    """Segment the clicked object.

    Among candidate sizes the mask that stands out most by its colours, its edge and its `motion` `[h, w, 2]` is selected. With a
    network, a mask that its saliency does not confirm is replaced by the clearest salient object at the clicks.
    """
    height, width = picture.shape[:2]
    positions = np.array(points, np.float32)
    centre, spread = positions.mean(0), float(np.abs(positions - positions.mean(0)).max(initial=0))
    best_radius, best_score = 0.0, -1.0
    for share in RADII:
        radius = share * min(height, width) + spread
        score = _score_mask(_segment_at_radius(picture, positions, centre, radius, *TRIAL_LIMITS), picture, motion, centre, radius)
        if score > best_score:
            best_radius, best_score = radius, score
    colour_mask = _segment_at_radius(picture, positions, centre, best_radius, GRABCUT_ITERATIONS - 1, GRABCUT_MAX_SIDE)
    return colour_mask if network is None else _refine_with_saliency(network, picture, positions, colour_mask, motion)


def _refine_with_saliency(
    network: SaliencyNetwork, picture: UInt8Array, points: Float32Array, colour_mask: BoolArray, motion: Float32Array | None
) -> BoolArray:
    """Keep the mask found by colour if the network's saliency in a window around it is about the same. Otherwise select the clearest
    salient object at the clicks."""
    confirming_masks = [each > 0.5 for each in predict_box_saliency(network, picture, np.asarray(mask_bounds(colour_mask), np.float32))]
    confirming_masks = [each for each in confirming_masks if compute_iou(each, colour_mask) > MIN_STABLE_IOU]
    candidates = [colour_mask, *confirming_masks] if confirming_masks else find_objects_at_points(network, picture, points)
    return _select_clearest_mask(candidates, picture, motion) if candidates else colour_mask


def _segment_at_radius(
    picture: UInt8Array, points: Float32Array, centre: Float32Array, radius: float, iterations: int, max_side: int
) -> BoolArray:
    """Segment the clicked object under the assumption that its radius is about `radius`."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x + 0.5 - centre[0], y + 0.5 - centre[1])
    labels = np.where(distance < 0.8 * radius, cv2.GC_PR_FGD, np.where(distance < 1.8 * radius, cv2.GC_PR_BGD, cv2.GC_BGD)).astype(np.uint8)
    _draw_points(labels, points, max(2, round(0.2 * radius)) if len(points) == 1 else compute_click_radius(picture), cv2.GC_FGD)
    reach = round(2.6 * radius)
    left, top = (max(0, int(value) - reach) for value in centre)
    window = np.s_[top : int(centre[1]) + reach, left : int(centre[0]) + reach]
    mask = np.zeros((height, width), np.bool_)
    mask[window] = _run_grabcut(picture[window], labels[window], iterations, max_side)
    return _select_parts_at_points(mask | (labels == cv2.GC_FGD), points)


def compute_click_radius(picture: UInt8Array) -> int:
    """Compute the radius, in pixels, of the disc that a click certainly covers."""
    return max(2, round(CLICK_RADIUS * min(picture.shape[:2])))


def _draw_points(labels: UInt8Array, points: Float32Array, radius: int, value: int) -> None:
    for x, y in points:
        cv2.circle(labels, (int(x), int(y)), radius, value, -1)


def _select_parts_at_points(mask: BoolArray, points: Float32Array) -> BoolArray:
    """Select the parts of the mask that contain a point."""
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
    part_labels = {int(labels[int(y), int(x)]) for x, y in points} - {0}
    return remove_small_parts_and_holes(np.isin(labels, list(part_labels)), MIN_PART_SHARE)


def _score_mask(
    mask: BoolArray, picture: UInt8Array, motion: Float32Array | None, centre: Float32Array | None = None, radius: float = np.inf
) -> float:
    """Score a mask by the contrast of its edge in colour and motion, by the contrast to surrounding colours, and by its size.

    The share of the edge that is cut off at `radius` around `centre` lowers the score.
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
    colour_similarity = _compare_colours(picture[mask], picture[compute_ring(mask, max(2, round(SURROUND_WIDTH * min(mask.shape))), 2)])
    return float(score * (1 - cut_off) * (1 - colour_similarity**3) * mask.mean() ** AREA_EXPONENT)


def _compare_colours(colours: UInt8Array, other_colours: UInt8Array) -> float:
    """Compute the similarity of the colours of two sets of pixels `[N, 3]`: Bhattacharyya's coefficient of their histograms, 0 to 1.

    An object merged with a piece of its background, or a patch of a checked shirt, has the colours of its surroundings.
    """
    shares = []
    for pixels in (colours, other_colours):
        cells = (pixels >> 5).astype(np.int32) @ np.array([64, 8, 1], np.int32)
        shares.append(np.bincount(cells, minlength=512) / max(1, len(cells)))
    return float(np.sqrt(shares[0] * shares[1]).sum())


def _measure_edge_contrast(values: Float32Array, mask: BoolArray, max_difference: float, radius: int) -> float:
    """Compute the mean difference across the mask's edge, relative to `max_difference`, at which each pixel's contribution saturates at
    1."""
    edge = mask & ~erode_mask(mask, 1)
    side_means = []
    for part in (erode_mask(mask, radius // 2), ~dilate_mask(mask, radius // 2)):
        share = part.astype(np.float32)
        size = (4 * radius + 1,) * 2
        weight = cv2.blur(share, size)[..., None] if values.ndim == 3 else cv2.blur(share, size)
        side_means.append(cv2.blur(values * share[..., None], size) / np.maximum(weight, 1e-4))
    difference = np.abs(side_means[0] - side_means[1]).max(-1)[edge]
    return float(np.minimum(difference / max_difference, 1).mean()) if len(difference) else 0.0


def correct_mask(picture: UInt8Array, mask: BoolArray, positive_points: Sequence[Point], negative_points: Sequence[Point]) -> BoolArray:
    """Correct the mask by clicks on the object and off it.

    Each click includes the similar pixels around it, and a negative click also a separate part of the mask as a whole.
    """
    radius = compute_click_radius(picture)
    blurred = np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5), np.uint8)
    odds = np.where(mask, 2.0, -2.0).astype(np.float32)
    click_discs = {True: np.zeros(mask.shape, np.uint8), False: np.zeros(mask.shape, np.uint8)}
    changed_pixels = {True: np.zeros_like(mask), False: np.zeros_like(mask)}
    for is_positive, points in ((True, positive_points), (False, negative_points)):
        _draw_points(click_discs[is_positive], np.array(points, np.float32).reshape(-1, 2), radius, 1)
        for x, y in points:
            if mask[int(y), int(x)] != is_positive:
                changed_pixels[is_positive] |= _find_similar_pixels(blurred, mask == (not is_positive), int(x), int(y))
                if not is_positive:
                    changed_pixels[is_positive] |= _find_removable_part(mask, (x, y), positive_points)
    if not (changed_pixels[True] | changed_pixels[False]).any():
        return np.asarray((mask | (click_discs[True] > 0)) & (click_discs[False] == 0))
    ring = compute_ring(mask, round(SURROUND_SHARE * min(mask.shape)))
    colours = ObjectColourModel().add_pixels(
        picture[(mask & ~changed_pixels[False]) | changed_pixels[True]], picture[(ring & ~changed_pixels[True]) | changed_pixels[False]]
    )
    odds += 0.5 * compute_colour_odds(picture, colours)
    odds[changed_pixels[True]], odds[changed_pixels[False]] = 6, -6
    search_area = dilate_mask(mask | changed_pixels[True], 3 * radius)
    corrected = cut_graph_within_bounds(
        odds, picture, (click_discs[True] > 0) & (click_discs[False] == 0), ~search_area | (click_discs[False] > 0)
    )
    return remove_small_parts_and_holes(corrected, 0.02)


def _find_removable_part(mask: BoolArray, negative_point: Point, positive_points: Sequence[Point]) -> BoolArray:
    """Return the part of the mask that contains a negative click, if it is one of several and contains no positive click. Otherwise
    return an empty mask."""
    part = _select_parts_at_points(mask, np.array([negative_point], np.float32))
    other_parts = mask & ~part
    is_only_part = other_parts.sum() < MIN_PART_SHARE * part.sum() or any(part[int(y), int(x)] for x, y in positive_points)
    return np.zeros_like(mask) if is_only_part else part


def _find_similar_pixels(picture: UInt8Array, allowed_mask: BoolArray, x: int, y: int) -> BoolArray:
    """Find the connected pixels of about the click's colour inside `allowed_mask`, at most a quarter of the frame away."""
    barrier = np.pad((~allowed_mask).astype(np.uint8), 1, constant_values=1)
    reach = round(0.25 * min(allowed_mask.shape))
    search_disc = np.zeros(barrier.shape, np.uint8)
    cv2.circle(search_disc, (x + 1, y + 1), reach, 1, -1)
    barrier[search_disc == 0] = 1
    barrier[y + 1, x + 1] = 0
    initial_barrier = barrier.copy()
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (2 << 8)
    cv2.floodFill(picture.copy(), barrier, (x, y), 0, (COLOUR_TOLERANCE,) * 3, (COLOUR_TOLERANCE,) * 3, flags)
    return np.asarray(((barrier == 2) & (initial_barrier == 0))[1:-1, 1:-1] & allowed_mask)
