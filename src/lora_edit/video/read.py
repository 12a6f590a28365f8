"""Clips from files: `read_video` for whatever a person has, `probe` for a quick look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch

from lora_edit.errors import VideoError
from lora_edit.types import Chapter, Size, Video
from lora_edit.video.chapters import cut_chapters, read_chapters
from lora_edit.video.decode import (
    DecodedFrame,
    check_range,
    decode_range,
    get_clockwise_degrees,
    get_frame_rate,
    open_video,
    read_orientation,
)
from lora_edit.video.images import (
    describe_numbering_faults,
    is_image_file,
    list_images,
    load_animation,
    load_folder,
    load_image_array,
    read_animation_info,
    read_image,
    require_file,
)
from lora_edit.video.settings import VideoSettings
from lora_edit.video.stream_metadata import StreamMetadata, read_stream_metadata
from lora_edit.video.timing import compute_end_time

__all__ = ["VideoInfo", "probe_video", "read_image", "read_video"]

FOLDER_RATE = Fraction(25)  # a folder of pictures states no rate
_DURATION_TOLERANCE = 0.1  # share of 1 / fps by which the last frame's duration may differ without meaning anything
_RATE_TOLERANCE = 0.005  # frames per second by which people round television's rates
_MAX_FRAME_DURATION = 60  # seconds


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header says.

    `num_frames` is None where only decoding would tell. `size` is upright. `rotation` is how far players turn the stored picture
    clockwise, in degrees; `read_video` has applied it already.
    """

    num_frames: int | None
    size: Size
    fps: Fraction
    has_audio: bool
    rotation: int


def read_video(path: Path, settings: VideoSettings | None = None) -> Video:
    """The wanted range of a video file, an animated GIF, WebP or APNG, or a folder of pictures in natural order.

    Raises `VideoError` when the path is missing, holds no video, is damaged within the range, or is shorter than the range.
    """
    settings = settings or VideoSettings()
    require_file(path)
    if path.is_dir():
        video = _read_folder(path, settings)
    elif is_image_file(path):
        video = _read_animation(path, settings)
    else:
        video = _read_file(path, settings)
    return video if settings.fps is None else _set_frame_rate(video, settings.fps)


def probe_video(path: Path) -> VideoInfo:
    """Size, rate and length without reading the clip. Raises `VideoError` when the path is missing or no video."""
    require_file(path)
    if path.is_dir():
        paths = list_images(path)
        height, width = load_image_array(paths[0]).shape[:2]
        return VideoInfo(len(paths), Size(height, width), FOLDER_RATE, has_audio=False, rotation=0)
    if is_image_file(path):
        info = read_animation_info(path)
        return VideoInfo(len(info.durations), info.size, _compute_mean_rate(info.durations), has_audio=False, rotation=0)
    with open_video(path) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise VideoError(f"{path}: holds no frames; export it again")
        rotation = get_clockwise_degrees(read_orientation(frame))
        size = Size(frame.height, frame.width) if rotation % 180 == 0 else Size(frame.width, frame.height)
        return VideoInfo(stream.frames or None, size, get_frame_rate(stream), bool(container.streams.audio), rotation)


def _compute_stop(settings: VideoSettings) -> int | None:
    return None if settings.frames is None else settings.start + settings.frames


def _read_folder(path: Path, settings: VideoSettings) -> Video:
    paths = list_images(path)
    check_range(path, settings.start, _compute_stop(settings), len(paths))
    chosen = paths[settings.start : _compute_stop(settings)]
    frames, alpha = _collect_frames(path, load_folder(chosen), len(chosen))
    times = _build_even_times(len(frames), FOLDER_RATE)
    return Video(frames, FOLDER_RATE, times, alpha, source=path, notes=describe_numbering_faults(chosen))


def _read_animation(path: Path, settings: VideoSettings) -> Video:
    durations = read_animation_info(path).durations
    check_range(path, settings.start, _compute_stop(settings), len(durations))
    chosen = durations[settings.start : _compute_stop(settings)]
    frames, alpha = _collect_frames(path, load_animation(path, settings.start, settings.start + len(chosen)), len(chosen))
    times = tuple(float(time) for time in accumulate(chosen[:-1], initial=Fraction(0)))
    begin = float(sum(durations[: settings.start], Fraction(0)))
    return Video(frames, _compute_mean_rate(durations), times, alpha, source=path, start_time=begin)


def _read_file(path: Path, settings: VideoSettings) -> Video:
    times: list[Fraction | None] = []
    last: list[DecodedFrame] = []
    facts: list[StreamMetadata] = []
    chapters: list[Chapter] = []
    with open_video(path) as (container, stream):
        fps = get_frame_rate(stream)

        def pictures() -> Iterator[np.ndarray]:
            for decoded in decode_range(path, container, stream, settings.start, _compute_stop(settings)):
                times.append(decoded.time)
                last[:] = [decoded]
                if not facts:
                    chapters[:] = read_chapters(container)
                    facts.append(read_stream_metadata(container, stream, decoded.stored_frame))
                yield decoded.image

        frames, alpha = _collect_frames(path, pictures(), settings.frames or max(stream.frames - settings.start, 1))
        has_sound = bool(container.streams.audio)
    clock = _select_valid_times(times)
    known = [time for time in times if time is not None]
    begin = float(known[0]) if known else float(settings.start / fps)
    video = Video(
        frames=frames,
        fps=fps,
        times=tuple(float(time - clock[0]) for time in clock) if clock else _build_even_times(len(frames), fps),
        alpha=alpha,
        source=path,
        start_time=begin,
        has_sound=has_sound,
        start_frame=settings.start,
        last_duration=_get_last_duration(last[0], fps) if clock else None,
        shifts=tuple(float(shift) for shift in last[0].shifts),
        pixel_aspect=facts[0].pixel_aspect,
        tags=facts[0].tags,
        field_order=facts[0].field_order,
        matching_pix_fmt=facts[0].matching_pix_fmt,
        notes=facts[0].notes,
    )
    # Of a joined recording the first part alone would have its chapters at the right time.
    inside = cut_chapters(tuple(chapters), begin, begin + compute_end_time(video)) if len(video.shifts) == 1 else ()
    return replace(video, chapters=inside)


def _get_last_duration(last: DecodedFrame, fps: Fraction) -> float | None:
    """How long the last frame is shown; None for about 1 / fps, and where the file does not say or says nonsense."""
    if last.duration is None or abs(last.duration * fps - 1) < _DURATION_TOLERANCE or last.duration > _MAX_FRAME_DURATION:
        return None
    return float(last.duration)


def _collect_frames(path: Path, images: Iterator[np.ndarray], expected_count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Frames `[T, H, W, 3]` and alpha `[T, H, W]` (None where all is opaque), held in memory once: buffers grow, nothing is stacked."""
    frames = torch.empty(0, dtype=torch.uint8)
    alpha: torch.Tensor | None = None
    count = 0
    for picture in images:
        if count == 0:
            frames = torch.empty((expected_count, *picture.shape[:2], 3), dtype=torch.uint8)
        elif picture.shape[:2] != tuple(frames.shape[1:3]):
            raise VideoError(f"{path}: the picture size changes at frame {count} of the range; cut the clip there or export it at one size")
        if count == len(frames):
            frames = _grow_buffer(frames, 0)
            alpha = None if alpha is None else _grow_buffer(alpha, 255)
        frames[count] = torch.from_numpy(np.ascontiguousarray(picture[..., :3]))
        if picture.shape[-1] == 4 and picture[..., 3].min() < 255:
            alpha = torch.full(frames.shape[:3], 255, dtype=torch.uint8) if alpha is None else alpha
            alpha[count] = torch.from_numpy(np.ascontiguousarray(picture[..., 3]))
        count += 1
    return frames[:count], None if alpha is None else alpha[:count]


def _grow_buffer(buffer: torch.Tensor, value: int) -> torch.Tensor:
    return torch.cat([buffer, torch.full_like(buffer[: max(len(buffer) // 2, 1)], value)])


def _select_valid_times(times: list[Fraction | None]) -> list[Fraction]:
    """The frames' times where the file gives every frame one, and all in rising order; otherwise nothing."""
    known = [time for time in times if time is not None]
    rising = all(earlier < later for earlier, later in pairwise(known))
    return known if len(known) == len(times) and rising else []


def _build_even_times(count: int, fps: Fraction) -> tuple[float, ...]:
    return tuple(float(index / fps) for index in range(count))


def _compute_mean_rate(durations: tuple[Fraction, ...]) -> Fraction:
    return (len(durations) / sum(durations, Fraction(0))).limit_denominator(1001)


def to_exact_rate(rate: float) -> Fraction:
    """Frames per second as television counts them: 23.976 and 29.97 mean 24000/1001 and 30000/1001."""
    whole = Fraction(round(rate * 1.001))
    television = whole * Fraction(1000, 1001)
    return television if abs(rate - whole) > 0 and abs(rate - television) < _RATE_TOLERANCE else Fraction(rate).limit_denominator(1001)


def _set_frame_rate(video: Video, rate: float) -> Video:
    fps = to_exact_rate(rate)
    return replace(video, fps=fps, times=_build_even_times(video.num_frames, fps), last_duration=None, has_sound=False, chapters=())
