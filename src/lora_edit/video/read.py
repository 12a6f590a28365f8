"""Reading of clips: `read_video` decodes a video, an animation or a folder of images; `probe_video` reads only size, rate and length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch

from lora_edit.devices import get_free_host_bytes
from lora_edit.errors import VideoError
from lora_edit.reporting import format_bytes
from lora_edit.types import Chapter, Size, Video
from lora_edit.video.chapters import cut_chapters, read_chapters
from lora_edit.video.decode import (
    DecodedFrame,
    check_range,
    decode_first_frame,
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

FOLDER_RATE = Fraction(25)  # a folder of images states no rate
_DURATION_TOLERANCE = 0.1  # share of 1 / fps; smaller differences of the last frame's duration are ignored
_RATE_TOLERANCE = 0.005  # frames per second; television rates are often given rounded
_MAX_FRAME_DURATION = 60  # seconds
_UNSTATED_FRAMES = 64  # for which there is room at first where a file does not state its number of frames


@dataclass(frozen=True)
class VideoInfo:
    """Information from a file's header.

    `num_frames` is None where it is unknown without decoding. `size` is upright. `rotation` is the clockwise rotation, in degrees, that
    players apply to the stored image; `read_video` applies it.
    """

    num_frames: int | None
    size: Size
    fps: Fraction
    has_audio: bool
    rotation: int


def read_video(path: Path, settings: VideoSettings | None = None) -> Video:
    """Read the range given by `settings` of a video file, an animated GIF, WebP or APNG, or a folder of images in natural order.

    Raises `VideoError` when the path is missing, is not a video, is damaged within the range, or is shorter than the range.
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


def iterate_frames(path: Path) -> Iterator[torch.Tensor]:
    """Yield the frames `[H, W, 3]` uint8 of what `read_video` reads, without keeping them. Raises `VideoError` as it does."""
    require_file(path)
    if path.is_dir():
        images = load_folder(list_images(path))
    elif is_image_file(path):
        images = load_animation(path, 0, len(read_animation_info(path).durations))
    else:
        images = _decode_images(path)
    for image in images:
        yield torch.from_numpy(np.ascontiguousarray(image[..., :3]))


def _decode_images(path: Path) -> Iterator[np.ndarray]:
    with open_video(path) as (container, stream):
        for decoded in decode_range(path, container, stream, 0, None):
            yield decoded.image


def probe_video(path: Path) -> VideoInfo:
    """Read size, rate and length without decoding the whole clip. Raises `VideoError` when the path is missing or not a video."""
    require_file(path)
    if path.is_dir():
        paths = list_images(path)
        height, width = load_image_array(paths[0]).shape[:2]
        return VideoInfo(len(paths), Size(height, width), FOLDER_RATE, has_audio=False, rotation=0)
    if is_image_file(path):
        info = read_animation_info(path)
        return VideoInfo(len(info.durations), info.size, _compute_mean_rate(info.durations), has_audio=False, rotation=0)
    with open_video(path) as (container, stream):
        frame = decode_first_frame(path, container, stream)
        rotation = get_clockwise_degrees(read_orientation(frame))
        size = Size(frame.height, frame.width) if rotation % 180 == 0 else Size(frame.width, frame.height)
        return VideoInfo(stream.frames or None, size, get_frame_rate(stream), bool(container.streams.audio), rotation)


def _compute_stop(settings: VideoSettings) -> int | None:
    return None if settings.frames is None else settings.start + settings.frames


def _read_folder(path: Path, settings: VideoSettings) -> Video:
    paths = list_images(path)
    check_range(path, settings.start, _compute_stop(settings), len(paths))
    range_paths = paths[settings.start : _compute_stop(settings)]
    frames, alpha = _collect_frames(path, load_folder(range_paths), len(range_paths))
    times = _build_even_times(len(frames), FOLDER_RATE)
    return Video(frames, FOLDER_RATE, times, alpha, source=path, notes=describe_numbering_faults(range_paths))


def _read_animation(path: Path, settings: VideoSettings) -> Video:
    durations = read_animation_info(path).durations
    check_range(path, settings.start, _compute_stop(settings), len(durations))
    range_durations = durations[settings.start : _compute_stop(settings)]
    frames, alpha = _collect_frames(path, load_animation(path, settings.start, settings.start + len(range_durations)), len(range_durations))
    times = tuple(float(time) for time in accumulate(range_durations[:-1], initial=Fraction(0)))
    begin = float(sum(durations[: settings.start], Fraction(0)))
    return Video(frames, _compute_mean_rate(durations), times, alpha, source=path, start_time=begin)


def _read_file(path: Path, settings: VideoSettings) -> Video:
    times: list[Fraction | None] = []
    last_frame: list[DecodedFrame] = []
    metadata: list[StreamMetadata] = []
    chapters: list[Chapter] = []
    with open_video(path) as (container, stream):
        fps = get_frame_rate(stream)

        def images() -> Iterator[np.ndarray]:
            for decoded in decode_range(path, container, stream, settings.start, _compute_stop(settings)):
                times.append(decoded.time)
                last_frame[:] = [decoded]
                if not metadata:
                    chapters[:] = read_chapters(container)
                    metadata.append(read_stream_metadata(container, stream, decoded.stored_frame))
                yield decoded.image

        stated_count = max(stream.frames - settings.start, 0) or _UNSTATED_FRAMES
        frames, alpha = _collect_frames(path, images(), min(settings.frames or stated_count, stated_count))
        has_sound = bool(container.streams.audio)
    valid_times = _select_valid_times(times)
    known_times = [time for time in times if time is not None]
    begin = float(known_times[0]) if known_times else float(settings.start / fps)
    video = Video(
        frames=frames,
        fps=fps,
        times=tuple(float(time - valid_times[0]) for time in valid_times) if valid_times else _build_even_times(len(frames), fps),
        alpha=alpha,
        source=path,
        start_time=begin,
        has_sound=has_sound,
        start_frame=settings.start,
        last_duration=_get_last_duration(last_frame[0], fps) if valid_times else None,
        shifts=tuple(float(shift) for shift in last_frame[0].shifts),
        pixel_aspect=metadata[0].pixel_aspect,
        tags=metadata[0].tags,
        field_order=metadata[0].field_order,
        matching_pix_fmt=metadata[0].matching_pix_fmt,
        notes=metadata[0].notes,
    )
    # In a joined recording only the chapters of the first part would be at the right time.
    chapters_in_range = cut_chapters(tuple(chapters), begin, begin + compute_end_time(video)) if len(video.shifts) == 1 else ()
    return replace(video, chapters=chapters_in_range)


def _get_last_duration(last: DecodedFrame, fps: Fraction) -> float | None:
    """Duration of the last frame in seconds; None for about 1 / fps, and where the file states none or an implausible one."""
    if last.duration is None or abs(last.duration * fps - 1) < _DURATION_TOLERANCE or last.duration > _MAX_FRAME_DURATION:
        return None
    return float(last.duration)


def _collect_frames(path: Path, images: Iterator[np.ndarray], expected_count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Collect frames `[T, H, W, 3]` and alpha `[T, H, W]` (None where all is opaque) in growing buffers, so that memory holds them once.

    `expected_count` may be wrong. Raises `VideoError` when the pictures differ in size, or do not fit into the free memory.
    """
    frames = torch.empty(0, dtype=torch.uint8)
    alpha: torch.Tensor | None = None
    count = 0
    for image in images:
        if count == 0:
            frames = _allocate_buffer(path, expected_count, image)
        elif image.shape[:2] != tuple(frames.shape[1:3]):
            raise VideoError(f"{path}: the picture size changes at frame {count} of the range; cut the clip there or export it at one size")
        if count == len(frames):
            _check_free_memory(path, len(frames) + max(len(frames) // 2, 1), image)
            frames = _grow_buffer(frames, 0)
            alpha = None if alpha is None else _grow_buffer(alpha, 255)
        frames[count] = torch.from_numpy(np.ascontiguousarray(image[..., :3]))
        if image.shape[-1] == 4 and image[..., 3].min() < 255:
            alpha = torch.full(frames.shape[:3], 255, dtype=torch.uint8) if alpha is None else alpha
            alpha[count] = torch.from_numpy(np.ascontiguousarray(image[..., 3]))
        count += 1
    return frames[:count], None if alpha is None else alpha[:count]


def _allocate_buffer(path: Path, count: int, image: np.ndarray) -> torch.Tensor:
    _check_free_memory(path, count, image)
    return torch.empty((count, *image.shape[:2], 3), dtype=torch.uint8)


def _check_free_memory(path: Path, count: int, image: np.ndarray) -> None:
    """Raise `VideoError` unless `count` pictures of the size of `image` fit into the free memory."""
    needed, free = 3 * count * image.shape[0] * image.shape[1], get_free_host_bytes()
    if needed > free:
        raise VideoError(
            f"{path}: {count:,} frames of {image.shape[1]}x{image.shape[0]} need {format_bytes(needed)} of memory, {format_bytes(free)} "
            "are free; give --frames, or a smaller clip"
        )


def _grow_buffer(buffer: torch.Tensor, value: int) -> torch.Tensor:
    return torch.cat([buffer, torch.full_like(buffer[: max(len(buffer) // 2, 1)], value)])


def _select_valid_times(times: list[Fraction | None]) -> list[Fraction]:
    """Return the frames' times if every frame has one and they increase; otherwise an empty list."""
    known_times = [time for time in times if time is not None]
    is_increasing = all(earlier < later for earlier, later in pairwise(known_times))
    return known_times if len(known_times) == len(times) and is_increasing else []


def _build_even_times(count: int, fps: Fraction) -> tuple[float, ...]:
    return tuple(float(index / fps) for index in range(count))


def _compute_mean_rate(durations: tuple[Fraction, ...]) -> Fraction:
    return (len(durations) / sum(durations, Fraction(0))).limit_denominator(1001)


def to_exact_rate(rate: float) -> Fraction:
    """Convert a rate to an exact fraction; rounded television rates such as 23.976 and 29.97 become 24000/1001 and 30000/1001."""
    nearest = Fraction(round(rate * 1.001))
    television = nearest * Fraction(1000, 1001)
    return television if abs(rate - nearest) > 0 and abs(rate - television) < _RATE_TOLERANCE else Fraction(rate).limit_denominator(1001)


def _set_frame_rate(video: Video, rate: float) -> Video:
    fps = to_exact_rate(rate)
    return replace(video, fps=fps, times=_build_even_times(video.num_frames, fps), last_duration=None, has_sound=False, chapters=())
