"""Pictures for the page: frames, regions and marks as the browser shows them. All `[H, W, 3]` uint8 unless said otherwise."""

from __future__ import annotations

import base64
import time
from typing import Any

import cv2
import numpy as np
import torch

from lora_edit.masks.change_detection import detect_changed_area
from lora_edit.masks.overlay import draw_region
from lora_edit.types import Size, Video
from lora_edit.video.audio import extract_audio
from lora_edit.video.resize import resize_frames

MAX_DISPLAY_WIDTH = 1280
"""Columns of a still on the page; larger frames are shown smaller."""

PLAYBACK_WIDTH, MAX_PLAYBACK_FRAMES = 640, 120
"""Columns of a frame that is played, and how many are played at most."""


def fit_display_size(size: Size, max_width: int = MAX_DISPLAY_WIDTH) -> Size:
    """The size at which a frame of that size is shown."""
    if size.width <= max_width:
        return size
    return Size(max(1, round(size.height * max_width / size.width)), max_width)


def shrink_frame(frame: torch.Tensor, max_width: int = MAX_DISPLAY_WIDTH) -> torch.Tensor:
    """A frame at the size it is shown at."""
    size = fit_display_size(Size(*frame.shape[:2]), max_width)
    return frame if size == Size(*frame.shape[:2]) else resize_frames(frame[None], size)[0]


def encode_jpeg(picture: torch.Tensor, quality: int = 88) -> str:
    """The picture as text that an `<img>` takes: it needs no address on the server that others could open."""
    bgr = np.ascontiguousarray(picture.numpy()[..., ::-1])
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def find_divider_position(source: torch.Tensor, edited: torch.Tensor) -> float:
    """Where a divider shows both sides of what differs between two frames `[H, W, 3]`: per cent of the width, 50 where nothing does."""
    columns = np.nonzero(detect_changed_area(source, edited))[1]
    return round(100 * (float(np.median(columns)) + 0.5) / source.shape[1], 1) if len(columns) else 50.0


def select_playback_frames(count: int) -> list[int]:
    """Which of `count` frames are played."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_PLAYBACK_FRAMES)).round().astype(int)).tolist()


def build_playback(video: Video, region: torch.Tensor | None = None, edit: Video | None = None) -> dict[str, Any]:
    """What the viewer plays: small pictures of the clip, with its edit region `[T, H, W]` or beside an edit of it where these are given;
    and its sound."""
    numbers = select_playback_frames(video.num_frames)
    shown: dict[str, Any] = {
        "pictures": [_encode_playback_frame(video.frames[number], None if region is None else region[number]) for number in numbers]
    }
    if edit is not None:
        shown["over"] = [_encode_playback_frame(edit.frames[number], None) for number in numbers]
    sound = extract_audio(video)
    if sound:
        shown["sound"] = "data:audio/webm;base64," + base64.b64encode(sound).decode("ascii")
    return {**shown, "numbers": numbers, "rate": max(1.0, float(video.fps) * len(numbers) / video.num_frames)}


def _encode_playback_frame(frame: torch.Tensor, region: torch.Tensor | None) -> str:
    picture = shrink_frame(frame, PLAYBACK_WIDTH)
    if region is not None:
        here = cv2.resize(region.numpy().view(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        picture = draw_region(picture, torch.from_numpy(here))
    return encode_jpeg(picture, 72)


def join_frames(frames: torch.Tensor, height: int = 180) -> torch.Tensor:
    """Frames `[n, H, W, 3]` side by side."""
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    cells = resize_frames(frames, Size(height, width))
    return torch.cat(list(cells), dim=1)


def build_still(frame: torch.Tensor, number: int, count: int, label: str, **extra: Any) -> dict[str, Any]:
    """What the viewer shows: one frame; `width` and `height` are those in which marks are counted."""
    height, width = frame.shape[:2]
    turn = time.monotonic_ns()  # the browser is told of what differs only, and the viewer waits for an answer to each question
    shown = {"src": encode_jpeg(shrink_frame(frame)), "frame": number, "count": count, "width": width, "height": height, "label": label}
    return {**shown, "turn": turn, **extra}
