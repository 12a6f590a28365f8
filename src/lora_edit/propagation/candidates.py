"""What an edit may be, told as pictures: each explanation says what a frame shows, and how far there is reason to believe it.

| explanation | the edit is | reads the hidden source |
|---|---|---|
| flow, chain, layer | pixels that move with the source: densely, by flow between frames, or as one object | no (its motion only) |
| pasted flow, layer, support | what the edit changed, cut out and laid over the source, moved so or with what it sits on | around it |
| pasted region | the same, moved as the region was: a thing that only the edit knows goes where the person marks it | around it |
| lit flow, chain, layer | the same, with the source's changes of light and detail where the edit keeps its structure | where kept |
| colours | a smooth function of the source's colours | where the function explains the edit |
| source | nothing at all: this was not edited | where frame 0 was left alone |
| still | something that stays with the camera | no |
| plate | what stood behind: the source's pixels from frames in which they are outside the region | no |

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
from lora_edit.types import mask_bounds
from lora_edit.video.flow import sample_image

CANDIDATE_NAMES = (
    "flow", "lit flow", "chain", "lit chain", "layer", "lit layer", "colours", "source", "still", "plate", "pasted flow", "pasted layer",
    "pasted support", "pasted region",
)  # fmt: skip
EVIDENCE_CHANNELS = 99
"""Six for each explanation, and fifteen that are common to all."""
SOURCE_READING_CANDIDATES = (1, 3, 5, 6, 7, 10, 11, 12, 13)
"""Explanations that read the source inside the region."""

CHANGE_SCALE = 16.0
"""Levels of 255, over a few pixels, at which a pixel counts as half edited."""
MIN_EXPLAINED_SHARE = 0.5
"""Share of the edit's change that a colour map has to explain before it may read the source."""
MAX_LIGHT_RATIO = 1.4
"""Largest change of light between a key frame and another, as a factor."""


DrawCandidate = Callable[[], FloatImage]
"""Draws one explanation, when it is wanted."""


class KeyFrame:
    """An edited frame beside the source's own, `[H, W, 3]` float32 in levels, and what the edit did within `region` `[H, W]` bool."""

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
        """What the edit changes, cut out with a soft edge: colours times opacity, and opacity in [0, 1], `[H, W, 4]`."""
        source, edited = (np.asarray(np.round(each), np.uint8) for each in (self.source, self.edited))
        return extract_layer(edited, find_changed_pixels(source, edited, self.region))

    # Evidence needs these; at full size, where nothing is weighed, they are never computed.
    @cached_property
    def changed_share(self) -> float:
        """How much of the region the edit changes."""
        return float(self._weight.sum() / max(self.region.sum(), 1))

    @cached_property
    def edge_share(self) -> float:
        """How much of the edges around the change is left (`_edge_share`)."""
        return _measure_edge_share(self.edited, self.source, np.asarray(self._weight > 0.5, np.uint8))

    @cached_property
    def analysis(self) -> FloatImage:
        """`[H, W, 3]` in levels: what the edit changes, what a local regression and what the colour map leave unexplained."""
        mapped, _ = self.colour_map(self.source)
        missed = np.abs(blur(mapped - self.edited, self.pixel_scale)).max(-1)
        return np.stack([self._change, self._gain_residual, missed], -1).astype(np.float32)


def _measure_edge_share(edited: FloatImage, source: FloatImage, changed_mask: npt.NDArray[np.uint8]) -> float:
    """How much of the edges along the border of what `changed` is left in the edited frame, in [0, 2].

    Little where a thing was removed, more than all where one was added.
    """
    ring = (cv2.dilate(changed_mask, np.ones((5, 5), np.uint8)) > 0) & (cv2.erode(changed_mask, np.ones((5, 5), np.uint8)) == 0)
    steps = [np.abs(cv2.Laplacian(cv2.GaussianBlur(picture, (0, 0), 1.0), cv2.CV_32F)).mean(-1) for picture in (edited, source)]
    after, before = (float(step[ring].mean()) if ring.any() else 1.0 for step in steps)
    return float(np.clip(after / max(before, 0.5), 0, 2))


@dataclass(frozen=True)
class CandidateSet:
    """One frame by every explanation: `pictures` `[K, H, W, 3]` in levels, `allowed` `[K]` (what may be shown at all), the `evidence`
    `[C, H, W]` for the mixture, and in [0, 1] how sure it is that the edit `left_alone` what stands there `[H, W]`."""

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
    """Every explanation of the frame `now` `[H, W, 3]`, from `key`.

    `given` `[H, W]` is 1 outside the region; `plate` is the picture behind with its validity `[H, W]`, and `behind` in [0, 1] how far the
    edit shows just that (`Plate.behind`); `time` in [0, 1] is how far away the key frame is. `motion` is at the frame's own size. Without
    `may_read` the explanations that read the hidden source are ruled out.
    """
    marked = estimate_region_motion(key_frame.region, given_mask < 0.5, motion)
    moved = [_WarpedKeyFrame(key_frame, frame, field) for field in _build_position_fields(motion, marked, *frame.shape[:2])]
    mapped, miss = key_frame.colour_map(frame)
    drawn = _build_draw_functions(key_frame, frame, given_mask, motion, background[0], moved, lambda: mapped)
    pictures = np.stack([draw() for draw in drawn]).astype(np.float32)
    allowed = np.ones(len(CANDIDATE_NAMES), bool)
    allowed[CANDIDATE_NAMES.index("colours")] = key_frame.colour_map.explained_share >= MIN_EXPLAINED_SHARE
    allowed[list(SOURCE_READING_CANDIDATES)] &= allow_source
    facts = removal_share, time_distance, *_measure_relative_motion(motion, marked, key_frame.region)
    evidence = _build_evidence(key_frame, frame, pictures, allowed, moved, motion, miss, given_mask, background[1], facts)
    return CandidateSet(pictures, allowed, evidence, _estimate_unedited_share(moved[0], motion.confidence))


MIN_CONFIDENCE = 0.4
"""Confidence of a position in the key frame from which it may tell that nothing was edited there."""
EDIT_TOLERANCE, SOURCE_TOLERANCE = 6.0, 12.0
"""Levels of 255 by which the edit may change such a pixel, and by which the source may differ there, each for a third of the certainty."""


def _estimate_unedited_share(flow: _WarpedKeyFrame, confidence: FloatImage) -> FloatImage:
    """How sure it is that a frame shows what the key frame shows too, and that the edit left it alone there, `[H, W]` in [0, 1]."""
    seen = np.clip((confidence * (1 - flow.outside_mask) - MIN_CONFIDENCE) / (1 - MIN_CONFIDENCE), 0, 1)
    change, far = flow.analysis[..., 0], flow.residuals[0]
    return np.asarray(seen * np.exp(-((change / EDIT_TOLERANCE) ** 2)) * np.exp(-((far / SOURCE_TOLERANCE) ** 2)), np.float32)


MIN_SHARE = 0.02
"""An explanation that has no larger share anywhere is not drawn at full size."""


def mix_candidates(
    key_frame: KeyFrame,
    frame: FloatImage,
    given_mask: FloatImage,
    motion: Motion,
    background: tuple[FloatImage, FloatImage],
    shares: FloatImage,
) -> FloatImage:
    """The explanations mixed by `shares` `[K, H, W]`, `[H, W, 3]`, without drawing those that have none."""
    used = shares.reshape(len(shares), -1).max(1) > MIN_SHARE
    fields = _build_position_fields(motion, estimate_region_motion(key_frame.region, given_mask < 0.5, motion), *frame.shape[:2])
    moved = [_WarpedKeyFrame(key_frame, frame, field) for field in fields]
    drawn = _build_draw_functions(key_frame, frame, given_mask, motion, background[0], moved, lambda: key_frame.colour_map(frame)[0])
    out, total = np.zeros_like(frame), np.full(frame.shape[:2], 1e-6, np.float32)
    for draw, share, wanted in zip(drawn, shares, used, strict=True):
        if wanted:
            out += share[..., None] * draw()
            total += share
    return out / total[..., None]


MAX_SIDE_ERROR = 0.12
"""Sizes of the region by which its sides may miss where a known motion takes them for it to count as moving so."""
MIN_OBJECT_CONFIDENCE = 0.3
"""Confidence from which the object's motion may be the region's."""


def estimate_region_motion(key_region: npt.NDArray[np.bool_], frame_region: npt.NDArray[np.bool_], motion: Motion) -> FloatImage:
    """How the region in a frame `[H, W]` lies in the key frame, `[2, 3]`: as the object, what it sits on or the camera moves, whichever its
    box says, if any.

    Else it is shifted with its box; not at all where one of the frames has no region.

    Only sides of the box that the frame's border does not cut are compared.
    """
    out = np.eye(2, 3, dtype=np.float32)
    if not (key_region.any() and frame_region.any()):
        return out
    found = (
        (motion.object_matrix, motion.object_confidence),
        (motion.support_matrix, motion.support_confidence),
        (motion.camera_matrix, 1.0),
    )
    known = [matrix for matrix, confidence in found if confidence > MIN_OBJECT_CONFIDENCE]
    misses = [_measure_side_error(key_region, frame_region, matrix) for matrix in known]
    if min(misses) < MAX_SIDE_ERROR * float(np.sqrt(key_region.sum())):
        return known[int(np.argmin(misses))]
    for axis in (0, 1):
        shifts = [there - here for there, here in _find_uncut_sides(key_region, frame_region, axis)]
        out[axis, 2] = np.mean(shifts) if shifts else 0.0
    return out


def _measure_side_error(key_region: npt.NDArray[np.bool_], frame_region: npt.NDArray[np.bool_], matrix: FloatImage) -> float:
    """Pixels by which the sides of the box in a frame miss those in the key frame when moved by a map, on the mean."""
    middle = _compute_box_centre(frame_region)
    misses = []
    for axis in (0, 1):
        for there, here in _find_uncut_sides(key_region, frame_region, axis):
            at = middle.copy()
            at[axis] = here
            misses.append(abs(float(matrix[axis, :2] @ at + matrix[axis, 2]) - there))
    return float(np.mean(misses)) if misses else 0.0


def _find_uncut_sides(key_region: npt.NDArray[np.bool_], frame_region: npt.NDArray[np.bool_], axis: int) -> list[tuple[int, int]]:
    """First and last position along x (axis 0) or y that each region reaches, in the key frame and now, where no border cuts either."""
    there, here, last = _compute_extent(key_region, axis), _compute_extent(frame_region, axis), key_region.shape[1 - axis] - 1
    sides = [(there[0], here[0])] if min(there[0], here[0]) > 0 else []
    return [*sides, (there[1], here[1])] if max(there[1], here[1]) < last else sides


def _compute_extent(region: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """The first and the last column (axis 0) or row (axis 1) that the region reaches."""
    bounds = mask_bounds(region)
    assert bounds is not None, "the region is empty"
    return bounds[axis], bounds[axis + 2] - 1


def _compute_box_centre(region: npt.NDArray[np.bool_]) -> FloatImage:
    """The middle (x, y) of the region's bounding box."""
    return np.array([np.mean(_compute_extent(region, axis)) for axis in (0, 1)], np.float32)


def _measure_relative_motion(motion: Motion, region_matrix: FloatImage, region: npt.NDArray[np.bool_]) -> list[float]:
    """How far the object, the camera and what the edit sits on move apart from the marked region, in its sizes, in [0, 1]."""
    if not region.any():
        return [0.0] * 3
    there, size = _compute_box_centre(region), float(np.sqrt(region.sum()))
    here = np.linalg.solve(region_matrix[:, :2].astype(np.float64), there - region_matrix[:, 2])
    away = (m[:, :2] @ here + m[:, 2] - there for m in (motion.object_matrix, motion.camera_matrix, motion.support_matrix))
    return [float(np.tanh(2 * np.linalg.norm(each) / size)) for each in away]


def _build_position_fields(motion: Motion, region_matrix: FloatImage, height: int, width: int) -> list[FloatImage]:
    """Positions in the key frame by dense motion, by chained flow, and as the object, camera, what the edit sits on, and region move."""
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
    """What draws each of them, in the order of `NAMES`."""
    flow, chain, layer, still, support, marked = warped_key_frames
    light = _estimate_light_ratio(frame, flow.source, given_mask * motion.confidence, key_frame.pixel_scale)

    def plain(each: _WarpedKeyFrame) -> FloatImage:
        return np.clip(each.edited * light, 0, 255)

    def lit(each: _WarpedKeyFrame) -> FloatImage:
        return np.clip(each.edited + each.gain * (frame - each.source), 0, 255)

    def pasted(each: _WarpedKeyFrame) -> FloatImage:
        return np.clip(each.layer[..., :3] * light + (1 - each.layer[..., 3:]) * frame, 0, 255)

    by_motion = [partial(draw, each) for each in (flow, chain, layer) for draw in (plain, lit)]
    others: list[DrawCandidate] = [lambda: np.clip(draw_colours(), 0, 255), lambda: frame, partial(plain, still), lambda: background]
    return [*by_motion, *others, *(partial(pasted, each) for each in (flow, layer, support, marked))]


class _WarpedKeyFrame:
    """A key frame read at the positions of the frame `now`, as far as it is asked for."""

    def __init__(self, key_frame: KeyFrame, frame: FloatImage, positions: FloatImage) -> None:
        self.key_frame, self.frame, self.positions = key_frame, frame, positions

    @cached_property
    def source(self) -> FloatImage:
        """The source there, `[H, W, 3]`."""
        return sample_image(self.key_frame.source, self.positions)

    @cached_property
    def edited(self) -> FloatImage:
        """The edited picture there, `[H, W, 3]`."""
        return sample_image(self.key_frame.edited, self.positions)

    @cached_property
    def gain(self) -> FloatImage:
        """How strongly the edit keeps the source's structure there, `[H, W, 3]`."""
        return sample_image(self.key_frame.gain, self.positions)

    @cached_property
    def layer(self) -> FloatImage:
        """What the edit put there: colours times opacity, and opacity, `[H, W, 4]`."""
        return sample_image(self.key_frame.layer, self.positions)

    @cached_property
    def residuals(self) -> tuple[FloatImage, FloatImage]:
        """How far its source is from the frame's, by colour and by fine detail, `[H, W]` each."""
        reach, away = self.key_frame.pixel_scale, self.source - self.frame
        far = np.abs(blur(away, 1.5 * reach)).max(-1)
        return far, blur(np.abs(away - blur(away, 3 * reach)).mean(-1), 1.5 * reach)

    @property
    def outside_mask(self) -> npt.NDArray[np.bool_]:
        """Where it lies beyond the key frame."""
        return is_outside(self.positions, *self.key_frame.source.shape[:2])

    @cached_property
    def analysis(self) -> FloatImage:
        """What the edit did there."""
        return sample_image(self.key_frame.analysis, self.positions)


def _estimate_light_ratio(frame: FloatImage, warped_source: FloatImage, weight: FloatImage, pixel_scale: float) -> FloatImage:
    """How much lighter the frame is than the key frame, as a factor `[H, W, 1]`, seen where both are given."""
    sigma = 16 * pixel_scale
    ratio = (blur(frame.mean(-1) * weight, sigma) + 2) / (blur(warped_source.mean(-1) * weight, sigma) + 2)
    if float(weight.mean()) < 0.02:
        return np.ones((*frame.shape[:2], 1), np.float32)
    return np.asarray(np.clip(ratio, 1 / MAX_LIGHT_RATIO, MAX_LIGHT_RATIO)[..., None], np.float32)


def _fill_from_surroundings(values: FloatImage, given_mask: FloatImage, pixel_scale: float) -> FloatImage:
    """`values` where pixels are given, and elsewhere their mean in the given surroundings, `[H, W]`."""
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
    """`[CHANNELS, H, W]`, each about 0 to 1: six channels for each explanation, then what is common to all."""
    height, width = given_mask.shape
    zero, one = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    flow, chain, layer, behind, below, marked = [(each.outside_mask, each.analysis, *each.residuals) for each in warped_key_frames]
    # What stands behind can't be held against the hidden thing before it, only against what is given around.
    still = (
        behind[0],
        behind[1],
        _fill_from_surroundings(behind[2], given_mask, key_frame.pixel_scale),
        _fill_from_surroundings(behind[3], given_mask, key_frame.pixel_scale),
    )
    confidence, chained = motion.confidence * (1 - flow[0]), motion.chained_confidence * (1 - chain[0])
    sure = motion.object_confidence * (1 - layer[0])
    own = (
        (confidence, flow), (confidence, flow), (chained, chain), (chained, chain), (sure, layer), (sure, layer),
        (one * key_frame.colour_map.explained_share, flow), (confidence, flow), (1.0 - still[0], still), (background_valid, still),
        (confidence, flow), (sure, layer), (motion.support_confidence * (1 - below[0]), below), (1.0 - marked[0], marked),
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
        trust, (_, analysis, far, fine) = own[number]
        change, unkept, missed = np.moveaxis(analysis, -1, 0)
        specifics = {"colours": colour_error, "source": missed} | opacities
        specific = specifics.get(CANDIDATE_NAMES[number], unkept)
        apart = np.abs(blur(picture - centre, key_frame.pixel_scale)).mean(-1)
        channels = (trust * one, far / 64, fine / 32, change / 64, specific / 48, apart / 64)
        rows += [c if allowed_mask[number] else zero for c in channels]
    border = cv2.distanceTransform((given_mask < 0.5).astype(np.uint8), cv2.DIST_L2, 3) / (16 * key_frame.pixel_scale)
    facts = (
        *frame_features,
        key_frame.colour_map.explained_share,
        key_frame.changed_share,
        key_frame.edge_share,
        motion.object_confidence,
        motion.support_confidence,
    )
    rows += [given_mask, np.tanh(border), *(fact * one for fact in facts)]
    for a, b in ((0, 2), (0, 4), (1, 6)):
        rows.append(np.abs(pictures[a] - pictures[b]).mean(-1) / 64 if allowed_mask[a] and allowed_mask[b] else zero)
    return np.clip(np.stack([np.asarray(r, np.float32) for r in rows]), 0, 3)
