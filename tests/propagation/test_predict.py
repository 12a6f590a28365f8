"""Tests of the prediction from key frames: motion, candidates and mixture."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lora_edit.propagation import predict as module
from lora_edit.propagation.background_plate import BackgroundPlate
from lora_edit.propagation.candidates import CANDIDATE_NAMES, SOURCE_READING_CANDIDATES, KeyFrame, build_candidates
from lora_edit.propagation.images import compute_affine_positions
from lora_edit.propagation.mixture import predict_shares
from lora_edit.propagation.motion import IDENTITY, Motion, estimate_motion
from lora_edit.propagation.predict import Propagation, scale_affine
from lora_edit.propagation.region_motion import estimate_region_motion
from lora_edit.propagation.region_parts import split_region
from lora_edit.video.flow import build_pixel_grid, resize_positions
from lora_edit.video.supporting_object import find_supporting_object

HEIGHT, WIDTH, COUNT = 72, 96, 6


def smooth(seed: int, height: int, width: int, cells: int = 9) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(30, 225, (cells, cells, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def scene(edited: bool, colours: np.ndarray | None = None) -> np.ndarray:
    """Return a patterned square that moves right over a still background, `[T, H, W, 3]` uint8, in other colours if `edited`."""
    background, pattern = smooth(1, HEIGHT, WIDTH), smooth(2, 24, 24, 5) if colours is None else colours
    frames = []
    for t in range(COUNT):
        frame = background.copy()
        frame[24:48, 20 + 4 * t : 44 + 4 * t] = pattern[..., [2, 0, 1]] * 0.8 + 40 if edited else pattern
        frames.append(frame.round().astype(np.uint8))
    return np.stack(frames)


def region() -> np.ndarray:
    out = np.zeros((COUNT, HEIGHT, WIDTH), bool)
    for t in range(COUNT):
        out[t, 18:54, 14 + 4 * t : 50 + 4 * t] = True
    return out


def true_motion(t: int) -> Motion:
    """Return the square's motion inside it, and none elsewhere."""
    matrix = IDENTITY.copy()
    matrix[0, 2] = -4.0 * t
    inside = np.zeros((HEIGHT, WIDTH, 1), bool)
    inside[24:48, 20 + 4 * t : 44 + 4 * t] = True
    positions = np.where(inside, compute_affine_positions(matrix, HEIGHT, WIDTH), compute_affine_positions(IDENTITY, HEIGHT, WIDTH))
    confidence = np.ones((HEIGHT, WIDTH), np.float32)
    return Motion(positions, confidence, positions, confidence, matrix, 1.0, IDENTITY, IDENTITY, 0.0)


@pytest.fixture
def known_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace motion estimation by the known motion."""
    monkeypatch.setattr(module, "estimate_motion", lambda source, edited, region: (true_motion(t) for t in range(len(source))))


def propagation(source: np.ndarray, pictures: dict[int, np.ndarray]) -> Propagation:
    return Propagation(torch.from_numpy(source), {n: torch.from_numpy(p) for n, p in pictures.items()}, torch.from_numpy(region()))


def mean_difference(frame: np.ndarray, truth: np.ndarray, t: int) -> float:
    """Return the mean absolute difference, in levels, between a frame and the truth inside the region."""
    return float(np.abs(frame.astype(float) - truth)[region()[t]].mean())


@pytest.mark.usefixtures("known_motion")
def test_recoloured_object_keeps_its_colours_and_the_source_is_kept_outside() -> None:
    source, truth = scene(False), scene(True)
    frames = list(propagation(source, {0: truth[0]}).predict_frames())
    assert np.array_equal(frames[0].frame[region()[0]], truth[0][region()[0]])
    for t, predicted in enumerate(frames):
        assert np.array_equal(predicted.frame[~region()[t]], source[t][~region()[t]])
        assert mean_difference(predicted.frame, truth[t], t) < 0.35 * mean_difference(source[t], truth[t], t)


@pytest.mark.usefixtures("known_motion")
def test_unedited_pixels_of_the_same_colour_are_not_recoloured() -> None:
    """A background patch has the object's colours, which the edit changes on the object only."""
    source, truth = scene(False), scene(True)
    for clip in (source, truth):
        clip[:, 24:48, 60:84] = smooth(2, 24, 24, 5).round()
    full_region = np.ones_like(region())
    motion = replace(true_motion(2), confidence=np.ones((HEIGHT, WIDTH), np.float32))
    key = KeyFrame(truth[0].astype(np.float32), source[0].astype(np.float32), full_region[0])
    no_background = np.zeros((HEIGHT, WIDTH, 3), np.float32), np.zeros((HEIGHT, WIDTH), np.float32)
    candidates = build_candidates(key, source[2].astype(np.float32), 1 - full_region[2].astype(np.float32), motion, no_background, 0.5, 0.1)
    patch, square = np.s_[28:44, 64:80], np.s_[28:44, 32:48]
    assert candidates.unedited_share[patch].min() > 0.8 and candidates.unedited_share[square].max() < 0.1
    shares, _ = predict_shares(candidates)
    assert shares[CANDIDATE_NAMES.index("colours")][patch].max() < 0.2


@pytest.mark.usefixtures("known_motion")
def test_later_key_frame_is_kept_and_can_be_excluded() -> None:
    source, truth = scene(False), scene(True)
    two_keys = propagation(source, {0: truth[0], 4: truth[4]})
    assert np.array_equal(two_keys.predict_frame(4).frame[region()[4]], truth[4][region()[4]])
    assert two_keys.predict_frame(4).error.max() <= two_keys.predict_frame(4, excluded_key=4).error.max()
    assert mean_difference(two_keys.predict_frame(4, excluded_key=4).frame, truth[4], 4) > 0


@pytest.mark.usefixtures("known_motion")
def test_training_candidates_do_not_read_the_hidden_source() -> None:
    """With the motion fixed, other hidden pixels give bit-identical pictures in every candidate that training may use."""
    source = scene(False)
    other = source.copy()
    other[1:][region()[1:]] = np.random.default_rng(0).integers(0, 255, (int(region()[1:].sum()), 3))
    pictures = []
    for clip in (source, other):
        key = KeyFrame(clip[0].astype(np.float32), clip[0].astype(np.float32), region()[0])
        plate = BackgroundPlate(clip, region(), [IDENTITY] * COUNT)
        frame, given_mask = clip[3].astype(np.float32), 1 - region()[3].astype(np.float32)
        candidates = build_candidates(
            key, frame, given_mask, true_motion(3), plate.render(IDENTITY, HEIGHT, WIDTH), 0.5, 0.1, allow_source=False
        )
        assert not candidates.allowed_mask[list(SOURCE_READING_CANDIDATES)].any()
        pictures.append(candidates.pictures[candidates.allowed_mask][:, region()[3]])
    assert np.array_equal(pictures[0], pictures[1])


@pytest.mark.usefixtures("known_motion")
def test_source_is_predicted_from_its_first_frame() -> None:
    source, truth = scene(False), scene(True)
    frames = list(propagation(source, {0: truth[0]}).predict_source_frames())
    assert len(frames) == COUNT
    assert mean_difference(frames[4].frame, source[4], 4) < 0.4 * mean_difference(source[0], source[4], 4)


def test_motion_of_a_moving_object_is_estimated() -> None:
    source, truth = scene(False), scene(True)
    motions = list(estimate_motion(source, truth[0], region()))
    assert len(motions) == COUNT
    middle = motions[4].positions[30:42, 44:52].reshape(-1, 2).mean(0)
    assert middle == pytest.approx([47.5 - 16, 35.5], abs=1.5)
    assert motions[4].camera_matrix == pytest.approx(IDENTITY, abs=0.2)


def test_added_object_moves_with_its_supporting_object() -> None:
    """An object that hides only still background follows the square below it; the pasted candidate keeps the source around it."""
    source = scene(False)
    edited = source[0].copy()
    edited[16:24, 26:38] = (250, 20, 20)
    masks = np.zeros((COUNT, HEIGHT, WIDTH), bool)
    for t in range(COUNT):
        masks[t, 10:26, 22 + 4 * t : 42 + 4 * t] = True
    motions = list(estimate_motion(source, edited, masks))
    assert motions[-1].support_confidence > 0.5
    assert motions[-1].support_matrix == pytest.approx(np.array([[1, 0, -20], [0, 1, 0]]), abs=0.6)
    key, last = KeyFrame(edited.astype(np.float32), source[0].astype(np.float32), masks[0]), source[-1].astype(np.float32)
    no_background = np.zeros((HEIGHT, WIDTH, 3), np.float32), np.zeros((HEIGHT, WIDTH), np.float32)
    pasted = build_candidates(key, last, 1 - masks[-1].astype(np.float32), motions[-1], no_background, 0.5, 1.0).pictures[
        CANDIDATE_NAMES.index("pasted support")
    ]
    assert np.abs(pasted[18:22, 49:55] - (250, 20, 20)).max() < 12
    assert np.abs(pasted - last)[30:].max() < 1


def test_still_scene_has_no_supporting_object() -> None:
    still = [(build_pixel_grid(HEIGHT, WIDTH), np.ones((HEIGHT, WIDTH), np.float32))] * 4
    changed = np.zeros((HEIGHT, WIDTH), bool)
    changed[20:40, 20:40] = True
    assert find_supporting_object(still, [IDENTITY] * 4, changed) is None
    assert find_supporting_object(still, [IDENTITY] * 4, np.zeros_like(changed)) is None


def test_supporting_object_is_the_fastest_touching_one() -> None:
    """Background at another depth drifts by one pixel; the object below the edit moves by eight, as does a separate one nearby."""
    positions = build_pixel_grid(HEIGHT, WIDTH)
    positions[:, :48, 0] += 1
    for columns in (slice(20, 36), slice(50, 60)):
        positions[36:60, columns, 0] += 8
    changed = np.zeros((HEIGHT, WIDTH), bool)
    changed[20:38, 20:40] = True
    matches = [(positions, np.ones((HEIGHT, WIDTH), np.float32))] * 3
    mask = find_supporting_object(matches, [IDENTITY] * 3, changed)
    assert mask is not None and mask[40:50, 30:42].all()  # in the key frame, eight pixels to the right
    assert not mask[:34].any() and not mask[:, 56:].any()


def test_separate_objects_stay_separate_parts() -> None:
    masks, changed = np.zeros((4, 40, 60), bool), np.zeros((40, 60), bool)
    for t in range(4):  # two objects that touch in the last frame, and a speck
        masks[t, 5:15, 5 + 6 * t : 15 + 6 * t], masks[t, 5:15, 33:43], masks[t, 30:32, 30:32] = True, True, True
    changed[5:15, 5:15] = changed[6:14, 34:42] = True
    first, second = split_region(masks, changed)
    assert np.array_equal(first | second, masks) and not (first & second).any()
    assert first[3, 5:15, 23:29].all() and second[3, 5:15, 34:43].all()
    assert split_region(masks[:, :, :20], changed[:, :20])[0].sum() == masks[:, :, :20].sum()


def test_region_follows_a_known_motion_or_its_box() -> None:
    """The border cuts the later box, so only its left, top and bottom sides are compared."""
    key, later = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    key[4:10, 5:15], later[7:13, 25:30] = True, True
    still = true_motion(0)
    assert estimate_region_motion(key, later, still)[:, 2].tolist() == [-20, -3]
    assert estimate_region_motion(key, np.zeros_like(later), still)[:, 2].tolist() == [0, 0]
    zoom = np.array([[1.1, 0, -22.5], [0, 1, -3]], np.float32)
    assert estimate_region_motion(key, later, replace(still, camera_matrix=zoom)) == pytest.approx(zoom)
    assert estimate_region_motion(key, later, replace(still, object_matrix=zoom)) == pytest.approx(zoom)
    assert estimate_region_motion(key, later, replace(still, object_matrix=zoom, object_confidence=0.0))[:, 2].tolist() == [-20, -3]
    close = zoom + np.array([[0, 0, 0.5], [0, 0, 0]], np.float32)
    both = replace(still, object_matrix=close, support_matrix=zoom, support_confidence=np.float32(0.9))
    assert estimate_region_motion(key, later, both) == pytest.approx(zoom)


def test_background_plate_reads_frames_that_show_the_background() -> None:
    source = scene(False)
    plate = BackgroundPlate(source, region(), [IDENTITY] * COUNT)
    picture, valid = plate.render(IDENTITY, HEIGHT, WIDTH)
    revealed = valid > 0.9
    assert revealed[30:40, 20:28].all()
    assert np.abs(picture - smooth(1, HEIGHT, WIDTH))[revealed].mean() < 1
    changed = np.zeros((HEIGHT, WIDTH), np.float32)
    changed[24:48, 20:28] = 1
    assert plate.measure_removal(smooth(1, HEIGHT, WIDTH), changed) > 0.9
    assert plate.measure_removal(smooth(5, HEIGHT, WIDTH), changed) < 0.4


def test_positions_and_affine_maps_scale_consistently() -> None:
    matrix = np.array([[1.1, 0.2, 3.0], [-0.1, 0.9, -5.0]], np.float32)
    small = compute_affine_positions(matrix, 40, 60)
    large = compute_affine_positions(scale_affine(matrix, np.array([4, 3], np.float32)), 120, 240)
    resized = resize_positions(small, 120, 240)
    np.testing.assert_allclose(resized[6:-6, 8:-8], large[6:-6, 8:-8], atol=1e-2)


def test_candidate_names_are_unique() -> None:
    assert len(set(CANDIDATE_NAMES)) == len(CANDIDATE_NAMES)
    assert {CANDIDATE_NAMES[n] for n in SOURCE_READING_CANDIDATES} == {
        "lit flow", "lit chain", "lit layer", "colours", "source", "pasted flow", "pasted layer", "pasted support", "pasted region",
    }  # fmt: skip
