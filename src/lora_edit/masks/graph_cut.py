"""Which pixels belong together: colour models as smoothed histograms, and the cheapest cut between object and background.

The cut is Boykov and Jolly's (2001): every pixel has a log-odds for the object, and neighbours of one colour want one answer.
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
"""Cells of a colour model along red, green and blue."""

HISTOGRAM_SIGMA = 1.2
"""Standard deviation, in cells, by which a colour counts for its neighbours."""

MIN_COLOUR_SHARES = (4e-5, 2e-5)
"""Share of an object's and of other pixels that every colour has at least: objects turn and show new sides more often."""

MAX_LOG_ODDS = 6.0
"""Log-odds beyond which evidence counts no more."""

LOG_ODDS_WEIGHT = 4.0
"""Weight of the log-odds against the neighbours' wish to agree (50 for a pair of one colour)."""

_LEVELS = 63


class ColourModel:
    """How often each colour occurs: a histogram `[32, 32, 32]` that adds up to 1, older pictures fading."""

    def __init__(self, shares: Float32Array | None = None, weight: float = 0.0) -> None:
        self.shares: Float32Array = np.zeros((BINS, BINS, BINS), np.float32) if shares is None else shares
        self.weight = weight

    def add_pixels(self, colours: UInt8Array, decay: float = 1.0) -> ColourModel:
        """The model after another picture's pixels `[N, 3]`; what was counted before is multiplied by `keep`."""
        if not len(colours):
            return self
        flat = np.bincount(_compute_bin_indices(colours), minlength=BINS**3)
        soft = _smooth_histogram(flat.reshape(BINS, BINS, BINS).astype(np.float32))
        old = self.weight * decay
        return ColourModel((self.shares * old + soft / soft.sum()) / np.float32(old + 1), old + 1)


def _compute_bin_indices(picture: UInt8Array) -> npt.NDArray[np.int32]:
    """Numbers of the histogram's cells, `[...]` of `[..., 3]`."""
    red, green, blue = (picture[..., channel].astype(np.int32) >> 3 for channel in range(3))
    return (red * BINS + green) * BINS + blue


def _smooth_histogram(counts: Float32Array) -> Float32Array:
    for _ in range(3):
        # Smoothed along the first axis, which then becomes the last one: after three turns each had its turn.
        rows = cv2.GaussianBlur(counts.reshape(BINS, -1), (1, 7), sigmaX=1, sigmaY=HISTOGRAM_SIGMA, borderType=cv2.BORDER_CONSTANT)
        counts = np.ascontiguousarray(rows.reshape(BINS, BINS, BINS).transpose(1, 2, 0))
    return counts


@dataclass(frozen=True)
class ObjectColourModel:
    """The colours of an object and of what is around it."""

    inside: ColourModel = field(default_factory=ColourModel)
    outside: ColourModel = field(default_factory=ColourModel)

    def add_pixels(self, inside: UInt8Array, outside: UInt8Array, decay: float = 1.0) -> ObjectColourModel:
        """With another picture's pixels `[N, 3]` of both; what was counted before fades by `keep`."""
        return ObjectColourModel(self.inside.add_pixels(inside, decay), self.outside.add_pixels(outside, decay))

    def compute_known_share(self, colours: UInt8Array) -> float:
        """Share of pixels `[N, 3]` whose colours the object has; 0 for none."""
        return float((self.inside.shares.ravel()[_compute_bin_indices(colours)] > 2 * MIN_COLOUR_SHARES[0]).mean()) if len(colours) else 0.0

    @cached_property
    def log_odds(self) -> Float32Array:
        """Log-odds for the object of every cell `[32768]`, within ±`SURE`."""
        odds = np.log((self.inside.shares + MIN_COLOUR_SHARES[0]) / (self.outside.shares + MIN_COLOUR_SHARES[1]))
        return np.asarray(np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS), np.float32).ravel()


def compute_colour_odds(picture: UInt8Array, model: ObjectColourModel) -> Float32Array:
    """Log-odds `[h, w]`, within ±`SURE`, that pixels of these colours are the object's."""
    return np.asarray(model.log_odds[_compute_bin_indices(picture)], np.float32)


def cut_graph(odds: Float32Array, picture: UInt8Array, inside: BoolArray, outside: BoolArray) -> BoolArray:
    """The object `[h, w]`: the best partition by log-odds `[h, w]` and by the contrast of `picture` `[h, w, 3]`.

    What is `inside` or `outside` beforehand stays so.
    """
    labels = np.where(odds > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[inside], labels[outside] = cv2.GC_FGD, cv2.GC_BGD
    if (inside | outside).all():
        return np.asarray(inside)
    # OpenCV cuts graphs in GrabCut only. There a pixel's odds come from colour models: with one Gaussian at each end of the first
    # channel, and no say of the other two, that channel is the log-odds itself.
    share = np.clip(odds / MAX_LOG_ODDS, -1, 1) / 2 + 0.5
    fed = np.dstack([np.round(share * _LEVELS).astype(np.uint8), _project_colours(picture)])
    cv2.grabCut(fed, labels, None, _build_end_gaussian(0), _build_end_gaussian(_LEVELS), 1, cv2.GC_EVAL_FREEZE_MODEL)  # type: ignore[call-overload]
    return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def cut_graph_within_bounds(odds: Float32Array, picture: UInt8Array, inside: BoolArray, outside: BoolArray) -> BoolArray:
    """`cut` within the part of the frame that is not outside beforehand."""
    mask = np.zeros_like(inside)
    if not outside.all():
        window = find_slices(~outside, 2)
        mask[window] = cut_graph(odds[window], np.ascontiguousarray(picture[window]), inside[window], outside[window])
    return mask


def _project_colours(picture: UInt8Array) -> UInt8Array:
    """The two directions `[h, w, 2]` in which the colours differ most."""
    flat = picture.reshape(-1, 3).astype(np.float32)
    flat = flat - flat.mean(0)
    _, vectors = np.linalg.eigh(flat.T @ flat)
    two = flat @ vectors[:, :0:-1]
    return np.asarray(np.clip(two * 0.6 + 128, 0, 255), np.uint8).reshape(*picture.shape[:2], 2)


def _build_end_gaussian(level: int) -> npt.NDArray[np.float64]:
    """A GrabCut model of one Gaussian at `level` of the first channel, as wide as the log-odds' weight asks."""
    model = np.zeros((1, 65))
    variance = _LEVELS**2 / (2 * MAX_LOG_ODDS * LOG_ODDS_WEIGHT)
    model[0, 0], model[0, 5] = 1, level
    model[0, [20, 24, 28]] = variance, 1e6, 1e6
    return model


def remove_small_parts_and_holes(mask: BoolArray, min_share: float) -> BoolArray:
    """The mask `[h, w]` without parts smaller than `share` of its largest part, and without holes smaller than that."""
    kept = _select_large_parts(mask, min_share)
    return np.asarray(
        kept | (~kept & ~_select_large_parts(~kept, min_share * max(1, kept.sum()) / max(1, (~kept).sum()), relative_to_total=True))
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
