"""The edit predicted for every frame from its key frames, with the error to expect.

It is the model's hint, the preview, and what compositing takes detail from.

Evidence is weighed on a small copy of the clip; the shares found there mix the explanations at full size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.propagation.background_plate import BackgroundPlate
from lora_edit.propagation.candidates import CandidateSet, KeyFrame, build_candidates, mix_candidates
from lora_edit.propagation.change_detection import find_changed_pixels
from lora_edit.propagation.images import FloatImage
from lora_edit.propagation.mixture import MIN_ERROR, predict_shares
from lora_edit.propagation.motion import Motion, estimate_motion
from lora_edit.propagation.region_parts import split_region
from lora_edit.types import OnFrame
from lora_edit.video.flow import resize_positions

WORKING_SIDE = 128
"""Pixels of the shorter side at which evidence is weighed, as in the network's training."""
MOTION_SIDE = 224
"""Pixels of the shorter side, at most, at which motion is estimated and kept."""
MAX_FRAME_DISTANCE = 24
"""Frames from a key frame at which the network's sense of time ends."""

Frames = torch.Tensor


@dataclass(frozen=True)
class PredictedFrame:
    """A frame `[H, W, 3]` uint8 and the error to expect in it `[h, w]` (root mean square, levels of 255), at the working size."""

    frame: npt.NDArray[np.uint8]
    error: FloatImage


@dataclass(frozen=True)
class Prediction:
    """A predicted clip: `frames` `[T, H, W, 3]` uint8 and the `errors` to expect `[T, h, w]` (root mean square, levels of 255)."""

    frames: Frames
    errors: torch.Tensor

    @classmethod
    def from_frames(cls, frames: Iterable[PredictedFrame]) -> Self:
        """All of the frames, stacked."""
        pictures, errors = zip(*((torch.from_numpy(f.frame), torch.from_numpy(f.error)) for f in frames), strict=True)
        return cls(torch.stack(pictures), torch.stack(errors))


class _ScaledClip:
    """The clip and its key frames at one size."""

    def __init__(self, frames: npt.NDArray[np.uint8], pictures: Mapping[int, npt.NDArray[np.uint8]], region: npt.NDArray[np.bool_]) -> None:
        self.frames, self.region = frames, region
        self.height, self.width = frames.shape[1:3]
        self.key_frames = {n: KeyFrame(p.astype(np.float32), frames[n].astype(np.float32), region[n]) for n, p in pictures.items()}
        self.background_plates: dict[int, BackgroundPlate] = {}
        self.removal_shares: dict[int, float] = {}

    def add_background_plates(self, motions: Mapping[int, list[Motion]]) -> None:
        """Put the backgrounds together once motion is known."""
        for n, those in motions.items():
            self.background_plates[n] = BackgroundPlate(
                self.frames, self.region, [scale_affine(m.camera_matrix, self._compute_ratio(m)) for m in those]
            )
            self.removal_shares[n] = self.background_plates[n].measure_removal(self.key_frames[n].edited, self.key_frames[n].edited_share)

    def scale_motion(self, motion: Motion) -> Motion:
        """The motion, which was estimated at another size, in pixels of this one."""
        size = self.height, self.width
        if motion.positions.shape[:2] == size:
            return motion
        ratio = self._compute_ratio(motion)

        def scaled(confidence: FloatImage) -> FloatImage:
            return np.asarray(cv2.resize(confidence, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

        return Motion(
            resize_positions(motion.positions, *size),
            scaled(motion.confidence),
            resize_positions(motion.chained_positions, *size),
            scaled(motion.chained_confidence),
            scale_affine(motion.object_matrix, ratio),
            motion.object_confidence,
            scale_affine(motion.camera_matrix, ratio),
            scale_affine(motion.support_matrix, ratio),
            motion.support_confidence,
        )

    def _compute_ratio(self, motion: Motion) -> FloatImage:
        """How many times this size is that of the motion, in x and y."""
        height, width = motion.positions.shape[:2]
        return np.array([self.width / width, self.height / height], np.float32)

    def build_candidates(self, number: int, key_index: int, motion: Motion, allow_source: bool) -> CandidateSet:
        """One frame from one key frame."""
        time = min(1.0, abs(number - key_index) / MAX_FRAME_DISTANCE)
        return build_candidates(
            self.key_frames[key_index], *self._gather_inputs(number, key_index, motion), self.removal_shares[key_index], time, allow_source
        )

    def mix_candidates(self, number: int, key_index: int, motion: Motion, shares: FloatImage) -> FloatImage:
        """One frame from one key frame, by known shares."""
        return mix_candidates(self.key_frames[key_index], *self._gather_inputs(number, key_index, motion), shares)

    def _gather_inputs(
        self, number: int, key_index: int, motion: Motion
    ) -> tuple[FloatImage, FloatImage, Motion, tuple[FloatImage, FloatImage]]:
        moved = self.scale_motion(motion)
        plate = self.background_plates[key_index].render(moved.camera_matrix, self.height, self.width)
        return self.frames[number].astype(np.float32), 1 - self.region[number].astype(np.float32), moved, plate


def scale_affine(matrix: FloatImage, ratio: FloatImage) -> FloatImage:
    """An affine map between pixels (centres at integers) as one between pixels of frames `ratio` (x, y) times as large."""
    linear = matrix[:, :2] * ratio[:, None] / ratio[None, :]
    shift = ratio * (matrix[:, 2] + 0.5) - 0.5 - linear @ (0.5 * ratio - 0.5)
    # A pixel p of the small frame is ratio * (p + 0.5) - 0.5 in the large one.
    return np.asarray(np.concatenate([linear, shift[:, None]], 1), np.float32)


def compute_working_size(height: int, width: int, side: int = WORKING_SIDE) -> tuple[int, int]:
    """The size of a small copy whose shorter side has `side` pixels at most."""
    scale = min(1.0, side / min(height, width))
    return max(16, round(height * scale)), max(16, round(width * scale))


class Propagation:
    """An edit on its way from its key frames to all others.

    `source` `[T, H, W, 3]` uint8, edited `pictures` `[H, W, 3]` by frame number, and the `region` `[T, H, W]` bool; outside it the source's
    pixels stand. Things that lie apart in it are predicted each for itself. Motion is estimated once. Memory is that of the motion at its
    working size, and of two backgrounds for every key frame and thing.
    """

    def __init__(
        self, source: Frames, pictures: Mapping[int, torch.Tensor], region: Frames, on_frame: OnFrame = lambda done, total: None
    ) -> None:
        frames, where = source.numpy(), region.numpy()
        edited = {n: np.ascontiguousarray(p.numpy()) for n, p in sorted(pictures.items())}
        self._frames, self._edited, self._region, self._on_frame = frames, edited, where, on_frame
        first = min(edited)
        changed = find_changed_pixels(frames[first], edited[first], where[first])
        self._parts = [_RegionPart(frames, edited, part) for part in split_region(where, changed)]

    def __len__(self) -> int:
        return len(self._frames)

    def predict_frames(self) -> Iterator[PredictedFrame]:
        """The edited clip, frame by frame; a key frame shows its picture."""
        for number in range(len(self)):
            self._on_frame(number, len(self))
            yield self.predict_frame(number)

    def predict_frame(self, number: int, excluded_key: int | None = None) -> PredictedFrame:
        """One frame of the edited clip; `without` a key frame, as if it had not been edited."""
        if number in self._edited and number != excluded_key:
            region = self._region[number][..., None]
            return PredictedFrame(np.where(region, self._edited[number], self._frames[number]), self._parts[0].build_known_error())
        return self._join_parts([part.predict_frame(number, excluded_key) for part in self._parts], number)

    def predict_source_frames(self) -> Iterator[PredictedFrame]:
        """The source itself, at the working size, as if its first frame were all that is known inside the region: what a LoRA learns on.

        Nothing is read from the source's later frames there but its motion.
        """
        for number, found in enumerate(zip(*(part.predict_source_frames() for part in self._parts), strict=True)):
            yield self._join_parts(found, number)

    def _join_parts(self, predictions: Sequence[PredictedFrame], number: int) -> PredictedFrame:
        """One frame of what was predicted of each thing."""
        frame, error = predictions[0].frame, predictions[0].error
        for part, each in zip(self._parts[1:], predictions[1:], strict=True):
            frame = np.where(part.get_region(number, frame.shape[:2])[..., None], each.frame, frame)
            error = np.where(part.get_region(number, error.shape), each.error, error)
        return PredictedFrame(frame, error)


class _RegionPart:
    """One thing that an edit changes, on its way from the key frames to all others; arguments as numpy arrays."""

    def __init__(self, frames: npt.NDArray[np.uint8], edited: Mapping[int, npt.NDArray[np.uint8]], region: npt.NDArray[np.bool_]) -> None:
        self._motions = _estimate_motions(frames, edited, region)
        height, width = compute_working_size(*frames.shape[1:3])
        self._full_size_clip = _ScaledClip(frames, edited, region)
        self._working_size_clip = (
            self._full_size_clip
            if (height, width) == frames.shape[1:3]
            else _ScaledClip(*_downscale_clip(frames, edited, region, height, width))
        )
        for scaled in {id(each): each for each in (self._full_size_clip, self._working_size_clip)}.values():
            scaled.add_background_plates(self._motions)

    def get_region(self, number: int, size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Where it is in a frame, at full size or at that which evidence is weighed at."""
        return (self._full_size_clip if size == self._full_size_clip.frames.shape[1:3] else self._working_size_clip).region[number]

    def predict_frame(self, number: int, excluded_key: int | None) -> PredictedFrame:
        """One frame with the edit of this thing, from all key frames but `without`."""
        keys = {n: m[number] for n, m in self._motions.items() if n != excluded_key}
        return _predict_frame(number, self._working_size_clip, self._full_size_clip, keys, True)

    def predict_source_frames(self) -> Iterator[PredictedFrame]:
        """The source itself, at the working size, as if its first frame were all that is known inside the region."""
        small = self._working_size_clip
        unedited = _ScaledClip(small.frames, {0: small.frames[0]}, small.region)
        unedited.add_background_plates({0: self._motions[0]})
        yield PredictedFrame(small.frames[0], self.build_known_error())
        for number in range(1, len(small.frames)):
            yield _predict_frame(number, unedited, unedited, {0: self._motions[0][number]}, False)

    def build_known_error(self) -> FloatImage:
        """The error where a frame was edited by the person."""
        return np.full((self._working_size_clip.height, self._working_size_clip.width), MIN_ERROR, np.float32)


def _estimate_motions(
    frames: npt.NDArray[np.uint8], pictures: Mapping[int, npt.NDArray[np.uint8]], region: npt.NDArray[np.bool_]
) -> dict[int, list[Motion]]:
    """For every key frame the motion of all frames to it, at a size that keeps it small."""
    size = compute_working_size(frames.shape[1], frames.shape[2], MOTION_SIDE)
    if size != frames.shape[1:3]:
        frames, pictures, region = _downscale_clip(frames, pictures, region, *size)
    return {n: _estimate_key_frame_motion(frames, region, n, picture) for n, picture in pictures.items()}


def _estimate_key_frame_motion(
    frames: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_], key_index: int, edited: npt.NDArray[np.uint8]
) -> list[Motion]:
    """From every frame to the key frame: forward from it, and backward."""
    ahead = list(estimate_motion(frames[key_index:], edited, region[key_index:]))
    back = list(estimate_motion(frames[: key_index + 1][::-1], edited, region[: key_index + 1][::-1])) if key_index else ahead[:1]
    return [*back[:0:-1], *ahead]


def _predict_frame(
    number: int, working_size_clip: _ScaledClip, full_size_clip: _ScaledClip, motions: Mapping[int, Motion], allow_source: bool
) -> PredictedFrame:
    """One frame by all key frames, each counting by the inverse of its expected squared error."""
    total = np.zeros((full_size_clip.height, full_size_clip.width, 3), np.float32)
    weight = np.zeros((full_size_clip.height, full_size_clip.width), np.float32)
    precision = np.zeros((working_size_clip.height, working_size_clip.width), np.float32)
    for key, motion in motions.items():
        out = working_size_clip.build_candidates(number, key, motion, allow_source)
        shares, error = predict_shares(out)
        counts, picture = error**-4, np.einsum("khw,khwc->hwc", shares, out.pictures)
        if full_size_clip is not working_size_clip:
            size = (full_size_clip.width, full_size_clip.height)
            counts = np.asarray(cv2.resize(error, size, interpolation=cv2.INTER_LINEAR), np.float32) ** -4
            shares = np.stack([cv2.resize(s, size, interpolation=cv2.INTER_LINEAR) for s in shares])
            picture = full_size_clip.mix_candidates(number, key, motion, shares)
        total = total + picture * counts[..., None]
        weight, precision = weight + counts, precision + error**-4
    frame = np.clip(np.round(total / weight[..., None]), 0, 255).astype(np.uint8)
    shown = np.where(full_size_clip.region[number][..., None], frame, full_size_clip.frames[number])
    return PredictedFrame(shown, np.asarray(np.maximum(precision, 1e-12) ** -0.25, np.float32))


def _downscale_clip(
    frames: npt.NDArray[np.uint8], pictures: Mapping[int, npt.NDArray[np.uint8]], region: npt.NDArray[np.bool_], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], dict[int, npt.NDArray[np.uint8]], npt.NDArray[np.bool_]]:
    def small(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    inside = np.stack([small(np.asarray(r, np.uint8) * 255) > 0 for r in region])
    return np.stack([small(f) for f in frames]), {n: small(p) for n, p in pictures.items()}, inside
