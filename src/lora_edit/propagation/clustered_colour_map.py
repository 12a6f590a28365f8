"""An edit as a change of colours: a smooth map from the source's colours to the edited frame's, fitted on a key frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lora_edit.propagation.images import FloatImage

NUM_CLUSTERS = 8
MAX_SAMPLES = 4000
RIDGE = 60.0
"""Pulls each cluster's map to the map of all (pixels times squared levels, per pixel of the cluster's weight)."""
MAX_DISTANCE = 3.0
"""Widths from its cluster at which a colour counts as unknown."""
MIN_WIDTH = 14.0
"""Smallest width of a cluster, levels of 255."""


@dataclass(frozen=True)
class ClusteredColourMap:
    """Affine maps `[K, 4, 3]` around colours `centres` `[K, 3]` of widths `[K]`; `unexplained` `[K]` is what each leaves, in levels.

    `explained` in [0, 1] is the share of the edit's change that the map accounts for.
    """

    centres: FloatImage
    widths: FloatImage
    maps: FloatImage
    residuals: FloatImage
    explained_share: float

    def __call__(self, source: FloatImage) -> tuple[FloatImage, FloatImage]:
        """Mapped colours `[H, W, 3]` of a source picture, and the error to expect `[H, W]` (levels; larger where a colour is new)."""
        shape = source.shape[:-1]
        pixels = source.reshape(-1, 3)
        away = ((pixels[:, None] - self.centres[None]) / self.widths[None, :, None]) ** 2
        distance = away.sum(-1)
        # Nothing is known of colours far from those that were fitted: the nearest known colour's change stands for theirs.
        nearest = self.centres[distance.argmin(1)]
        near = (MAX_DISTANCE / np.sqrt(distance.min(1)).clip(MAX_DISTANCE))[:, None]
        known = nearest + (pixels - nearest) * near
        weights = np.exp(-0.5 * (distance - distance.min(1, keepdims=True)))
        weights /= weights.sum(1, keepdims=True)
        mixed = np.einsum("nk,kio->nio", weights, self.maps)
        mapped = np.einsum("ni,nio->no", known, mixed[:, :3]) + mixed[:, 3] + pixels - known
        error = weights @ self.residuals + 4.0 * np.sqrt(distance.min(1)).clip(0, 12)
        return np.asarray(mapped.reshape(*shape, 3), np.float32), np.asarray(error.reshape(shape), np.float32)


def fit_colour_map(source: FloatImage, edited: FloatImage, weight: FloatImage) -> ClusteredColourMap:
    """Fit on pictures `[H, W, 3]` where `weight` `[H, W]` is positive (how much each pixel counts)."""
    chosen = np.flatnonzero(weight.ravel() > 0.02)
    if not len(chosen):
        chosen = np.arange(weight.size)
    chosen = chosen[:: max(1, len(chosen) // MAX_SAMPLES)]
    x, y, w = source.reshape(-1, 3)[chosen], edited.reshape(-1, 3)[chosen], np.maximum(weight.ravel()[chosen], 1e-3)
    with_one = np.concatenate([x, np.ones((len(x), 1), np.float32)], 1)
    start = np.zeros((4, 3))
    start[:3] = np.eye(3)
    common = _solve_ridge(with_one, y, w, start, 1.0)
    centres = _cluster_colours(x)
    distance = ((x[:, None] - centres[None]) ** 2).sum(-1)
    nearest = distance.argmin(1)
    own = np.array([distance[nearest == k, k].mean() if (nearest == k).any() else 0.0 for k in range(len(centres))])
    widths = np.maximum(np.sqrt(own), MIN_WIDTH)
    member = np.exp(-0.5 * distance / widths**2) * w[:, None]
    maps = np.stack([_solve_ridge(with_one, y, member[:, k], common, RIDGE) for k in range(len(centres))])
    misses = ((np.einsum("ni,kio->nko", with_one, maps) - y[:, None]) ** 2).mean(-1)
    unexplained = np.sqrt((member * misses).sum(0) / member.sum(0).clip(1e-3))
    total = (w[:, None] * (y - x) ** 2).sum() / 3
    left = (w * misses[np.arange(len(x)), nearest]).sum()
    explained = float(np.clip(1 - left / max(total, 1e-3), 0, 1))
    fitted = [np.asarray(a, np.float32) for a in (centres, widths, maps, unexplained)]
    return ClusteredColourMap(fitted[0], fitted[1], fitted[2], fitted[3], explained)


def _solve_ridge(x: np.ndarray, y: np.ndarray, w: np.ndarray, prior: np.ndarray, strength: float) -> np.ndarray:
    """Weighted ridge regression `[4, 3]` around `prior`; twice, the second time with outliers counting less."""
    out = prior
    weight = w
    scale = np.diag([strength, strength, strength, strength / 100])
    for _ in range(2):
        gram = (x * weight[:, None]).T @ x + scale * 50
        out = np.linalg.solve(gram, (x * weight[:, None]).T @ y + scale * 50 @ prior)
        miss = np.abs(x @ out - y).mean(1)
        weight = w / (1 + (miss / (2.5 * np.median(miss) + 2)) ** 2)
    return out


def _cluster_colours(x: np.ndarray) -> np.ndarray:
    """Centres `[K, 3]`: farthest points first, then a few rounds of k-means; no random start."""
    points = x[:: max(1, len(x) // 800)]
    centres = [points.mean(0)]
    away = ((points - centres[0]) ** 2).sum(1)
    while len(centres) < min(NUM_CLUSTERS, len(points)):
        centres.append(points[int(away.argmax())])
        away = np.minimum(away, ((points - centres[-1]) ** 2).sum(1))
    found = np.stack(centres)
    for _ in range(6):
        nearest = ((points[:, None] - found[None]) ** 2).sum(-1).argmin(1)
        found = np.stack([points[nearest == k].mean(0) if (nearest == k).any() else found[k] for k in range(len(found))])
    return found
