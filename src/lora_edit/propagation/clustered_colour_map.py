"""A smooth map from the source's colours to the edited frame's, fitted on a key frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lora_edit.propagation.images import FloatImage

NUM_CLUSTERS = 8
MAX_SAMPLES = 4000
RIDGE = 60.0
"""Regularization of each cluster's map toward the common map (pixels times squared levels, per pixel of the cluster's weight)."""
MAX_DISTANCE = 3.0
"""Distance from its cluster, in cluster widths, beyond which a colour counts as unknown."""
MIN_WIDTH = 14.0
"""Smallest width of a cluster, in levels of 255."""


@dataclass(frozen=True)
class ClusteredColourMap:
    """Affine maps `[K, 4, 3]` around the colours `centres` `[K, 3]` with `widths` `[K]`.

    `residuals` `[K]` are the RMS errors of the maps, in levels of 255; `explained_share` in [0, 1] is the share of the edit's change that
    the maps account for.
    """

    centres: FloatImage
    widths: FloatImage
    maps: FloatImage
    residuals: FloatImage
    explained_share: float

    def __call__(self, source: FloatImage) -> tuple[FloatImage, FloatImage]:
        """Map a source image `[H, W, 3]`. Returns colours `[H, W, 3]` and the expected error `[H, W]` (levels; larger for new colours)."""
        shape = source.shape[:-1]
        pixels = source.reshape(-1, 3)
        squared_offsets = ((pixels[:, None] - self.centres[None]) / self.widths[None, :, None]) ** 2
        distance = squared_offsets.sum(-1)
        # Colours far from all fitted ones are unknown: they change as the nearest known colour does.
        nearest = self.centres[distance.argmin(1)]
        scale = (MAX_DISTANCE / np.sqrt(distance.min(1)).clip(MAX_DISTANCE))[:, None]
        clamped = nearest + (pixels - nearest) * scale
        weights = np.exp(-0.5 * (distance - distance.min(1, keepdims=True)))
        weights /= weights.sum(1, keepdims=True)
        mixed = np.einsum("nk,kio->nio", weights, self.maps)
        mapped = np.einsum("ni,nio->no", clamped, mixed[:, :3]) + mixed[:, 3] + pixels - clamped
        error = weights @ self.residuals + 4.0 * np.sqrt(distance.min(1)).clip(0, 12)
        return np.asarray(mapped.reshape(*shape, 3), np.float32), np.asarray(error.reshape(shape), np.float32)


def fit_colour_map(source: FloatImage, edited: FloatImage, weight: FloatImage) -> ClusteredColourMap:
    """Fit a map from `source` to `edited` (both `[H, W, 3]`) where the pixel weight `weight` `[H, W]` is positive."""
    indices = np.flatnonzero(weight.ravel() > 0.02)
    if not len(indices):
        indices = np.arange(weight.size)
    indices = indices[:: max(1, len(indices) // MAX_SAMPLES)]
    x, y, w = source.reshape(-1, 3)[indices], edited.reshape(-1, 3)[indices], np.maximum(weight.ravel()[indices], 1e-3)
    homogeneous = np.concatenate([x, np.ones((len(x), 1), np.float32)], 1)
    identity = np.zeros((4, 3))
    identity[:3] = np.eye(3)
    common = _solve_ridge(homogeneous, y, w, identity, 1.0)
    centres = _cluster_colours(x)
    distance = ((x[:, None] - centres[None]) ** 2).sum(-1)
    nearest = distance.argmin(1)
    variances = np.array([distance[nearest == k, k].mean() if (nearest == k).any() else 0.0 for k in range(len(centres))])
    widths = np.maximum(np.sqrt(variances), MIN_WIDTH)
    memberships = np.exp(-0.5 * distance / widths**2) * w[:, None]
    maps = np.stack([_solve_ridge(homogeneous, y, memberships[:, k], common, RIDGE) for k in range(len(centres))])
    squared_errors = ((np.einsum("ni,kio->nko", homogeneous, maps) - y[:, None]) ** 2).mean(-1)
    residuals = np.sqrt((memberships * squared_errors).sum(0) / memberships.sum(0).clip(1e-3))
    total = (w[:, None] * (y - x) ** 2).sum() / 3
    unexplained = (w * squared_errors[np.arange(len(x)), nearest]).sum()
    explained_share = float(np.clip(1 - unexplained / max(total, 1e-3), 0, 1))
    fitted = [np.asarray(a, np.float32) for a in (centres, widths, maps, residuals)]
    return ClusteredColourMap(fitted[0], fitted[1], fitted[2], fitted[3], explained_share)


def _solve_ridge(x: np.ndarray, y: np.ndarray, w: np.ndarray, prior: np.ndarray, strength: float) -> np.ndarray:
    """Solve weighted ridge regression `[4, 3]` around `prior`, twice; the second pass reduces the weight of outliers."""
    solution = prior
    weight = w
    scale = np.diag([strength, strength, strength, strength / 100])
    for _ in range(2):
        gram = (x * weight[:, None]).T @ x + scale * 50
        solution = np.linalg.solve(gram, (x * weight[:, None]).T @ y + scale * 50 @ prior)
        error = np.abs(x @ solution - y).mean(1)
        weight = w / (1 + (error / (2.5 * np.median(error) + 2)) ** 2)
    return solution


def _cluster_colours(x: np.ndarray) -> np.ndarray:
    """Compute centres `[K, 3]` by farthest-point selection and six rounds of k-means, without random initialization."""
    points = x[:: max(1, len(x) // 800)]
    centres = [points.mean(0)]
    distances = ((points - centres[0]) ** 2).sum(1)
    while len(centres) < min(NUM_CLUSTERS, len(points)):
        centres.append(points[int(distances.argmax())])
        distances = np.minimum(distances, ((points - centres[-1]) ** 2).sum(1))
    means = np.stack(centres)
    for _ in range(6):
        nearest = ((points[:, None] - means[None]) ** 2).sum(-1).argmin(1)
        means = np.stack([points[nearest == k].mean(0) if (nearest == k).any() else means[k] for k in range(len(means))])
    return means
