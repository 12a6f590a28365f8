"""Pictures for the page: frames, regions and marks as the browser shows them. All `[H, W, 3]` uint8 unless said otherwise."""

from __future__ import annotations

import base64
import time
from typing import Any

import cv2
import numpy as np
import torch

from lora_edit.masks.check import changed_area
from lora_edit.masks.overlay import with_region
from lora_edit.types import Size, Video
from lora_edit.video.resize import resize_frames
from lora_edit.video.sound import sound_alone

WIDEST = 1280
"""Columns of a still on the page; larger frames are shown smaller."""

FILM_WIDTH, FILM_LENGTH = 640, 120
"""Columns of a frame that is played, and how many are played at most."""


def shown_size(size: Size, widest: int = WIDEST) -> Size:
    """The size at which a frame of that size is shown."""
    if size.width <= widest:
        return size
    return Size(max(1, round(size.height * widest / size.width)), widest)


def small(frame: torch.Tensor, widest: int = WIDEST) -> torch.Tensor:
    """A frame at the size it is shown at."""
    size = shown_size(Size(*frame.shape[:2]), widest)
    return frame if size == Size(*frame.shape[:2]) else resize_frames(frame[None], size)[0]


def jpeg(picture: torch.Tensor, quality: int = 88) -> str:
    """The picture as text that an `<img>` takes: it needs no address on the server that others could open."""
    bgr = np.ascontiguousarray(picture.numpy()[..., ::-1])
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def middle_of_change(source: torch.Tensor, edited: torch.Tensor) -> float:
    """Where a divider shows both sides of what differs between two frames `[H, W, 3]`: per cent of the width, 50 where nothing does."""
    columns = np.nonzero(changed_area(source, edited))[1]
    return round(100 * (float(np.median(columns)) + 0.5) / source.shape[1], 1) if len(columns) else 50.0


def chosen_frames(count: int) -> list[int]:
    """Which of `count` frames are played."""
    return np.unique(np.linspace(0, count - 1, min(count, FILM_LENGTH)).round().astype(int)).tolist()


def film(video: Video, region: torch.Tensor | None = None, edit: Video | None = None) -> dict[str, Any]:
    """What the viewer plays: small pictures of the clip, with its edit region `[T, H, W]` or beside an edit of it where these are given;
    and its sound."""
    numbers = chosen_frames(video.num_frames)
    shown: dict[str, Any] = {"pictures": [_played(video.frames[number], None if region is None else region[number]) for number in numbers]}
    if edit is not None:
        shown["over"] = [_played(edit.frames[number], None) for number in numbers]
    sound = sound_alone(video)
    if sound:
        shown["sound"] = "data:audio/webm;base64," + base64.b64encode(sound).decode("ascii")
    return {**shown, "numbers": numbers, "rate": max(1.0, float(video.fps) * len(numbers) / video.num_frames)}


def _played(frame: torch.Tensor, region: torch.Tensor | None) -> str:
    picture = small(frame, FILM_WIDTH)
    if region is not None:
        here = cv2.resize(region.numpy().view(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        picture = with_region(picture, torch.from_numpy(here))
    return jpeg(picture, 72)


def strip(frames: torch.Tensor, height: int = 180) -> torch.Tensor:
    """Frames `[n, H, W, 3]` side by side."""
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    cells = resize_frames(frames, Size(height, width))
    return torch.cat(list(cells), dim=1)


def still(frame: torch.Tensor, number: int, count: int, label: str, **more: Any) -> dict[str, Any]:
    """What the viewer shows: one frame; `width` and `height` are those in which marks are counted."""
    height, width = frame.shape[:2]
    turn = time.monotonic_ns()  # the browser is told of what differs only, and the viewer waits for an answer to each question
    shown = {"src": jpeg(small(frame)), "frame": number, "count": count, "width": width, "height": height, "label": label}
    return {**shown, "turn": turn, **more}
