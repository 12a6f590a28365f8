"""The segmenter that needs no weights: prompts are cut out of their frame by colour and motion, then carried from frame to frame.

Where a small network is at hand (`salient.py`), it has a say in what is prompted.

It works on pictures of a few hundred rows, made when they are needed: beside the clip and the finished masks it holds a few frames, and
some kilobytes for each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import cv2
import numpy as np
import numpy.typing as npt
import torch

from lora_edit.masks import carried
from lora_edit.masks.pointed import corrected, mask_at_points, mask_in_box
from lora_edit.masks.salient import SalientNet
from lora_edit.masks.segment import Marked, OnFrame, Prompt, by_object, check_prompts, lost_note
from lora_edit.types import BoolArray, EditMask, Float32Array, Size, UInt8Array
from lora_edit.video.flow import OpticalFlow

ROWS = (256, 360)
"""Rows of the pictures that objects are cut out of: at least, at most."""

APART = 2
"""Frames over which a clicked thing is told from what is around it by its motion."""

KEPT = 16
"""Runs that are kept for the next call: a correction computes only what it changes."""


class EmbeddedSegmenter:
    """`Segmenter` by GrabCut, optical flow and graph cuts (`pointed.py`, `carried.py`). The last clip's work is kept for the next call.

    With a `net` the first prompt of an object is also seen by it (`salient.py`).
    """

    def __init__(self, net: SalientNet | None = None) -> None:
        self._net = net
        self._clip: _Clip | None = None

    def segment(self, frames: torch.Tensor, prompts: Sequence[Prompt], on_frame: OnFrame | None = None) -> dict[str, EditMask]:
        """See `Segmenter.segment`."""
        check_prompts(prompts, len(frames), Size(frames.shape[1], frames.shape[2]))
        clip, objects = self._opened(frames), by_object(prompts)
        found, total = dict[str, EditMask](), len(objects) * len(frames)
        for number, (name, marked) in enumerate(objects.items()):
            masks = torch.zeros(frames.shape[:3], dtype=torch.bool)
            with clip.lock:
                anchors = clip.anchors(marked)
                for frame in range(len(frames)):
                    masks[frame] = clip.enlarged(clip.at(frame, anchors))
                    if on_frame is not None:
                        on_frame(number * len(frames) + frame + 1, total)
            found[name] = EditMask(masks, lost_note(name, masks))
        return found

    def outline(self, frames: torch.Tensor, prompts: Sequence[Prompt], frame: int) -> torch.Tensor:
        """See `Segmenter.outline`."""
        check_prompts(prompts, len(frames), Size(frames.shape[1], frames.shape[2]))
        clip = self._opened(frames)
        with clip.lock:
            (marked,) = by_object(prompts).values()
            return clip.enlarged(clip.at(frame, clip.anchors(marked)))

    def _opened(self, frames: torch.Tensor) -> _Clip:
        clip = self._clip
        if clip is None or clip.frames is not frames:
            clip = self._clip = _Clip(frames, self._net)
        return clip


class _Clip:
    """A clip at the size that it is worked on, and what was carried through it so far."""

    def __init__(self, frames: torch.Tensor, net: SalientNet | None = None) -> None:
        self.frames, self.net, self.lock = frames, net, Lock()
        self.flow = OpticalFlow(frames.shape[1], frames.shape[2], ROWS, 320)
        self.scale = np.array([self.flow.size[0] / frames.shape[2], self.flow.size[1] / frames.shape[1]])
        self.runs: dict[tuple[int, int, bytes], _Run] = {}

    def picture(self, number: int) -> UInt8Array:
        """A frame `[h, w, 3]` at the size of the flow."""
        frame = np.ascontiguousarray(self.frames[number].numpy())
        method = cv2.INTER_CUBIC if self.flow.size[1] > frame.shape[0] else cv2.INTER_AREA
        return np.asarray(cv2.resize(frame, self.flow.size, interpolation=method), np.uint8)

    def enlarged(self, mask: BoolArray) -> torch.Tensor:
        """A mask `[h, w]` at the clip's own size `[H, W]`."""
        height, width = self.frames.shape[1:3]
        smooth = cv2.resize(mask.view(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(np.asarray(smooth > 127))

    def anchors(self, marked: Sequence[Marked]) -> dict[int, BoolArray]:
        """The object `[h, w]` at its prompted frames, each prompt seen in the light of those before it."""
        found: dict[int, BoolArray] = {}
        for here in marked:
            found[here.frame] = self._pointed(here, self.at(here.frame, found) if found else None)
        return found

    def _pointed(self, here: Marked, before: BoolArray | None) -> BoolArray:
        """What is marked on a frame, where `before` was found until now."""
        picture = self.picture(here.frame)
        on, off = ([(float(x * self.scale[0]), float(y * self.scale[1])) for x, y in points] for points in (here.on, here.off))
        if here.box is not None:
            box = np.asarray(np.array(here.box) * np.tile(self.scale, 2), np.float32)
            mask = mask_in_box(picture, box, None if self.net is None else self._motion(here.frame, picture), self.net)
        elif before is not None and before.any():
            mask = before
        elif on:
            mask, on = mask_at_points(picture, on, self._motion(here.frame, picture), self.net), []
        else:
            return np.zeros(picture.shape[:2], np.bool_)
        return corrected(picture, mask, on, off) if on or off else mask

    def _motion(self, number: int, picture: UInt8Array) -> Float32Array | None:
        """Motion `[h, w, 2]` at a frame, over a few frames; None for a still."""
        other = number + APART if number + APART < len(self.frames) else max(0, number - APART)
        if other == number:
            return None
        greys = [np.asarray(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), np.uint8) for each in (picture, self.picture(other))]
        return self.flow.back(greys[0], greys[1])[0]

    def at(self, number: int, anchors: dict[int, BoolArray]) -> BoolArray:
        """The object at a frame: carried from the nearer prompted frame, or from the one on its other side where that lost it."""
        earlier = [frame for frame in anchors if frame <= number]
        later = [frame for frame in anchors if frame > number]
        near = [max(earlier)] if earlier else []
        near += [min(later)] if later else []
        mask = np.zeros(self.flow.size[::-1], np.bool_)
        for frame in sorted(near, key=lambda each: abs(each - number)):
            mask = self._run(frame, anchors[frame], 1 if number >= frame else -1).at(abs(number - frame))
            if mask.any() or frame == number:
                return mask
        return mask

    def _run(self, frame: int, mask: BoolArray, way: int) -> _Run:
        key = (frame, way, np.packbits(mask).tobytes())
        run = self.runs.pop(key, None) or _Run(self, frame, mask, way)
        self.runs[key] = run
        while len(self.runs) > KEPT:
            del self.runs[next(iter(self.runs))]
        return run


class _Run:
    """An object carried forward (`way` 1) or backward (-1) from a frame, as far as it was asked for."""

    def __init__(self, clip: _Clip, frame: int, mask: BoolArray, way: int) -> None:
        self.clip, self.frame, self.way = clip, frame, way
        self.masks: list[npt.NDArray[np.uint8]] = [np.packbits(mask)]
        self.before = clip.picture(frame)
        self.state = carried.begin(self.before, mask) if mask.any() else None

    def at(self, distance: int) -> BoolArray:
        """The object `[h, w]` so many frames from where the run began."""
        shape = self.clip.flow.size[::-1]
        while len(self.masks) <= distance and self.state is not None:
            now = self.clip.picture(self.frame + self.way * len(self.masks))
            self.state = carried.step(self.state, self.before, now, self.clip.flow)
            self.before = now
            self.masks.append(np.packbits(self.state.mask))
        packed = self.masks[min(distance, len(self.masks) - 1)]
        return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
