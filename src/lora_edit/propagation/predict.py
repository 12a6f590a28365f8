"""Prediction of the edit in every frame from its key frames, with the expected error.

The prediction is the model's hint, the preview, and the source of compositing's detail.

Shares are computed on a downscaled copy of the clip; they mix the candidates at full size.
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
"""Shorter side, in pixels, at which the mixture network runs, as in its training."""
MOTION_SIDE = 224
"""Largest shorter side, in pixels, at which motion is estimated and stored."""
MAX_FRAME_DISTANCE = 24
"""Distance to a key frame, in frames, at which the network's time input saturates."""

Frames = torch.Tensor


@dataclass(frozen=True)
class PredictedFrame:
    """A frame `[H, W, 3]` uint8 and its expected error `[h, w]` at the working size (root mean square, levels of 255)."""

    frame: npt.NDArray[np.uint8]
    error: FloatImage


@dataclass(frozen=True)
class Prediction:
    """A predicted clip: `frames` `[T, H, W, 3]` uint8 and expected `errors` `[T, h, w]` (root mean square, levels of 255)."""

    frames: Frames
    errors: torch.Tensor

    @classmethod
    def from_frames(cls, frames: Iterable[PredictedFrame]) -> Self:
        """Stack predicted frames."""
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
        """Build the background plate of every key frame from its motions."""
        for n, key_motions in motions.items():
            self.background_plates[n] = BackgroundPlate(
                self.frames, self.region, [scale_affine(m.camera_matrix, self._compute_ratio(m)) for m in key_motions]
            )
            self.removal_shares[n] = self.background_plates[n].measure_removal(self.key_frames[n].edited, self.key_frames[n].edited_share)

    def scale_motion(self, motion: Motion) -> Motion:
        """Convert motion from the size of its estimation to this size."""
        size = self.height, self.width
        if motion.positions.shape[:2] == size:
            return motion
        ratio = self._compute_ratio(motion)

        def resized(confidence: FloatImage) -> FloatImage:
            return np.asarray(cv2.resize(confidence, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

        return Motion(
            resize_positions(motion.positions, *size),
            resized(motion.confidence),
            resize_positions(motion.chained_positions, *size),
            resized(motion.chained_confidence),
            scale_affine(motion.object_matrix, ratio),
            motion.object_confidence,
            scale_affine(motion.camera_matrix, ratio),
            scale_affine(motion.support_matrix, ratio),
            motion.support_confidence,
        )

    def _compute_ratio(self, motion: Motion) -> FloatImage:
        """Compute the ratio (x, y) of this size to the motion's size."""
        height, width = motion.positions.shape[:2]
        return np.array([self.width / width, self.height / height], np.float32)

    def build_candidates(self, number: int, key_index: int, motion: Motion, allow_source: bool) -> CandidateSet:
        """Build the candidates of one frame from one key frame."""
        time_distance = min(1.0, abs(number - key_index) / MAX_FRAME_DISTANCE)
        return build_candidates(
            self.key_frames[key_index],
            *self._gather_inputs(number, key_index, motion),
            self.removal_shares[key_index],
            time_distance,
            allow_source,
        )

    def mix_candidates(self, number: int, key_index: int, motion: Motion, shares: FloatImage) -> FloatImage:
        """Mix the candidates of one frame from one key frame by `shares`."""
        return mix_candidates(self.key_frames[key_index], *self._gather_inputs(number, key_index, motion), shares)

    def _gather_inputs(
        self, number: int, key_index: int, motion: Motion
    ) -> tuple[FloatImage, FloatImage, Motion, tuple[FloatImage, FloatImage]]:
        scaled_motion = self.scale_motion(motion)
        background = self.background_plates[key_index].render(scaled_motion.camera_matrix, self.height, self.width)
        return self.frames[number].astype(np.float32), 1 - self.region[number].astype(np.float32), scaled_motion, background


def scale_affine(matrix: FloatImage, ratio: FloatImage) -> FloatImage:
    """Scale an affine map between pixels (centres at integers) to frames `ratio` (x, y) times as large."""
    linear = matrix[:, :2] * ratio[:, None] / ratio[None, :]
    shift = ratio * (matrix[:, 2] + 0.5) - 0.5 - linear @ (0.5 * ratio - 0.5)
    # A pixel p of the small frame is ratio * (p + 0.5) - 0.5 in the large one.
    return np.asarray(np.concatenate([linear, shift[:, None]], 1), np.float32)


def compute_working_size(height: int, width: int, side: int = WORKING_SIDE) -> tuple[int, int]:
    """Compute the height and width of a downscaled copy whose shorter side has at most `side` pixels."""
    scale = min(1.0, side / min(height, width))
    return max(16, round(height * scale)), max(16, round(width * scale))


class Propagation:
    """Propagation of an edit from its key frames to all other frames.

    `source` is `[T, H, W, 3]` uint8, `pictures` are the edited frames `[H, W, 3]` by frame number, and `region` is `[T, H, W]` bool;
    outside it the source's pixels are kept. Separate objects in the region are predicted separately. Motion is estimated once. Memory
    holds the motion at its working size, and two backgrounds per key frame and object.
    """

    def __init__(
        self, source: Frames, pictures: Mapping[int, torch.Tensor], region: Frames, on_frame: OnFrame = lambda done, total: None
    ) -> None:
        frames, region_mask = source.numpy(), region.numpy()
        edited = {n: np.ascontiguousarray(p.numpy()) for n, p in sorted(pictures.items())}
        self._frames, self._edited, self._region, self._on_frame = frames, edited, region_mask, on_frame
        first = min(edited)
        changed = find_changed_pixels(frames[first], edited[first], region_mask[first])
        self._parts = [_RegionPart(frames, edited, part) for part in split_region(region_mask, changed)]

    def __len__(self) -> int:
        return len(self._frames)

    def predict_frames(self) -> Iterator[PredictedFrame]:
        """Yield the edited clip frame by frame; a key frame is its edited picture."""
        for number in range(len(self)):
            self._on_frame(number, len(self))
            yield self.predict_frame(number)

    def predict_frame(self, number: int, excluded_key: int | None = None) -> PredictedFrame:
        """Predict one frame of the edited clip, without the key frame `excluded_key` if given."""
        if number in self._edited and number != excluded_key:
            region = self._region[number][..., None]
            return PredictedFrame(np.where(region, self._edited[number], self._frames[number]), self._parts[0].build_known_error())
        return self._join_parts([part.predict_frame(number, excluded_key) for part in self._parts], number)

    def predict_source_frames(self) -> Iterator[PredictedFrame]:
        """Yield predictions of the source itself at the working size, with its first frame as the only key frame, for training a LoRA.

        Inside the region, only motion is read from the source's later frames.
        """
        for number, predictions in enumerate(zip(*(part.predict_source_frames() for part in self._parts), strict=True)):
            yield self._join_parts(predictions, number)

    def _join_parts(self, predictions: Sequence[PredictedFrame], number: int) -> PredictedFrame:
        """Join the predictions of one frame's region parts."""
        frame, error = predictions[0].frame, predictions[0].error
        for part, each in zip(self._parts[1:], predictions[1:], strict=True):
            frame = np.where(part.get_region(number, frame.shape[:2])[..., None], each.frame, frame)
            error = np.where(part.get_region(number, error.shape), each.error, error)
        return PredictedFrame(frame, error)


class _RegionPart:
    """Propagation of one separately edited object; arguments as in `Propagation`, as NumPy arrays."""

    def __init__(self, frames: npt.NDArray[np.uint8], edited: Mapping[int, npt.NDArray[np.uint8]], region: npt.NDArray[np.bool_]) -> None:
        self._motions = _estimate_motions(frames, edited, region)
        height, width = compute_working_size(*frames.shape[1:3])
        self._full_size_clip = _ScaledClip(frames, edited, region)
        self._working_size_clip = (
            self._full_size_clip
            if (height, width) == frames.shape[1:3]
            else _ScaledClip(*_downscale_clip(frames, edited, region, height, width))
        )
        for clip in {id(each): each for each in (self._full_size_clip, self._working_size_clip)}.values():
            clip.add_background_plates(self._motions)

    def get_region(self, number: int, size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Return the part's mask in a frame, at full size or at the working size."""
        return (self._full_size_clip if size == self._full_size_clip.frames.shape[1:3] else self._working_size_clip).region[number]

    def predict_frame(self, number: int, excluded_key: int | None) -> PredictedFrame:
        """Predict one frame with this part's edit, from all key frames except `excluded_key`."""
        keys = {n: m[number] for n, m in self._motions.items() if n != excluded_key}
        return _predict_frame(number, self._working_size_clip, self._full_size_clip, keys, True)

    def predict_source_frames(self) -> Iterator[PredictedFrame]:
        """Yield predictions of the source itself at the working size, with its first frame as the only key frame."""
        clip = self._working_size_clip
        unedited = _ScaledClip(clip.frames, {0: clip.frames[0]}, clip.region)
        unedited.add_background_plates({0: self._motions[0]})
        yield PredictedFrame(clip.frames[0], self.build_known_error())
        for number in range(1, len(clip.frames)):
            yield _predict_frame(number, unedited, unedited, {0: self._motions[0][number]}, False)

    def build_known_error(self) -> FloatImage:
        """Build the error map of a key frame: the smallest error everywhere."""
        return np.full((self._working_size_clip.height, self._working_size_clip.width), MIN_ERROR, np.float32)


def _estimate_motions(
    frames: npt.NDArray[np.uint8], pictures: Mapping[int, npt.NDArray[np.uint8]], region: npt.NDArray[np.bool_]
) -> dict[int, list[Motion]]:
    """Estimate, for every key frame, the motion from all frames to it, at a size of at most `MOTION_SIDE`."""
    size = compute_working_size(frames.shape[1], frames.shape[2], MOTION_SIDE)
    if size != frames.shape[1:3]:
        frames, pictures, region = _downscale_clip(frames, pictures, region, *size)
    return {n: _estimate_key_frame_motion(frames, region, n, picture) for n, picture in pictures.items()}


def _estimate_key_frame_motion(
    frames: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_], key_index: int, edited: npt.NDArray[np.uint8]
) -> list[Motion]:
    """Estimate the motion from every frame to one key frame, forward and backward from it."""
    forward = list(estimate_motion(frames[key_index:], edited, region[key_index:]))
    backward = list(estimate_motion(frames[: key_index + 1][::-1], edited, region[: key_index + 1][::-1])) if key_index else forward[:1]
    return [*backward[:0:-1], *forward]


def _predict_frame(
    number: int, working_size_clip: _ScaledClip, full_size_clip: _ScaledClip, motions: Mapping[int, Motion], allow_source: bool
) -> PredictedFrame:
    """Predict one frame from all key frames, weighted by the inverse fourth power of the expected error."""
    total = np.zeros((full_size_clip.height, full_size_clip.width, 3), np.float32)
    weight = np.zeros((full_size_clip.height, full_size_clip.width), np.float32)
    precision = np.zeros((working_size_clip.height, working_size_clip.width), np.float32)
    for key, motion in motions.items():
        candidates = working_size_clip.build_candidates(number, key, motion, allow_source)
        shares, error = predict_shares(candidates)
        frame_precision, picture = error**-4, np.einsum("khw,khwc->hwc", shares, candidates.pictures)
        if full_size_clip is not working_size_clip:
            size = (full_size_clip.width, full_size_clip.height)
            frame_precision = np.asarray(cv2.resize(error, size, interpolation=cv2.INTER_LINEAR), np.float32) ** -4
            shares = np.stack([cv2.resize(s, size, interpolation=cv2.INTER_LINEAR) for s in shares])
            picture = full_size_clip.mix_candidates(number, key, motion, shares)
        total = total + picture * frame_precision[..., None]
        weight, precision = weight + frame_precision, precision + error**-4
    frame = np.clip(np.round(total / weight[..., None]), 0, 255).astype(np.uint8)
    composited = np.where(full_size_clip.region[number][..., None], frame, full_size_clip.frames[number])
    return PredictedFrame(composited, np.asarray(np.maximum(precision, 1e-12) ** -0.25, np.float32))


def _downscale_clip(
    frames: npt.NDArray[np.uint8], pictures: Mapping[int, npt.NDArray[np.uint8]], region: npt.NDArray[np.bool_], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], dict[int, npt.NDArray[np.uint8]], npt.NDArray[np.bool_]]:
    def downscale(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    small_region = np.stack([downscale(np.asarray(r, np.uint8) * 255) > 0 for r in region])
    return np.stack([downscale(f) for f in frames]), {n: downscale(p) for n, p in pictures.items()}, small_region
