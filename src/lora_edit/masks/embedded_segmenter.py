"""The segmenter that needs no weights: it segments prompted frames by colour and motion, and propagates the masks from frame to frame.

Where the small saliency network (`saliency.py`) is available, it takes part in segmenting prompted frames.

Frames are processed at a few hundred rows and prepared on demand. Besides the clip and the finished masks, the segmenter holds a few
frames, and a few kilobytes per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.masks import mask_propagation
from lora_edit.masks.boxes import box_to_edges
from lora_edit.masks.interactive import correct_mask, segment_box, segment_points
from lora_edit.masks.saliency import SaliencyNetwork
from lora_edit.masks.segmenter import FramePrompts, Prompt, check_prompts, describe_lost_frames, group_by_object
from lora_edit.types import BoolArray, EditMask, Float32Array, OnFrame, Size, UInt8Array
from lora_edit.video.flow import OpticalFlow

ROWS = (256, 360)
"""Minimum and maximum rows of the pictures in which objects are segmented."""

MOTION_FRAME_GAP = 2
"""Number of frames between the two pictures whose motion separates a clicked object from its surroundings."""

MAX_CACHED_TRACKS = 16
"""Number of tracks kept for the next call, so that a correction computes only what it changes."""


class EmbeddedSegmenter:
    """`Segmenter` by GrabCut, optical flow and graph cuts (`interactive.py`, `mask_propagation.py`). The last clip's results are cached
    for the next call.

    With a `network` (`saliency.py`), its saliency also contributes to the first prompt of an object.
    """

    def __init__(self, network: SaliencyNetwork | None = None) -> None:
        self._network = network
        self._clip: _Clip | None = None

    def segment(self, frames: torch.Tensor, prompts: Sequence[Prompt], on_frame: OnFrame | None = None) -> dict[str, EditMask]:
        """See `Segmenter.segment`."""
        check_prompts(prompts, len(frames), Size(frames.shape[1], frames.shape[2]))
        clip, objects = self._open_clip(frames), group_by_object(prompts)
        object_masks, total = dict[str, EditMask](), len(objects) * len(frames)
        for number, (name, frame_prompts) in enumerate(objects.items()):
            masks = torch.zeros(frames.shape[:3], dtype=torch.bool)
            with clip.lock:
                anchors = clip.segment_prompted_frames(frame_prompts)
                for frame in range(len(frames)):
                    masks[frame] = clip.upscale_mask(clip.segment_frame(frame, anchors))
                    if on_frame is not None:
                        on_frame(number * len(frames) + frame + 1, total)
            object_masks[name] = EditMask(masks, describe_lost_frames(name, masks))
        return object_masks

    def segment_frame(self, frames: torch.Tensor, prompts: Sequence[Prompt], frame: int) -> torch.Tensor:
        """See `Segmenter.segment_frame`."""
        check_prompts(prompts, len(frames), Size(frames.shape[1], frames.shape[2]))
        clip = self._open_clip(frames)
        with clip.lock:
            (frame_prompts,) = group_by_object(prompts).values()
            return clip.upscale_mask(clip.segment_frame(frame, clip.segment_prompted_frames(frame_prompts)))

    def _open_clip(self, frames: torch.Tensor) -> _Clip:
        clip = self._clip
        if clip is None or clip.frames is not frames:
            clip = self._clip = _Clip(frames, self._network)
        return clip


class _Clip:
    """A clip at its working size, with the masks propagated through it so far."""

    def __init__(self, frames: torch.Tensor, network: SaliencyNetwork | None = None) -> None:
        self.frames, self.network, self.lock = frames, network, Lock()
        self.flow = OpticalFlow(frames.shape[1], frames.shape[2], ROWS, 320)
        self.scale = np.array([self.flow.size[0] / frames.shape[2], self.flow.size[1] / frames.shape[1]])
        self.tracks: dict[tuple[int, int, bytes], _MaskTrack] = {}

    def resize_frame(self, frame_index: int) -> UInt8Array:
        """Resize a frame to the size of the flow, `[h, w, 3]`."""
        frame = np.ascontiguousarray(self.frames[frame_index].numpy())
        interpolation = cv2.INTER_CUBIC if self.flow.size[1] > frame.shape[0] else cv2.INTER_AREA
        return np.asarray(cv2.resize(frame, self.flow.size, interpolation=interpolation), np.uint8)

    def upscale_mask(self, mask: BoolArray) -> torch.Tensor:
        """Resize a mask `[h, w]` to the clip's own size `[H, W]`."""
        height, width = self.frames.shape[1:3]
        resized = cv2.resize(mask.view(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(np.asarray(resized > 127))

    def segment_prompted_frames(self, prompts: Sequence[FramePrompts]) -> dict[int, BoolArray]:
        """Segment the object `[h, w]` at its prompted frames. Each later prompt corrects the mask that the earlier ones give there."""
        anchors: dict[int, BoolArray] = {}
        for prompt in prompts:
            anchors[prompt.frame] = self._segment_prompt(prompt, self.segment_frame(prompt.frame, anchors) if anchors else None)
        return anchors

    def _segment_prompt(self, prompt: FramePrompts, previous_mask: BoolArray | None) -> BoolArray:
        """Segment the prompted object of a frame, starting from `previous_mask` where there is one."""
        picture = self.resize_frame(prompt.frame)
        positive_points, negative_points = (
            [(float(x * self.scale[0]), float(y * self.scale[1])) for x, y in points]
            for points in (prompt.positive_points, prompt.negative_points)
        )
        if prompt.box is not None:
            box = np.asarray(box_to_edges(prompt.box) * np.tile(self.scale, 2), np.float32)
            mask = segment_box(picture, box, None if self.network is None else self._estimate_motion(prompt.frame, picture), self.network)
        elif previous_mask is not None and previous_mask.any():
            mask = previous_mask
        elif positive_points:
            mask, positive_points = segment_points(picture, positive_points, self._estimate_motion(prompt.frame, picture), self.network), []
        else:
            return np.zeros(picture.shape[:2], np.bool_)
        return correct_mask(picture, mask, positive_points, negative_points) if positive_points or negative_points else mask

    def _estimate_motion(self, frame_index: int, picture: UInt8Array) -> Float32Array | None:
        """Estimate the motion `[h, w, 2]` at a frame over a few frames. Returns None for a still."""
        other_frame = (
            frame_index + MOTION_FRAME_GAP if frame_index + MOTION_FRAME_GAP < len(self.frames) else max(0, frame_index - MOTION_FRAME_GAP)
        )
        if other_frame == frame_index:
            return None
        greys = [np.asarray(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), np.uint8) for each in (picture, self.resize_frame(other_frame))]
        return self.flow.compute_backward_flow(greys[0], greys[1])[0]

    def segment_frame(self, frame_index: int, anchors: dict[int, BoolArray]) -> BoolArray:
        """Return the object's mask at a frame, propagated from the nearer prompted frame, or from the one on the other side where that
        lost the object."""
        earlier = [frame for frame in anchors if frame <= frame_index]
        later = [frame for frame in anchors if frame > frame_index]
        anchor_frames = [max(earlier)] if earlier else []
        anchor_frames += [min(later)] if later else []
        mask = np.zeros(self.flow.size[::-1], np.bool_)
        for frame in sorted(anchor_frames, key=lambda each: abs(each - frame_index)):
            mask = self._get_track(frame, anchors[frame], 1 if frame_index >= frame else -1).compute_mask(abs(frame_index - frame))
            if mask.any() or frame == frame_index:
                return mask
        return mask

    def _get_track(self, frame: int, mask: BoolArray, direction: int) -> _MaskTrack:
        key = (frame, direction, np.packbits(mask).tobytes())
        track = self.tracks.pop(key, None) or _MaskTrack(self, frame, mask, direction)
        self.tracks[key] = track
        while len(self.tracks) > MAX_CACHED_TRACKS:
            del self.tracks[next(iter(self.tracks))]
        return track


class _MaskTrack:
    """An object propagated forward (`direction` 1) or backward (-1) from a frame, extended on demand."""

    def __init__(self, clip: _Clip, frame: int, mask: BoolArray, direction: int) -> None:
        self.clip, self.frame, self.direction = clip, frame, direction
        self.masks: list[npt.NDArray[np.uint8]] = [np.packbits(mask)]
        self.previous_frame = clip.resize_frame(frame)
        self.state = mask_propagation.init_object_state(self.previous_frame, mask) if mask.any() else None

    def compute_mask(self, distance: int) -> BoolArray:
        """Compute the object's mask `[h, w]` at `distance` frames from the track's start."""
        shape = self.clip.flow.size[::-1]
        while len(self.masks) <= distance and self.state is not None:
            current_frame = self.clip.resize_frame(self.frame + self.direction * len(self.masks))
            self.state = mask_propagation.propagate_object(self.state, self.previous_frame, current_frame, self.clip.flow)
            self.previous_frame = current_frame
            self.masks.append(np.packbits(self.state.mask))
        packed = self.masks[min(distance, len(self.masks) - 1)]
        return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
