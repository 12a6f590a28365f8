"""Motion between frames: dense inverse search (Kroeger et al. 2016, OpenCV's DIS), its consistency, and its chain back to frame 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import BoolArray, Float32Array, UInt8Array

MIN_WIDTH = 32
"""Columns that DIS needs at least."""

CONSISTENCY_TOLERANCE = (0.5, 0.01)
"""A pixel was seen before when |back + forth|^2 is at most this much, plus this share of |back|^2 + |forth|^2
(Sundaram, Brox and Keutzer, 2010; in flow pixels)."""


class OpticalFlow:
    """Flow between frames of one size, computed on grey pictures of `rows` (at least, at most) rows: DIS is poor on smaller ones, slow on
    larger ones. Pictures of more than `fine_rows` rows are not refined down to single pixels.
    """

    def __init__(self, height: int, width: int, rows: tuple[int, int], fine_rows: int | None = None) -> None:
        scale = max(min(max(height, rows[0]), rows[1]) / height, MIN_WIDTH / width)
        self.size = (round(width * scale), round(height * scale))
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._dis.setFinestScale(0 if fine_rows is None or self.size[1] <= fine_rows else 1)

    def to_grey(self, frame: torch.Tensor) -> UInt8Array:
        """A frame `[H, W, 3]` uint8 as the picture `[h, w]` that flow is computed on."""
        grey = cv2.cvtColor(np.ascontiguousarray(frame.numpy()), cv2.COLOR_RGB2GRAY)
        method = cv2.INTER_CUBIC if self.size[1] > grey.shape[0] else cv2.INTER_AREA
        return np.asarray(cv2.resize(grey, self.size, interpolation=method), np.uint8)

    def compute_backward_flow(self, current_image: UInt8Array, previous_image: UInt8Array) -> tuple[Float32Array, BoolArray]:
        """Motion `[h, w, 2]` (x, y; flow pixels) from each pixel of `now` to `before`, and whether it was in sight there `[h, w]`."""
        back = np.asarray(self._dis.calc(current_image, previous_image, None), np.float32)  # type: ignore[call-overload]
        forth = np.asarray(self._dis.calc(previous_image, current_image, None), np.float32)  # type: ignore[call-overload]
        there = build_pixel_grid(*current_image.shape) + back
        returned = sample_image(forth, there)
        agrees = _compute_squared_length(back + returned) <= CONSISTENCY_TOLERANCE[0] + CONSISTENCY_TOLERANCE[1] * (
            _compute_squared_length(back) + _compute_squared_length(returned)
        )
        # Half a pixel beyond the outermost centres is still the picture.
        x, y = there[..., 0], there[..., 1]
        within = (x >= -0.5) & (y >= -0.5) & (x <= current_image.shape[1] - 0.5) & (y <= current_image.shape[0] - 0.5)
        return back, np.asarray(agrees & within, bool)


def _compute_squared_length(motion: Float32Array) -> Float32Array:
    """Squared length, `[h, w]` of `[h, w, 2]`."""
    x, y = motion[..., 0], motion[..., 1]
    return x * x + y * y


def chain_flow_to_first(frames: torch.Tensor, rows: tuple[int, int] = (256, 480), fine_rows: int = 320) -> Iterator[Float32Array]:
    """For each frame of `[T, H, W, 3]` uint8 where its pixels lie in frame 0: `[H, W, 2]` (x, y), in pixels of the frames."""
    return chain_flow_in_order(frames, range(len(frames)), rows, fine_rows)


def chain_flow_in_order(
    frames: torch.Tensor, order: Sequence[int], rows: tuple[int, int] = (256, 480), fine_rows: int = 320
) -> Iterator[Float32Array]:
    """For the frames number `order` (neighbours follow each other) where their pixels lie in the first of these: `[H, W, 2]` (x, y).

    Flow between neighbours is chained; where forward and backward flow disagree (something was covered or uncovered) the surrounding
    motion is used. Time is linear in the frames, memory is that of a few frames.
    """
    height, width = frames.shape[1:3]
    flow = OpticalFlow(height, width, rows, fine_rows)
    still = build_pixel_grid(flow.size[1], flow.size[0])
    to_first = still
    yield build_pixel_grid(height, width)
    before = flow.to_grey(frames[order[0]])
    for number in order[1:]:
        now = flow.to_grey(frames[number])
        back, seen = flow.compute_backward_flow(now, before)
        to_first = sample_image(to_first, still + _fill_unknown(back, seen.astype(np.float32), sigma=now.shape[0] / 32))
        before = now
        yield resize_positions(to_first, height, width)


APPEARANCE_TOLERANCE = 25.0
"""Levels of 255 between a frame and frame 0 moved onto it at which a chained position is believed by a third."""


def chain_flow_with_confidence(
    frames: torch.Tensor, rows: tuple[int, int] = (256, 480), fine_rows: int = 320
) -> Iterator[tuple[Float32Array, Float32Array]]:
    """As `places_in_first`, with a confidence `[H, W]` in [0, 1]: forward and backward flow agreed all the way, and the looks agree."""
    height, width = frames.shape[1:3]
    flow = OpticalFlow(height, width, rows, fine_rows)
    still = build_pixel_grid(flow.size[1], flow.size[0])
    to_first, sure = still, np.ones(still.shape[:2], np.float32)
    first = before = flow.to_grey(frames[0])
    yield build_pixel_grid(height, width), np.ones((height, width), np.float32)
    for number in range(1, len(frames)):
        now = flow.to_grey(frames[number])
        back, seen = flow.compute_backward_flow(now, before)
        step = still + _fill_unknown(back, seen.astype(np.float32), sigma=now.shape[0] / 32)
        to_first, sure, before = sample_image(to_first, step), np.minimum(sample_image(sure, step), seen.astype(np.float32)), now
        away = cv2.GaussianBlur(np.abs(sample_image(first, to_first) - now.astype(np.float32)), (0, 0), 3)
        confidence = cv2.resize(sure * np.exp(-((away / APPEARANCE_TOLERANCE) ** 2)), (width, height), interpolation=cv2.INTER_LINEAR)
        yield resize_positions(to_first, height, width), np.asarray(confidence, np.float32)


def detect_corners(image: UInt8Array, max_corners: int, min_distance: float, mask: UInt8Array | None = None) -> Float32Array:
    """At most `count` corners `[N, 1, 2]` (x, y) of a grey picture `[h, w]`, within a mask, this many pixels `apart`."""
    found = cv2.goodFeaturesToTrack(image, max_corners, 0.01, min_distance, mask=mask)
    return np.zeros((0, 1, 2), np.float32) if found is None else np.asarray(found, np.float32)


def track_points(
    previous_image: UInt8Array, current_image: UInt8Array, points: Float32Array, guess: Float32Array
) -> tuple[Float32Array, BoolArray]:
    """Where points `[N, 1, 2]` moved, from a guess on, and whether they were found `[N]` (Lucas and Kanade, pyramidal)."""
    flags = cv2.OPTFLOW_USE_INITIAL_FLOW
    new, found, _ = cv2.calcOpticalFlowPyrLK(previous_image, current_image, points, guess.copy(), winSize=(13, 13), maxLevel=3, flags=flags)
    return np.asarray(new, np.float32), np.asarray(found)[:, 0] > 0


def build_pixel_grid(height: int, width: int) -> Float32Array:
    """`[h, w, 2]`: each pixel's own x and y."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def sample_image(
    image: npt.NDArray[np.float32 | np.uint8], positions: npt.NDArray[np.floating], interpolation: int = cv2.INTER_LINEAR
) -> Float32Array:
    """`picture` read at `positions` `[h, w, 2]` (x, y), its border repeated beyond the edge; in floats."""
    x, y = (np.ascontiguousarray(positions[..., axis], np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(image.astype(np.float32), x, y, interpolation, borderMode=cv2.BORDER_REPLICATE), np.float32)


def resize_motion(motion: Float32Array, height: int, width: int) -> Float32Array:
    """A field of motion `[h, w, 2]` at another size and in that size's pixels (pixel centres at half-integers)."""
    ratio = np.array([width / motion.shape[1], height / motion.shape[0]], np.float32)
    return np.asarray(cv2.resize(motion, (width, height), interpolation=cv2.INTER_LINEAR) * ratio, np.float32)


def resize_positions(positions: Float32Array, height: int, width: int) -> Float32Array:
    """Positions `[h, w, 2]` in a frame of the same size, as a field for both frames at another size."""
    return build_pixel_grid(height, width) + resize_motion(positions - build_pixel_grid(*positions.shape[:2]), height, width)


def _fill_unknown(values: Float32Array, known: Float32Array, sigma: float) -> Float32Array:
    """Where `known` is 0, the mean of the known values around, nearer ones counting more."""
    if known.all():
        return values
    # The mean is smooth, so that a quarter of the resolution does, at a fraction of the time.
    size, quarter = known.shape[::-1], (max(1, known.shape[1] // 4), max(1, known.shape[0] // 4))
    weight = cv2.GaussianBlur(cv2.resize(known, quarter, interpolation=cv2.INTER_AREA), (0, 0), sigma / 4)
    total = cv2.GaussianBlur(cv2.resize(values * known[..., None], quarter, interpolation=cv2.INTER_AREA), (0, 0), sigma / 4)
    mean = cv2.resize(total / np.maximum(weight, 1e-6)[..., None], size, interpolation=cv2.INTER_LINEAR)
    usable = (known > 0) | (cv2.resize(weight, size, interpolation=cv2.INTER_LINEAR) < 1e-3)
    return np.asarray(np.where(usable[..., None], values, mean), dtype=np.float32)
