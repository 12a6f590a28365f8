"""Segmentation by colour models and graph cuts.

Colour models are smoothed histograms. A minimum cut separates object from background after Boykov and Jolly (2001): every pixel has
log-odds for the object, and neighbours of similar colour favour the same label.

The cut runs in OpenCV's GrabCut with fixed models. PyMaxflow minimises the same energy directly and returned the same masks on two
synthetic frames, but it is licensed under the GPL, which does not fit a dependency of this Apache-2.0 package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.masks.morphology import find_slices
from lora_edit.types import BoolArray, Float32Array, UInt8Array

BINS = 32
"""Bins of a colour model along each of red, green and blue."""

HISTOGRAM_SIGMA = 1.2
"""Standard deviation, in bins, of the histogram's smoothing."""

MIN_COLOUR_SHARES = (4e-5, 2e-5)
"""Minimum share of every colour among an object's and among other pixels. The object's is larger: objects turn and show new sides more
often."""

MAX_LOG_ODDS = 6.0
"""Absolute value at which log-odds are clipped."""

LOG_ODDS_WEIGHT = 4.0
"""Weight of the log-odds against the smoothness term (50 for a pair of equal colours)."""

_LEVELS = 63


class ColourModel:
    """Frequency of each colour: a histogram `[32, 32, 32]` that sums to 1, in which older pictures fade."""

    def __init__(self, shares: Float32Array | None = None, weight: float = 0.0) -> None:
        self.shares: Float32Array = np.zeros((BINS, BINS, BINS), np.float32) if shares is None else shares
        self.weight = weight

    def add_pixels(self, colours: UInt8Array, decay: float = 1.0) -> ColourModel:
        """Return the model with another picture's pixels `[N, 3]` added. The weight of the previous ones is multiplied by `decay`."""
        if not len(colours):
            return self
        counts = np.bincount(_compute_bin_indices(colours), minlength=BINS**3)
        smooth_counts = _smooth_histogram(counts.reshape(BINS, BINS, BINS).astype(np.float32))
        old_weight = self.weight * decay
        return ColourModel((self.shares * old_weight + smooth_counts / smooth_counts.sum()) / np.float32(old_weight + 1), old_weight + 1)


def _compute_bin_indices(picture: UInt8Array) -> npt.NDArray[np.int32]:
    """Compute the histogram bin indices `[...]` of colours `[..., 3]`."""
    red, green, blue = (picture[..., channel].astype(np.int32) >> 3 for channel in range(3))
    return (red * BINS + green) * BINS + blue


def _smooth_histogram(counts: Float32Array) -> Float32Array:
    for _ in range(3):
        # Smooth along the first axis, which then becomes the last one: three passes cover every axis.
        rows = cv2.GaussianBlur(counts.reshape(BINS, -1), (1, 7), sigmaX=1, sigmaY=HISTOGRAM_SIGMA, borderType=cv2.BORDER_CONSTANT)
        counts = np.ascontiguousarray(rows.reshape(BINS, BINS, BINS).transpose(1, 2, 0))
    return counts


@dataclass(frozen=True)
class ObjectColourModel:
    """The colours of an object and of its surroundings."""

    inside: ColourModel = field(default_factory=ColourModel)
    outside: ColourModel = field(default_factory=ColourModel)

    def add_pixels(self, inside: UInt8Array, outside: UInt8Array, decay: float = 1.0) -> ObjectColourModel:
        """Return the model with another picture's pixels `[N, 3]` of both added. The weight of the previous ones is multiplied by
        `decay`."""
        return ObjectColourModel(self.inside.add_pixels(inside, decay), self.outside.add_pixels(outside, decay))

    def compute_known_share(self, colours: UInt8Array) -> float:
        """Compute the share of pixels `[N, 3]` whose colours the object has; 0 for no pixels."""
        return float((self.inside.shares.ravel()[_compute_bin_indices(colours)] > 2 * MIN_COLOUR_SHARES[0]).mean()) if len(colours) else 0.0

    @cached_property
    def log_odds(self) -> Float32Array:
        """Log-odds for the object of every bin `[32768]`, within ±`MAX_LOG_ODDS`."""
        odds = np.log((self.inside.shares + MIN_COLOUR_SHARES[0]) / (self.outside.shares + MIN_COLOUR_SHARES[1]))
        return np.asarray(np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS), np.float32).ravel()


def compute_colour_odds(picture: UInt8Array, model: ObjectColourModel) -> Float32Array:
    """Compute the log-odds `[h, w]`, within ±`MAX_LOG_ODDS`, that pixels of these colours belong to the object."""
    return np.asarray(model.log_odds[_compute_bin_indices(picture)], np.float32)


def cut_graph(odds: Float32Array, picture: UInt8Array, inside: BoolArray, outside: BoolArray) -> BoolArray:
    """Segment the object `[h, w]`: the optimal partition by log-odds `[h, w]` and by the contrast of `picture` `[h, w, 3]`.

    Pixels of `inside` and `outside` keep their labels.
    """
    labels = np.where(odds > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[inside], labels[outside] = cv2.GC_FGD, cv2.GC_BGD
    if (inside | outside).all():
        return np.asarray(inside)
    # OpenCV exposes its graph cut through GrabCut only, which computes a pixel's odds from colour models. With one Gaussian at each end
    # of the first channel, and no influence of the other two, the first channel is the log-odds itself.
    share = np.clip(odds / MAX_LOG_ODDS, -1, 1) / 2 + 0.5
    grabcut_input = np.dstack([np.round(share * _LEVELS).astype(np.uint8), _project_colours(picture)])
    cv2.grabCut(grabcut_input, labels, None, _build_end_gaussian(0), _build_end_gaussian(_LEVELS), 1, cv2.GC_EVAL_FREEZE_MODEL)  # type: ignore[call-overload]
    return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def cut_graph_within_bounds(odds: Float32Array, picture: UInt8Array, inside: BoolArray, outside: BoolArray) -> BoolArray:
    """Run `cut_graph` on the part of the frame that is not in `outside`."""
    mask = np.zeros_like(inside)
    if not outside.all():
        window = find_slices(~outside, 2)
        mask[window] = cut_graph(odds[window], np.ascontiguousarray(picture[window]), inside[window], outside[window])
    return mask


def _project_colours(picture: UInt8Array) -> UInt8Array:
    """Project colours onto the two directions of largest variance, `[h, w, 2]`."""
    flat = picture.reshape(-1, 3).astype(np.float32)
    flat = flat - flat.mean(0)
    _, vectors = np.linalg.eigh(flat.T @ flat)
    projected = flat @ vectors[:, :0:-1]
    return np.asarray(np.clip(projected * 0.6 + 128, 0, 255), np.uint8).reshape(*picture.shape[:2], 2)


def _build_end_gaussian(level: int) -> npt.NDArray[np.float64]:
    """Build a GrabCut model of one Gaussian at `level` of the first channel, with the width that gives `LOG_ODDS_WEIGHT`."""
    model = np.zeros((1, 65))
    variance = _LEVELS**2 / (2 * MAX_LOG_ODDS * LOG_ODDS_WEIGHT)
    model[0, 0], model[0, 5] = 1, level
    model[0, [20, 24, 28]] = variance, 1e6, 1e6
    return model


def remove_small_parts_and_holes(mask: BoolArray, min_share: float) -> BoolArray:
    """Remove parts of the mask `[h, w]` smaller than `min_share` of its largest part, and fill holes smaller than that share of the
    mask."""
    large_parts = _select_large_parts(mask, min_share)
    return np.asarray(
        large_parts
        | (
            ~large_parts
            & ~_select_large_parts(
                ~large_parts, min_share * max(1, large_parts.sum()) / max(1, (~large_parts).sum()), relative_to_total=True
            )
        )
    )


def _select_large_parts(mask: BoolArray, min_share: float, relative_to_total: bool = False) -> BoolArray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    if count < 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0
    keep = areas >= min_share * (areas.sum() if relative_to_total else areas.max())
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)
