"""Images for the page: frames, regions and playback data for the viewer. Images are `[H, W, 3]` uint8 unless noted otherwise."""

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
"""Maximum width of a still in pixels; larger frames are scaled down."""

PLAYBACK_WIDTH, MAX_PLAYBACK_FRAMES = 640, 120
"""Width of a played frame in pixels, and the maximum number of played frames."""


def fit_display_size(size: Size, max_width: int = MAX_DISPLAY_WIDTH) -> Size:
    """Return the display size of a frame: scaled down to `max_width`, never up."""
    if size.width <= max_width:
        return size
    return Size(max(1, round(size.height * max_width / size.width)), max_width)


def shrink_frame(frame: torch.Tensor, max_width: int = MAX_DISPLAY_WIDTH) -> torch.Tensor:
    """Scale a frame down to its display size."""
    size = fit_display_size(Size(*frame.shape[:2]), max_width)
    return frame if size == Size(*frame.shape[:2]) else resize_frames(frame[None], size)[0]


def encode_jpeg(picture: torch.Tensor, quality: int = 88) -> str:
    """Encode an image as a JPEG data URL for an `<img>`. A data URL needs no file address on the server, which others could open."""
    bgr = np.ascontiguousarray(picture.numpy()[..., ::-1])
    success, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert success
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def find_divider_position(source: torch.Tensor, edited: torch.Tensor) -> float:
    """Return the divider position at the median column of the changed area of two frames `[H, W, 3]`.

    In per cent of the width; 50 if nothing differs.
    """
    columns = np.nonzero(detect_changed_area(source, edited))[1]
    return round(100 * (float(np.median(columns)) + 0.5) / source.shape[1], 1) if len(columns) else 50.0


def select_playback_frames(count: int) -> list[int]:
    """Select at most `MAX_PLAYBACK_FRAMES` evenly spaced frames out of `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_PLAYBACK_FRAMES)).round().astype(int)).tolist()


def build_playback(video: Video, region: torch.Tensor | None = None, edit: Video | None = None) -> dict[str, Any]:
    """Build the playback data of the viewer: small frames of the clip and its sound.

    `region` `[T, H, W]` bool is drawn over the frames; `edit` is played beside them.
    """
    numbers = select_playback_frames(video.num_frames)
    playback: dict[str, Any] = {
        "pictures": [_encode_playback_frame(video.frames[number], None if region is None else region[number]) for number in numbers]
    }
    if edit is not None:
        playback["over"] = [_encode_playback_frame(edit.frames[number], None) for number in numbers]
    sound = extract_audio(video)
    if sound:
        playback["sound"] = "data:audio/webm;base64," + base64.b64encode(sound).decode("ascii")
    return {**playback, "numbers": numbers, "rate": max(1.0, float(video.fps) * len(numbers) / video.num_frames)}


def _encode_playback_frame(frame: torch.Tensor, region: torch.Tensor | None) -> str:
    picture = shrink_frame(frame, PLAYBACK_WIDTH)
    if region is not None:
        resized = cv2.resize(region.numpy().view(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        picture = draw_region(picture, torch.from_numpy(resized))
    return encode_jpeg(picture, 72)


def join_frames(frames: torch.Tensor, height: int = 180) -> torch.Tensor:
    """Scale frames `[n, H, W, 3]` to a height in pixels and join them side by side."""
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    cells = resize_frames(frames, Size(height, width))
    return torch.cat(list(cells), dim=1)


def build_still(frame: torch.Tensor, number: int, count: int, label: str, **extra: Any) -> dict[str, Any]:
    """Build the viewer's value for one frame; marks use its full `width` and `height` in pixels."""
    height, width = frame.shape[:2]
    turn = time.monotonic_ns()  # Gradio sends changed values only, and the viewer waits for a response to each request
    still = {"src": encode_jpeg(shrink_frame(frame)), "frame": number, "count": count, "width": width, "height": height, "label": label}
    return {**still, "turn": turn, **extra}
