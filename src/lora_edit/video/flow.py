"""Optical flow: dense inverse search (Kroeger et al. 2016, OpenCV's DIS), the forward-backward check, and chaining back to frame 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import BoolArray, Float32Array, UInt8Array

MIN_WIDTH = 32
"""Smallest number of columns that DIS supports."""

CONSISTENCY_TOLERANCE = (0.5, 0.01)
"""Limit of the forward-backward check: flow is consistent when |back + forth|^2 is at most the first number plus the second times
|back|^2 + |forth|^2 (Sundaram, Brox and Keutzer, 2010; in flow pixels)."""


class OpticalFlow:
    """Optical flow between frames of one size, computed on resized grey images.

    `rows` are the smallest and largest number of rows: DIS is inaccurate on smaller images and slow on larger ones. Images of more than
    `fine_rows` rows are not refined down to single pixels.
    """

    def __init__(self, height: int, width: int, rows: tuple[int, int], fine_rows: int | None = None) -> None:
        scale = max(min(max(height, rows[0]), rows[1]) / height, MIN_WIDTH / width)
        self.size = (round(width * scale), round(height * scale))
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._dis.setFinestScale(0 if fine_rows is None or self.size[1] <= fine_rows else 1)

    def to_grey(self, frame: torch.Tensor) -> UInt8Array:
        """Convert a frame `[H, W, 3]` uint8 to the grey image `[h, w]` on which flow is computed."""
        grey = cv2.cvtColor(np.ascontiguousarray(frame.numpy()), cv2.COLOR_RGB2GRAY)
        method = cv2.INTER_CUBIC if self.size[1] > grey.shape[0] else cv2.INTER_AREA
        return np.asarray(cv2.resize(grey, self.size, interpolation=method), np.uint8)

    def compute_backward_flow(self, current_image: UInt8Array, previous_image: UInt8Array) -> tuple[Float32Array, BoolArray]:
        """Compute the flow `[h, w, 2]` (x, y; flow pixels) from current to previous image, and whether it is consistent `[h, w]`."""
        back = np.asarray(self._dis.calc(current_image, previous_image, None), np.float32)  # type: ignore[call-overload]
        forth = np.asarray(self._dis.calc(previous_image, current_image, None), np.float32)  # type: ignore[call-overload]
        positions = build_pixel_grid(*current_image.shape) + back
        forth_at_positions = sample_image(forth, positions)
        is_consistent = _compute_squared_length(back + forth_at_positions) <= CONSISTENCY_TOLERANCE[0] + CONSISTENCY_TOLERANCE[1] * (
            _compute_squared_length(back) + _compute_squared_length(forth_at_positions)
        )
        # The image extends half a pixel beyond the outermost pixel centres.
        x, y = positions[..., 0], positions[..., 1]
        in_frame = (x >= -0.5) & (y >= -0.5) & (x <= current_image.shape[1] - 0.5) & (y <= current_image.shape[0] - 0.5)
        return back, np.asarray(is_consistent & in_frame, bool)


def _compute_squared_length(motion: Float32Array) -> Float32Array:
    """Compute the squared length `[h, w]` of vectors `[h, w, 2]`."""
    x, y = motion[..., 0], motion[..., 1]
    return x * x + y * y


def chain_flow_to_first(frames: torch.Tensor, rows: tuple[int, int] = (256, 480), fine_rows: int = 320) -> Iterator[Float32Array]:
    """Compute for each frame of `[T, H, W, 3]` uint8 the positions of its pixels in frame 0: `[H, W, 2]` (x, y) in frame pixels."""
    return chain_flow_in_order(frames, range(len(frames)), rows, fine_rows)


def chain_flow_in_order(
    frames: torch.Tensor, order: Sequence[int], rows: tuple[int, int] = (256, 480), fine_rows: int = 320
) -> Iterator[Float32Array]:
    """Compute for the frames with indices `order` the positions of their pixels in the first of them: `[H, W, 2]` (x, y).

    Consecutive indices are neighbours, and the flow between them is chained. Where forward and backward flow disagree (occlusion or
    disocclusion), the surrounding motion is used. Time is linear in the number of frames; memory is that of a few frames.
    """
    height, width = frames.shape[1:3]
    flow = OpticalFlow(height, width, rows, fine_rows)
    pixel_grid = build_pixel_grid(flow.size[1], flow.size[0])
    to_first = pixel_grid
    yield build_pixel_grid(height, width)
    previous = flow.to_grey(frames[order[0]])
    for index in order[1:]:
        current = flow.to_grey(frames[index])
        back, consistent = flow.compute_backward_flow(current, previous)
        to_first = sample_image(to_first, pixel_grid + _fill_unknown(back, consistent.astype(np.float32), sigma=current.shape[0] / 32))
        previous = current
        yield resize_positions(to_first, height, width)


APPEARANCE_TOLERANCE = 25.0
"""Difference, in levels of 255, between a frame and the warped frame 0 at which the confidence of a position drops to 1/e."""


def chain_flow_with_confidence(
    frames: torch.Tensor, rows: tuple[int, int] = (256, 480), fine_rows: int = 320
) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Chain flow as `chain_flow_to_first` does, with a confidence `[H, W]` in [0, 1].

    It is high where forward and backward flow are consistent along the whole chain and the colours match.
    """
    height, width = frames.shape[1:3]
    flow = OpticalFlow(height, width, rows, fine_rows)
    pixel_grid = build_pixel_grid(flow.size[1], flow.size[0])
    to_first, consistency = pixel_grid, np.ones(pixel_grid.shape[:2], np.float32)
    first = previous = flow.to_grey(frames[0])
    yield build_pixel_grid(height, width), np.ones((height, width), np.float32)
    for index in range(1, len(frames)):
        current = flow.to_grey(frames[index])
        back, consistent = flow.compute_backward_flow(current, previous)
        step = pixel_grid + _fill_unknown(back, consistent.astype(np.float32), sigma=current.shape[0] / 32)
        to_first, consistency, previous = (
            sample_image(to_first, step),
            np.minimum(sample_image(consistency, step), consistent.astype(np.float32)),
            current,
        )
        difference = cv2.GaussianBlur(np.abs(sample_image(first, to_first) - current.astype(np.float32)), (0, 0), 3)
        confidence = cv2.resize(
            consistency * np.exp(-((difference / APPEARANCE_TOLERANCE) ** 2)), (width, height), interpolation=cv2.INTER_LINEAR
        )
        yield resize_positions(to_first, height, width), np.asarray(confidence, np.float32)


def detect_corners(image: UInt8Array, max_corners: int, min_distance: float, mask: UInt8Array | None = None) -> Float32Array:
    """Detect at most `max_corners` corners `[N, 1, 2]` (x, y) of a grey image `[h, w]` within `mask`, `min_distance` pixels apart."""
    corners = cv2.goodFeaturesToTrack(image, max_corners, 0.01, min_distance, mask=mask)
    return np.zeros((0, 1, 2), np.float32) if corners is None else np.asarray(corners, np.float32)


def track_points(
    previous_image: UInt8Array, current_image: UInt8Array, points: Float32Array, guess: Float32Array
) -> tuple[Float32Array, BoolArray]:
    """Track points `[N, 1, 2]` from an initial guess: their new positions, and whether they were found `[N]` (pyramidal Lucas-Kanade)."""
    flags = cv2.OPTFLOW_USE_INITIAL_FLOW
    positions, status, _ = cv2.calcOpticalFlowPyrLK(
        previous_image, current_image, points, guess.copy(), winSize=(13, 13), maxLevel=3, flags=flags
    )
    return np.asarray(positions, np.float32), np.asarray(status)[:, 0] > 0


def build_pixel_grid(height: int, width: int) -> Float32Array:
    """Build the grid `[h, w, 2]` of each pixel's x and y."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def sample_image(
    image: npt.NDArray[np.float32 | np.uint8], positions: npt.NDArray[np.floating], interpolation: int = cv2.INTER_LINEAR
) -> Float32Array:
    """Sample `image` at `positions` `[h, w, 2]` (x, y) as floats; beyond the edge its border is repeated."""
    x, y = (np.ascontiguousarray(positions[..., axis], np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(image.astype(np.float32), x, y, interpolation, borderMode=cv2.BORDER_REPLICATE), np.float32)


def resize_motion(motion: Float32Array, height: int, width: int) -> Float32Array:
    """Resize a motion field `[h, w, 2]` to another size and scale it to that size's pixels (pixel centres at half-integers)."""
    ratio = np.array([width / motion.shape[1], height / motion.shape[0]], np.float32)
    return np.asarray(cv2.resize(motion, (width, height), interpolation=cv2.INTER_LINEAR) * ratio, np.float32)


def resize_positions(positions: Float32Array, height: int, width: int) -> Float32Array:
    """Resize positions `[h, w, 2]` in a frame of the same size, so that they hold for both frames at another size."""
    return build_pixel_grid(height, width) + resize_motion(positions - build_pixel_grid(*positions.shape[:2]), height, width)


def _fill_unknown(values: Float32Array, known: Float32Array, sigma: float) -> Float32Array:
    """Fill values where `known` is 0 with the Gaussian-weighted mean of the known values around."""
    if known.all():
        return values
    # The mean is smooth, so a quarter of the resolution suffices and is faster.
    size, quarter = known.shape[::-1], (max(1, known.shape[1] // 4), max(1, known.shape[0] // 4))
    weight = cv2.GaussianBlur(cv2.resize(known, quarter, interpolation=cv2.INTER_AREA), (0, 0), sigma / 4)
    total = cv2.GaussianBlur(cv2.resize(values * known[..., None], quarter, interpolation=cv2.INTER_AREA), (0, 0), sigma / 4)
    mean = cv2.resize(total / np.maximum(weight, 1e-6)[..., None], size, interpolation=cv2.INTER_LINEAR)
    usable = (known > 0) | (cv2.resize(weight, size, interpolation=cv2.INTER_LINEAR) < 1e-3)
    return np.asarray(np.where(usable[..., None], values, mean), dtype=np.float32)
