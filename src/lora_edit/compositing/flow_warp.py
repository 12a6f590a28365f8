"""The preview without a model, and the classical baseline: the edited first frame carried along by optical flow."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.types import EditMask

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

FLOW_ROWS = (256, 480)
"""Rows of the pictures that the flow is computed on: DIS is poor on smaller ones, slow and no better on larger ones."""

FINE_ROWS = 320
"""Up to this height the flow is refined down to single pixels, which larger pictures don't need."""

CONSISTENT = (1.0, 0.02)
"""Forward and backward flow may disagree by this many flow pixels plus this share of their length."""


def flow_warp(source: torch.Tensor, edited_first: torch.Tensor, mask: EditMask) -> torch.Tensor:
    """The edited first frame `[H, W, 3]` warped along the source's motion, inside the mask; the source outside.

    `source` is `[T, H, W, 3]` uint8. DIS flow between neighbouring frames is chained into a map from every frame back to the
    first one; where forward and backward flow disagree (something was covered or uncovered) the surrounding motion is used.
    Time is linear in the frames, memory beyond the result is that of a few frames. Returns `[T, H, W, 3]` uint8.
    """
    height, width = source.shape[1:3]
    scale = min(max(height, FLOW_ROWS[0]), FLOW_ROWS[1]) / height
    small = (round(width * scale), round(height * scale))
    flow = _dis(small[1])
    edited = np.ascontiguousarray(edited_first.numpy())
    out = source.clone()
    out[0][mask.frames[0]] = edited_first[mask.frames[0]]
    # to_first[y, x] is where the pixel (x, y) of the current frame lies in the first one, in flow pixels.
    to_first = _grid(small)
    before = _grey(source[0], small)
    for index in range(1, len(source)):
        now = _grey(source[index], small)
        to_first = _remap(to_first, _grid(small) + _back_flow(flow, now, before))
        before = now
        inside = mask.frames[index]
        if inside.any():
            warped = _remap(edited, _enlarge(to_first, (width, height)))
            out[index][inside] = torch.from_numpy(warped)[inside]
    return out


def _dis(rows: int) -> cv2.DISOpticalFlow:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0 if rows <= FINE_ROWS else 1)
    return flow


def _grey(frame: torch.Tensor, size: tuple[int, int]) -> Bytes:
    grey = cv2.cvtColor(np.ascontiguousarray(frame.numpy()), cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_CUBIC if size[1] > grey.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(grey, size, interpolation=method), dtype=np.uint8)


def _grid(size: tuple[int, int]) -> Floats:
    """`[h, w, 2]`: each pixel's own x and y."""
    return np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1).astype(np.float32)


def _remap(picture: Floats | Bytes, positions: Floats) -> Floats:
    return np.asarray(cv2.remap(picture, positions[..., 0], positions[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _enlarge(to_first: Floats, size: tuple[int, int]) -> Floats:
    """The map at the frames' own size and in their pixels (pixel centres at half-integers)."""
    ratio = np.array([size[0] / to_first.shape[1], size[1] / to_first.shape[0]], np.float32)
    moved = cv2.resize(to_first - _grid((to_first.shape[1], to_first.shape[0])), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(_grid(size) + moved * ratio, dtype=np.float32)


def _back_flow(flow: cv2.DISOpticalFlow, now: Bytes, before: Bytes) -> Floats:
    """Motion `[h, w, 2]` from each pixel of `now` to `before`, unreliable places filled from around them."""
    back = np.asarray(flow.calc(now, before, None), dtype=np.float32)  # type: ignore[call-overload]
    forth = np.asarray(flow.calc(before, now, None), dtype=np.float32)  # type: ignore[call-overload]
    size = (now.shape[1], now.shape[0])
    returned = _remap(forth, _grid(size) + back)
    length = np.hypot(*np.moveaxis(back, -1, 0)) + np.hypot(*np.moveaxis(returned, -1, 0))
    agrees = np.hypot(*np.moveaxis(back + returned, -1, 0)) <= CONSISTENT[0] + CONSISTENT[1] * length
    return _fill(back, np.asarray(agrees, dtype=np.float32), sigma=now.shape[0] / 32)


def _fill(values: Floats, known: Floats, sigma: float) -> Floats:
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
