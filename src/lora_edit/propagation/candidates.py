"""Candidate images of an edited frame, each with the evidence for it.

Each candidate renders the frame under one assumption about the edit:

| candidate | the edit is | reads the hidden source |
|---|---|---|
| flow, chain, layer | pixels that move with the source: densely, by flow between frames, or as one object | no (its motion only) |
| pasted flow, layer, support | the changed pixels over the source, moved likewise or with the supporting object | around them |
| pasted region | the same, moved with the marked region: for objects that are absent from the source | around them |
| lit flow, chain, layer | flow, chain and layer with the source's light and detail where the edit keeps its structure | where kept |
| colours | a smooth function of the source's colours | where the function explains the edit |
| source | the unedited source | where frame 0 was not edited |
| still | pixels that stay with the camera | no |
| plate | the background: the source's pixels from frames in which they are outside the region | no |

A key frame is a frame that a person edited: frame 0 and the references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import cv2
import numpy as np
import numpy.typing as npt

from lora_edit.propagation.change_detection import extract_layer, find_changed_pixels
from lora_edit.propagation.clustered_colour_map import ClusteredColourMap, fit_colour_map
from lora_edit.propagation.images import FloatImage, blur, compute_affine_positions, fit_local_gain, is_outside
from lora_edit.propagation.motion import Motion
from lora_edit.propagation.region_motion import estimate_region_motion, measure_relative_motion
from lora_edit.video.flow import sample_image

CANDIDATE_NAMES = (
    "flow", "lit flow", "chain", "lit chain", "layer", "lit layer", "colours", "source", "still", "plate", "pasted flow", "pasted layer",
    "pasted support", "pasted region",
)  # fmt: skip
EVIDENCE_CHANNELS = 99
"""Six channels for each candidate, and fifteen that are common to all."""
SOURCE_READING_CANDIDATES = (1, 3, 5, 6, 7, 10, 11, 12, 13)
"""Indices of the candidates that read the source inside the region."""

CHANGE_SCALE = 16.0
"""Scale of the blurred change, in levels of 255, in the edited share 1 - exp(-(change / scale)^2) of a pixel."""
MIN_EXPLAINED_SHARE = 0.5
"""Smallest share of the edit's change that a colour map must explain to be allowed to read the source."""
MAX_LIGHT_RATIO = 1.4
"""Largest ratio of light between a key frame and another frame."""


DrawCandidate = Callable[[], FloatImage]
"""Function that draws one candidate `[H, W, 3]` on demand."""


class KeyFrame:
    """An edited frame with its source frame, both `[H, W, 3]` float32 in levels, and the edit's properties in `region` `[H, W]` bool."""

    def __init__(self, edited: FloatImage, source: FloatImage, region: npt.NDArray[np.bool_]) -> None:
        self.edited, self.source, self.region = edited, source, region
        self.pixel_scale = max(1.0, min(source.shape[:2]) / 128)
        self._change = np.abs(blur(edited - source, self.pixel_scale)).max(-1)
        self.edited_share = 1 - np.exp(-((self._change / CHANGE_SCALE) ** 2))
        self._weight = self.edited_share * region
        self.gain, self._gain_residual = fit_local_gain(source, edited, 3 * self.pixel_scale, 30.0)
        self.colour_map: ClusteredColourMap = fit_colour_map(source, edited, np.asarray(self._weight, np.float32))

    @cached_property
    def layer(self) -> FloatImage:
        """The changed pixels with a soft edge: premultiplied colours and opacity in [0, 1], `[H, W, 4]`."""
        source, edited = (np.asarray(np.round(each), np.uint8) for each in (self.source, self.edited))
        return extract_layer(edited, find_changed_pixels(source, edited, self.region))

    # Only evidence needs these; they are never computed at full size.
    @cached_property
    def changed_share(self) -> float:
        """The share of the region that the edit changes."""
        return float(self._weight.sum() / max(self.region.sum(), 1))

    @cached_property
    def edge_share(self) -> float:
        """The strength of the edges around the change, relative to the source (`_measure_edge_share`)."""
        return _measure_edge_share(self.edited, self.source, np.asarray(self._weight > 0.5, np.uint8))

    @cached_property
    def analysis(self) -> FloatImage:
        """`[H, W, 3]` in levels: the edit's change, the residual of a local regression, and the residual of the colour map."""
        mapped, _ = self.colour_map(self.source)
        missed = np.abs(blur(mapped - self.edited, self.pixel_scale)).max(-1)
        return np.stack([self._change, self._gain_residual, missed], -1).astype(np.float32)


def _measure_edge_share(edited: FloatImage, source: FloatImage, changed_mask: npt.NDArray[np.uint8]) -> float:
    """Measure edge strength along the border of `changed_mask` in the edited frame, relative to the source, in [0, 2].

    It is near 0 where the edit removed an object, and above 1 where it added one.
    """
    ring = (cv2.dilate(changed_mask, np.ones((5, 5), np.uint8)) > 0) & (cv2.erode(changed_mask, np.ones((5, 5), np.uint8)) == 0)
    gradients = [np.abs(cv2.Laplacian(cv2.GaussianBlur(picture, (0, 0), 1.0), cv2.CV_32F)).mean(-1) for picture in (edited, source)]
    edited_strength, source_strength = (float(gradient[ring].mean()) if ring.any() else 1.0 for gradient in gradients)
    return float(np.clip(edited_strength / max(source_strength, 0.5), 0, 2))


@dataclass(frozen=True)
class CandidateSet:
    """All candidates of one frame.

    `pictures` `[K, H, W, 3]` are in levels; `allowed_mask` `[K]` marks the candidates that may be used; `evidence` `[C, H, W]` is the
    mixture network's input; `unedited_share` `[H, W]` is the certainty, in [0, 1], that the edit left a pixel unchanged.
    """

    pictures: FloatImage
    allowed_mask: npt.NDArray[np.bool_]
    evidence: FloatImage
    unedited_share: FloatImage


def build_candidates(
    key_frame: KeyFrame,
    frame: FloatImage,
    given_mask: FloatImage,
    motion: Motion,
    background: tuple[FloatImage, FloatImage],
    removal_share: float,
    time_distance: float,
    allow_source: bool = True,
) -> CandidateSet:
    """Build every candidate of `frame` `[H, W, 3]` from `key_frame`.

    - `given_mask` `[H, W]` is 1 outside the region.
    - `motion` is at the frame's size.
    - `background` is the background image `[H, W, 3]` with its validity `[H, W]`.
    - `removal_share` in [0, 1] is how closely the edit matches the background (`BackgroundPlate.measure_removal`).
    - `time_distance` in [0, 1] is the distance to the key frame.
    - Without `allow_source`, candidates that read the hidden source are not allowed.
    """
    region_matrix = estimate_region_motion(key_frame.region, given_mask < 0.5, motion)
    warped_key_frames = [
        _WarpedKeyFrame(key_frame, frame, field) for field in _build_position_fields(motion, region_matrix, *frame.shape[:2])
    ]
    mapped, colour_error = key_frame.colour_map(frame)
    draw_functions = _build_draw_functions(key_frame, frame, given_mask, motion, background[0], warped_key_frames, lambda: mapped)
    pictures = np.stack([draw() for draw in draw_functions]).astype(np.float32)
    allowed = np.ones(len(CANDIDATE_NAMES), bool)
    allowed[CANDIDATE_NAMES.index("colours")] = key_frame.colour_map.explained_share >= MIN_EXPLAINED_SHARE
    allowed[list(SOURCE_READING_CANDIDATES)] &= allow_source
    frame_features = removal_share, time_distance, *measure_relative_motion(motion, region_matrix, key_frame.region)
    evidence = _build_evidence(
        key_frame, frame, pictures, allowed, warped_key_frames, motion, colour_error, given_mask, background[1], frame_features
    )
    return CandidateSet(pictures, allowed, evidence, _estimate_unedited_share(warped_key_frames[0], motion.confidence))


MIN_CONFIDENCE = 0.4
"""Smallest confidence of a position in the key frame at which the frame's pixel can count as unedited."""
EDIT_TOLERANCE, SOURCE_TOLERANCE = 6.0, 12.0
"""Levels of 255 by which the edit may change such a pixel, and by which the source may differ; each reduces the certainty to 1 / e."""


def _estimate_unedited_share(flow: _WarpedKeyFrame, confidence: FloatImage) -> FloatImage:
    """Estimate, per pixel `[H, W]` in [0, 1], the certainty that the key frame shows it too and that the edit left it unchanged there."""
    visibility = np.clip((confidence * (1 - flow.outside_mask) - MIN_CONFIDENCE) / (1 - MIN_CONFIDENCE), 0, 1)
    change, residual = flow.analysis[..., 0], flow.residuals[0]
    return np.asarray(visibility * np.exp(-((change / EDIT_TOLERANCE) ** 2)) * np.exp(-((residual / SOURCE_TOLERANCE) ** 2)), np.float32)


MIN_SHARE = 0.02
"""Candidates whose share is nowhere larger are not drawn at full size."""


def mix_candidates(
    key_frame: KeyFrame,
    frame: FloatImage,
    given_mask: FloatImage,
    motion: Motion,
    background: tuple[FloatImage, FloatImage],
    shares: FloatImage,
) -> FloatImage:
    """Mix the candidates by `shares` `[K, H, W]` into a frame `[H, W, 3]`, without drawing those with negligible shares."""
    used = shares.reshape(len(shares), -1).max(1) > MIN_SHARE
    position_fields = _build_position_fields(motion, estimate_region_motion(key_frame.region, given_mask < 0.5, motion), *frame.shape[:2])
    warped_key_frames = [_WarpedKeyFrame(key_frame, frame, field) for field in position_fields]
    draw_functions = _build_draw_functions(
        key_frame, frame, given_mask, motion, background[0], warped_key_frames, lambda: key_frame.colour_map(frame)[0]
    )
    mixed, total = np.zeros_like(frame), np.full(frame.shape[:2], 1e-6, np.float32)
    for draw, share, is_used in zip(draw_functions, shares, used, strict=True):
        if is_used:
            mixed += share[..., None] * draw()
            total += share
    return mixed / total[..., None]


def _build_position_fields(motion: Motion, region_matrix: FloatImage, height: int, width: int) -> list[FloatImage]:
    """Build positions `[H, W, 2]` in the key frame by dense motion, chained flow, and object, camera, support and region motion."""
    affine = [
        compute_affine_positions(matrix, height, width)
        for matrix in (motion.object_matrix, motion.camera_matrix, motion.support_matrix, region_matrix)
    ]
    return [motion.positions, motion.chained_positions, *affine]


def _build_draw_functions(
    key_frame: KeyFrame,
    frame: FloatImage,
    given_mask: FloatImage,
    motion: Motion,
    background: FloatImage,
    warped_key_frames: Sequence[_WarpedKeyFrame],
    draw_colours: DrawCandidate,
) -> list[DrawCandidate]:
    """Build one draw function per candidate, in the order of `CANDIDATE_NAMES`."""
    flow, chain, layer, still, supporting, region = warped_key_frames
    light = _estimate_light_ratio(frame, flow.source, given_mask * motion.confidence, key_frame.pixel_scale)

    def plain(each: _WarpedKeyFrame) -> FloatImage:
        return np.clip(each.edited * light, 0, 255)

    def lit(each: _WarpedKeyFrame) -> FloatImage:
        return np.clip(each.edited + each.gain * (frame - each.source), 0, 255)

    def pasted(each: _WarpedKeyFrame) -> FloatImage:
        return np.clip(each.layer[..., :3] * light + (1 - each.layer[..., 3:]) * frame, 0, 255)

    by_motion = [partial(draw, each) for each in (flow, chain, layer) for draw in (plain, lit)]
    others: list[DrawCandidate] = [lambda: np.clip(draw_colours(), 0, 255), lambda: frame, partial(plain, still), lambda: background]
    return [*by_motion, *others, *(partial(pasted, each) for each in (flow, layer, supporting, region))]


class _WarpedKeyFrame:
    """A key frame sampled at the positions `[H, W, 2]` of another frame's pixels, evaluated lazily."""

    def __init__(self, key_frame: KeyFrame, frame: FloatImage, positions: FloatImage) -> None:
        self.key_frame, self.frame, self.positions = key_frame, frame, positions

    @cached_property
    def source(self) -> FloatImage:
        """The warped source, `[H, W, 3]`."""
        return sample_image(self.key_frame.source, self.positions)

    @cached_property
    def edited(self) -> FloatImage:
        """The warped edited frame, `[H, W, 3]`."""
        return sample_image(self.key_frame.edited, self.positions)

    @cached_property
    def gain(self) -> FloatImage:
        """The warped gain: how strongly the edit keeps the source's structure, `[H, W, 3]`."""
        return sample_image(self.key_frame.gain, self.positions)

    @cached_property
    def layer(self) -> FloatImage:
        """The warped layer: premultiplied colours and opacity, `[H, W, 4]`."""
        return sample_image(self.key_frame.layer, self.positions)

    @cached_property
    def residuals(self) -> tuple[FloatImage, FloatImage]:
        """Differences between the warped source and the frame, in colour and in fine detail, `[H, W]` each."""
        scale, difference = self.key_frame.pixel_scale, self.source - self.frame
        colour_residual = np.abs(blur(difference, 1.5 * scale)).max(-1)
        return colour_residual, blur(np.abs(difference - blur(difference, 3 * scale)).mean(-1), 1.5 * scale)

    @property
    def outside_mask(self) -> npt.NDArray[np.bool_]:
        """Mask `[H, W]` of the positions outside the key frame."""
        return is_outside(self.positions, *self.key_frame.source.shape[:2])

    @cached_property
    def analysis(self) -> FloatImage:
        """The warped `KeyFrame.analysis`, `[H, W, 3]`."""
        return sample_image(self.key_frame.analysis, self.positions)


def _estimate_light_ratio(frame: FloatImage, warped_source: FloatImage, weight: FloatImage, pixel_scale: float) -> FloatImage:
    """Estimate the ratio `[H, W, 1]` of the frame's light to the key frame's, from pixels that are given in both."""
    sigma = 16 * pixel_scale
    ratio = (blur(frame.mean(-1) * weight, sigma) + 2) / (blur(warped_source.mean(-1) * weight, sigma) + 2)
    if float(weight.mean()) < 0.02:
        return np.ones((*frame.shape[:2], 1), np.float32)
    return np.asarray(np.clip(ratio, 1 / MAX_LIGHT_RATIO, MAX_LIGHT_RATIO)[..., None], np.float32)


def _fill_from_surroundings(values: FloatImage, given_mask: FloatImage, pixel_scale: float) -> FloatImage:
    """Replace values `[H, W]` of hidden pixels by the mean of the given pixels around them."""
    mean = blur(values * given_mask, 6 * pixel_scale) / (blur(given_mask, 6 * pixel_scale) + 0.02)
    return np.asarray(np.where(given_mask > 0.5, values, mean), np.float32)


def _build_evidence(
    key_frame: KeyFrame,
    frame: FloatImage,
    pictures: FloatImage,
    allowed_mask: npt.NDArray[np.bool_],
    warped_key_frames: list[_WarpedKeyFrame],
    motion: Motion,
    colour_error: FloatImage,
    given_mask: FloatImage,
    background_valid: FloatImage,
    frame_features: Sequence[float],
) -> FloatImage:
    """Build evidence `[EVIDENCE_CHANNELS, H, W]`, each about 0 to 1: six channels per candidate, then the common ones."""
    height, width = given_mask.shape
    zero, one = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    flow, chain, layer, camera, supporting, region = [(each.outside_mask, each.analysis, *each.residuals) for each in warped_key_frames]
    # The background cannot be compared with the hidden object in front of it, only with the given pixels around it.
    still = (
        camera[0],
        camera[1],
        _fill_from_surroundings(camera[2], given_mask, key_frame.pixel_scale),
        _fill_from_surroundings(camera[3], given_mask, key_frame.pixel_scale),
    )
    confidence, chained = motion.confidence * (1 - flow[0]), motion.chained_confidence * (1 - chain[0])
    object_confidence = motion.object_confidence * (1 - layer[0])
    channels_by_candidate = (
        (confidence, flow), (confidence, flow), (chained, chain), (chained, chain), (object_confidence, layer), (object_confidence, layer),
        (one * key_frame.colour_map.explained_share, flow), (confidence, flow), (1.0 - still[0], still), (background_valid, still),
        (confidence, flow), (object_confidence, layer),
        (motion.support_confidence * (1 - supporting[0]), supporting), (1.0 - region[0], region),
    )  # fmt: skip
    opacities = {
        f"pasted {name}": 48 * each.layer[..., 3]
        for name, each in (
            ("flow", warped_key_frames[0]),
            ("layer", warped_key_frames[2]),
            ("support", warped_key_frames[4]),
            ("region", warped_key_frames[5]),
        )
    }
    centre = np.median(pictures[allowed_mask], axis=0)
    rows = []
    for number, picture in enumerate(pictures):
        weight, (_, analysis, colour_residual, detail_residual) = channels_by_candidate[number]
        change, gain_residual, map_residual = np.moveaxis(analysis, -1, 0)
        specific_residuals = {"colours": colour_error, "source": map_residual} | opacities
        specific_residual = specific_residuals.get(CANDIDATE_NAMES[number], gain_residual)
        deviation = np.abs(blur(picture - centre, key_frame.pixel_scale)).mean(-1)
        channels = (weight * one, colour_residual / 64, detail_residual / 32, change / 64, specific_residual / 48, deviation / 64)
        rows += [c if allowed_mask[number] else zero for c in channels]
    border_distance = cv2.distanceTransform((given_mask < 0.5).astype(np.uint8), cv2.DIST_L2, 3) / (16 * key_frame.pixel_scale)
    frame_values = (
        *frame_features,
        key_frame.colour_map.explained_share,
        key_frame.changed_share,
        key_frame.edge_share,
        motion.object_confidence,
        motion.support_confidence,
    )
    rows += [given_mask, np.tanh(border_distance), *(value * one for value in frame_values)]
    for a, b in ((0, 2), (0, 4), (1, 6)):
        rows.append(np.abs(pictures[a] - pictures[b]).mean(-1) / 64 if allowed_mask[a] and allowed_mask[b] else zero)
    return np.clip(np.stack([np.asarray(r, np.float32) for r in rows]), 0, 3)
