"""An imperceptible watermark of edited pixels, and its detection without the source, the region or the run (ours).

The mark is zero-bit spread spectrum: one pseudo-random pattern from a public key, repeated every `PERIOD` pixels of the frame and added to
the luma of edited pixels. It is a label. Who knows the key can remove it, so it protects against nothing.

Detection measures the Fourier coefficients of the averaged frames at the pattern's frequencies, for many sizes and parts of the frame, and
compares their phases with the key's. On a file that has nothing to do with the key, these phases are independent and uniform, whatever the
file shows. The sum `sum(c_k cos(phase_k))` then is sub-Gaussian: it exceeds `z` of its standard deviations with a probability of at most
`exp(-z * z / 2)` (Chernoff's bound, with the modified Bessel function `I0(x) <= exp(x * x / 4)`). The union bound over everything that was
tried gives the false-positive probability of a file. It assumes no distribution of the pictures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import BoolArray, Float32Array, UInt8Array, mask_bounds

KEY = b"lora-edit watermark 1"
"""The public key; another key is another mark."""

PERIOD = 61
"""Pixels after which the pattern repeats. A prime, so that it shares no frequency with a codec's blocks of 4 to 64 pixels."""

MIN_HARMONIC, MAX_HARMONIC = 3.0, 9.5
"""Range of the pattern's frequencies in cycles per `PERIOD`. Higher ones do not survive H.264 at crf 28 and scaling to 50 %."""

MIN_AMPLITUDE, ACTIVITY_GAIN, MAX_AMPLITUDE = 1.0, 0.15, 1.5
"""Root mean square of the mark in levels of 255: on flat areas, its growth with the local standard deviation, and its bound."""

PEAK = 1.6
"""Bound of the pattern, in multiples of its root mean square."""

MIN_MARKED_PIXELS = 4000
"""Smallest marked area, in pixels per frame, that is worth a try; smaller ones are not found again (docs/benchmarks/watermark.md)."""

MAX_FALSE_POSITIVE_PROBABILITY = 1e-6
"""Probability, per file, of finding the mark where it is not."""

_DENSE_FRAMES = 64
"""Of the first frames all are searched, of those after the same number every second, then every fourth, and so on."""

_COMMON_SCALES = (1.0, 0.75, 2 / 3, 0.5)
_SCALE_RANGE = (0.45, 1.45)
_MAX_SEARCH_SIDE = 1920
"""Larger frames are searched at this size for sizes other than the common ones."""
_MIN_BLOCK = 24
"""Smallest side, in pixels, of the blocks from which the searched parts of the frame are put together."""
_SHIFTS = 64
"""Shifts of the pattern tried along each axis."""

ComplexArray = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class WatermarkDetection:
    """The result of a search for the mark.

    - `found`: whether `false_positive_probability` is at most `MAX_FALSE_POSITIVE_PROBABILITY`.
    - `score`: the largest agreement with the key, in standard deviations.
    - `false_positive_probability`: bound of the probability that a file without the mark scores as high, over everything that was tried.
    - `scale`: size of the frames relative to the size at which they were marked.
    - `num_frames`: the number of frames that were searched.
    """

    found: bool
    score: float
    false_positive_probability: float
    scale: float
    num_frames: int


# --- the pattern --------------------------------------------------------------------------------------------------------------


@cache
def _get_harmonics() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], BoolArray]:
    """Return the pattern's frequencies in cycles per `PERIOD`: rows `[Ky]`, columns `[Kx]`, and which pairs `[Ky, Kx]` it contains."""
    last = int(MAX_HARMONIC)
    rows, columns = np.arange(-last, last + 1), np.arange(last + 1)
    radius = np.hypot(rows[:, None], columns)
    is_new = (columns > 0) | (rows[:, None] > 0)  # a real pattern's other half is the conjugate
    return rows, columns, (radius >= MIN_HARMONIC) & (radius <= MAX_HARMONIC) & is_new


@cache
def _compute_key_spectrum(key: bytes) -> ComplexArray:
    """Compute the pattern's coefficients `[Ky, Kx]`: magnitude 1 and phases from `key`."""
    in_pattern = _get_harmonics()[2]
    count = int(in_pattern.sum())
    phases = np.frombuffer(hashlib.shake_256(key).digest(4 * count), "<u4") * (2 * np.pi / 2**32)
    spectrum = np.zeros(in_pattern.shape, np.complex64)
    spectrum[in_pattern] = np.exp(1j * phases)
    return spectrum


@cache
def _compute_pattern() -> Float32Array:
    """Compute one period of the pattern, `[PERIOD, PERIOD]`, with mean 0 and root mean square 1."""
    rows, columns, _ = _get_harmonics()
    positions = np.arange(PERIOD) * (2 * np.pi / PERIOD)
    waves = np.exp(1j * np.outer(positions, rows)) @ _compute_key_spectrum(KEY) @ np.exp(1j * np.outer(columns, positions))
    pattern = waves.real / waves.real.std()
    pattern = np.clip(pattern, -PEAK, PEAK)
    return (pattern / pattern.std()).astype(np.float32)


# --- embedding ----------------------------------------------------------------------------------------------------------------


def embed_watermark(frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return `frames` `[..., H, W, 3]` uint8 with the mark, weighted by `weights` `[..., H, W]` in [0, 1].

    Pixels of weight 0 are unchanged. The mark adds the same whole number to the three channels of a pixel, more where the picture has
    texture; it is the same in each frame, so that it does not flicker and codecs store it once.
    """
    assert frames.dtype == torch.uint8 and frames.shape[:-1] == weights.shape and frames.shape[-1] == 3
    if frames.ndim > 3:
        return torch.stack([embed_watermark(*each) for each in zip(frames, weights, strict=True)])
    marked, bounds = frames.clone(), mask_bounds(weights > 0)
    if bounds is not None:
        left, top, right, bottom = bounds
        part = marked.numpy()[top:bottom, left:right]
        strength = _compute_amplitude(_compute_luma(part)) * weights[top:bottom, left:right].float().numpy()
        mark = np.rint(strength * _tile_pattern(bottom, right)[top:, left:])
        part[:] = np.clip(part + mark[..., None], 0, 255).astype(np.uint8)
    return marked


def measure_marked_area(weights: Iterable[torch.Tensor]) -> float:
    """Return the pixels per frame that a mark with these `weights`, one `[H, W]` per frame, covers; compare with `MIN_MARKED_PIXELS`."""
    areas = [float(weight.sum()) for weight in weights]
    return sum(areas) / max(len(areas), 1)


def _compute_luma(frame: UInt8Array) -> Float32Array:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY), np.float32)


def _compute_amplitude(luma: Float32Array) -> Float32Array:
    """Compute the amplitude of the mark `[H, W]`, which grows with the local standard deviation of `luma`."""
    mean = cv2.GaussianBlur(luma, (0, 0), 3)
    variance = cv2.GaussianBlur(luma * luma, (0, 0), 3) - mean * mean
    return np.asarray(np.minimum(MIN_AMPLITUDE + ACTIVITY_GAIN * np.sqrt(np.maximum(variance, 0)), MAX_AMPLITUDE), np.float32)


def _tile_pattern(height: int, width: int) -> Float32Array:
    return np.tile(_compute_pattern(), (-(-height // PERIOD), -(-width // PERIOD)))[:height, :width]


# --- detection ----------------------------------------------------------------------------------------------------------------


def detect_watermark(frames: Iterable[torch.Tensor], key: bytes = KEY) -> WatermarkDetection:
    """Search `frames`, each `[H, W, 3]` uint8, for the mark of `key`.

    Neither the source nor the region is needed. The frames may have been cropped and resized to 45 to 145 % of their size. Frames of
    another size than the first are ignored. Memory does not grow with their number.
    """
    residual, num_frames = _average_residuals(frames)
    if residual is None:
        return WatermarkDetection(False, 0.0, 1.0, 1.0, 0)
    spectrum = _compute_key_spectrum(key)
    best = WatermarkDetection(False, 0.0, 1.0, 1.0, num_frames)
    for search in (_search_original, _search_common_scales, _search_all_scales):
        score, scale, trials = search(residual, spectrum)
        probability = _bound_probability(score, 3 * trials)  # each search may use a third of the permitted probability
        if (probability, -score) < (best.false_positive_probability, -best.score):
            is_found = probability <= MAX_FALSE_POSITIVE_PROBABILITY
            best = WatermarkDetection(is_found, score, probability, scale, num_frames)
        if best.found:
            break
    return best


def _bound_probability(score: float, trials: int) -> float:
    """Bound the probability that the best of `trials` scores reaches `score` without a mark."""
    return min(1.0, trials * math.exp(-0.5 * max(score, 0.0) ** 2))


def _average_residuals(frames: Iterable[torch.Tensor]) -> tuple[Float32Array | None, int]:
    """Average the frames' details over time, each pixel weighted by the inverse of its local energy; returns `[H, W]` and the number."""
    total = weight = np.zeros((0, 0), np.float32)
    count = 0
    for number, frame in enumerate(frames):
        if number % (1 << (count // _DENSE_FRAMES)) or (count and frame.shape[:2] != total.shape):
            continue
        luma = _compute_luma(frame.numpy())
        detail = luma - cv2.GaussianBlur(luma, (0, 0), 3)
        inverse = np.asarray(1 / (cv2.blur(cv2.blur(detail * detail, (11, 11)), (11, 11)) + 8), np.float32)
        if not count:
            total, weight = np.zeros_like(luma), np.zeros_like(luma)
        total += detail * inverse
        weight += inverse
        count += 1
    # The mean over time, divided by its local standard deviation.
    return (np.asarray(total / np.sqrt(weight), np.float32), count) if count else (None, 0)


Window = tuple[tuple[int, int], tuple[int, int]]
"""A part of the frame: first and last row, and first and last column, of its blocks."""


@dataclass(frozen=True)
class _Blocks:
    """The frame's blocks: bounds along each axis in pixels."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def list_windows(self, level: int) -> list[Window]:
        """List the parts of the frame with sides of `1 / 2**level` of the frame's, which overlap by half."""
        rows, columns = (_list_spans(len(bounds) - 1, level) for bounds in (self.rows, self.columns))
        return list(product(rows, columns))


def _list_spans(count: int, level: int) -> list[tuple[int, int]]:
    length = max(1, count >> level)
    firsts = {*range(0, count - length + 1, max(1, length // 2)), count - length}
    return [(first, first + length) for first in sorted(firsts)]


def _split_blocks(residual: Float32Array, count: int) -> _Blocks:
    bounds = [tuple(np.linspace(0, side, min(count, max(1, side // _MIN_BLOCK)) + 1).astype(int).tolist()) for side in residual.shape]
    return _Blocks(*bounds)


def _measure_blocks(residual: Float32Array, scale: float, blocks: _Blocks) -> ComplexArray:
    """Measure the Fourier coefficients of the frame's blocks at the pattern's frequencies.

    Returns their sums over all blocks above and to the left, `[rows + 1, columns + 1, Ky, Kx]`. `scale` is the frame's size relative to the
    pattern's.
    """
    height, width = residual.shape
    rows, columns, _ = _get_harmonics()
    row_waves = np.exp((-2j * np.pi / (scale * PERIOD)) * np.outer(rows, np.arange(height))).astype(np.complex64)
    column_waves = np.exp((-2j * np.pi / (scale * PERIOD)) * np.outer(np.arange(width), columns)).astype(np.complex64)
    real_waves = np.concatenate([column_waves.real, column_waves.imag], 1)
    sums = np.zeros((len(blocks.rows), len(blocks.columns), len(rows), len(columns)), np.complex64)
    for j, (left, right) in enumerate(pairwise(blocks.columns)):
        strip = residual[:, left:right] @ real_waves[left:right]
        complex_strip = strip[:, : len(columns)] + 1j * strip[:, len(columns) :]
        for i, (top, bottom) in enumerate(pairwise(blocks.rows)):
            sums[i + 1, j + 1] = row_waves[:, top:bottom] @ complex_strip[top:bottom]
    return np.asarray(sums.cumsum(0).cumsum(1), np.complex64)


def _sum_windows(sums: ComplexArray, windows: Sequence[Window]) -> ComplexArray:
    """Sum the coefficients of each window's blocks from what `_measure_blocks` returns; returns `[windows, Ky, Kx]`."""
    top, bottom, left, right = np.array(windows).reshape(-1, 4).T
    return np.asarray(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left], np.complex64)


def _correlate(coefficients: ComplexArray, spectrum: ComplexArray) -> tuple[ComplexArray, Float32Array]:
    """Weigh coefficients `[N, Ky, Kx]` and turn them by the phases of the key's `spectrum`.

    Returns them and the standard deviation `[N]` of their sum for a random key. Division by the root of the magnitude keeps strong
    frequencies of the picture from drowning the others.
    """
    magnitude = np.abs(coefficients)
    turned = np.asarray(coefficients * np.conj(spectrum) / np.sqrt(np.maximum(magnitude, 1e-9)), np.complex64)
    deviation = np.sqrt((np.abs(turned) ** 2).sum((1, 2)) / 2)
    return turned, np.asarray(np.maximum(deviation, 1e-9), np.float32)


Search = tuple[float, float, int]
"""The best score, its scale, and the number of scores among which it is the best."""


def _search_original(residual: Float32Array, spectrum: ComplexArray) -> Search:
    """Search a frame that was neither cropped nor resized, in small steps of its parts."""
    blocks = _split_blocks(residual, 16)
    windows = [window for level in range(4) for window in blocks.list_windows(level)]
    turned, deviation = _correlate(_sum_windows(_measure_blocks(residual, 1.0, blocks), windows), spectrum)
    return float((turned.real.sum((1, 2)) / deviation).max()), 1.0, len(windows)


def _search_common_scales(residual: Float32Array, spectrum: ComplexArray) -> Search:
    return _search_scales(residual, spectrum, _COMMON_SCALES)


def _search_scales(residual: Float32Array, spectrum: ComplexArray, scales: Sequence[float], reduction: float = 1.0) -> Search:
    """Search for the pattern at any shift at each of `scales`; `reduction` is the size of `residual` relative to the frame.

    Of the many scales of a full search, parts of half and a quarter of the side need only every second and fourth.
    """
    blocks = _split_blocks(residual, 8)
    windows = [blocks.list_windows(level) for level in range(3)]
    best, best_scale, trials = 0.0, 1.0, 0
    for number, scale in enumerate(scales):
        chosen = [each for level in range(3) if len(scales) < 8 or number % (1 << level) == 0 for each in windows[level]]
        turned, deviation = _correlate(_sum_windows(_measure_blocks(residual, scale * reduction, blocks), chosen), spectrum)
        score = float((_sum_over_shifts(turned) / deviation).max())
        trials += len(chosen) * _SHIFTS**2
        if score > best:
            best, best_scale = score, scale
    return best, best_scale, max(trials, 1)


def _sum_over_shifts(turned: ComplexArray) -> Float32Array:
    """Compute the largest real sum of `turned` `[N, Ky, Kx]` over all shifts of the pattern; returns `[N]`."""
    rows, columns, _ = _get_harmonics()
    half = np.zeros((len(turned), _SHIFTS, _SHIFTS // 2 + 1), np.complex64)
    half[:, rows % _SHIFTS, : len(columns)] = turned
    half[:, -rows % _SHIFTS, 0] += np.conj(turned[:, :, 0])
    sums = torch.fft.irfft2(torch.from_numpy(half), norm="forward")
    return np.asarray(sums.amax((1, 2)).numpy() / 2)


def _search_all_scales(residual: Float32Array, spectrum: ComplexArray) -> Search:
    """Search all scales of `_SCALE_RANGE`, large frames at a reduced size."""
    reduction = min(1.0, _MAX_SEARCH_SIDE / max(residual.shape))
    reduced = _resize(residual, reduction)
    scales = [(scale / reduction, scale) for scale in _list_scales(max(reduced.shape), *_SCALE_RANGE)]
    # Half the size has all of the pattern's frequencies if they are well below a quarter of a cycle per pixel.
    searches = (
        _search_scales(reduced, spectrum, [scale for scale, size in scales if size < 0.8], reduction),
        _search_scales(_resize(reduced, 0.5), spectrum, [scale for scale, size in scales if size >= 0.8], 0.5 * reduction),
    )
    best = max(searches)
    return best[0], best[1], sum(trials for _, _, trials in searches)


def _list_scales(side: int, first: float, last: float) -> Iterator[float]:
    """Yield scales so dense that, for one in between, the highest frequency is at most a sixth of a cycle off at the ends of `side`."""
    scale = first
    while scale <= last:
        yield scale
        scale *= 1 + 2 * PERIOD * scale / (3 * MAX_HARMONIC * side)


def _resize(residual: Float32Array, factor: float) -> Float32Array:
    if factor == 1:
        return residual
    height, width = (max(1, round(side * factor)) for side in residual.shape)
    return np.asarray(cv2.resize(residual, (width, height), interpolation=cv2.INTER_AREA), np.float32)
