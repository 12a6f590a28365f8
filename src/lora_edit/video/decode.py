"""Decoding of video files with PyAV: frames one by one, upright and exact."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from lora_edit.errors import VideoError
from lora_edit.limits import MAX_FRAME_RATE, MAX_PIXELS, MIN_FRAME_RATE
from lora_edit.video.colors import frame_to_array
from lora_edit.video.continuous_clock import ContinuousClock
from lora_edit.video.libav import READ_ERRORS, build_decoder, check_container, open_input, read_display_matrix
from lora_edit.video.truncation import is_file_truncated

_FALLBACK_RATE = Fraction(25)

Orientation = tuple[int, int, int, int]
"""A display matrix's linear part (a, b, c, d) with entries -1, 0 or 1: x' = a x + c y, y' = b x + d y, y downwards."""

UPRIGHT: Orientation = (1, 0, 0, 1)


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame.

    `image` is `[H, W, 3 or 4]` uint8, upright. `time` (on the file's clock) and `duration` are in seconds, None where the file states
    none. `shifts` are those of the clock's parts so far (see `Video`). `stored_frame` is the frame as stored in the file.
    """

    image: np.ndarray
    time: Fraction | None
    duration: Fraction | None
    shifts: tuple[Fraction, ...]
    stored_frame: av.VideoFrame


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream. Raises `VideoError` when it is not a video."""
    try:
        container = open_input(path)
    except READ_ERRORS as error:
        raise VideoError(f"{path}: not a video that can be read ({_describe_error(error)}); export it again, for example as MP4") from error
    with container:
        check_container(path, container)
        # Cover art in an audio file is stored as a video stream of one frame.
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            kind = "sound only" if container.streams.audio else "no video stream"
            raise VideoError(f"{path}: {kind}; give a file with video")
        if streams[0].codec_context is None:
            raise VideoError(f"{path}: its video codec is unknown; convert it, for example to MP4")
        width, height = streams[0].width or 0, streams[0].height or 0
        if width * height > MAX_PIXELS:
            raise VideoError(f"{path}: states frames of {width}x{height}, above {MAX_PIXELS:,} pixels; scale it down, or export it again")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def get_frame_rate(stream: VideoStream) -> Fraction:
    """Frames per second as stated in the file; a usual rate where it states none or an implausible one."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return next((rate for rate in rates if rate and MIN_FRAME_RATE <= rate <= MAX_FRAME_RATE), _FALLBACK_RATE)


def decode_first_frame(path: Path, container: InputContainer, stream: VideoStream) -> av.VideoFrame:
    """Decode the first frame of an open file. Raises `VideoError` when there is none."""
    decode = build_decoder(stream)
    try:
        for packet in container.demux():
            if packet.stream is stream:
                for frame in decode(packet):
                    return frame
    except READ_ERRORS as error:
        raise _build_damage_error(path, 0, 0, _describe_error(error)) from error
    raise VideoError(f"{path}: holds no frames; export it again")


def is_transport_stream(container: InputContainer) -> bool:
    """Whether the file is an MPEG transport or program stream; its clock may jump where recordings were joined."""
    return container.format.name in ("mpegts", "mpeg")


def decode_range(path: Path, container: InputContainer, stream: VideoStream, start: int, stop: int | None) -> Iterator[DecodedFrame]:
    """Decode frames `start` to `stop - 1` (to the end when None), and no further than needed.

    Raises `VideoError` with the number of readable frames where the file is damaged or truncated, and with the clip's length where the
    range exceeds it.
    """
    count = 0
    end_detector = _EarlyEndDetector(container, stream)
    clock = ContinuousClock(1 / get_frame_rate(stream), is_transport_stream(container))
    decode = build_decoder(stream)
    try:
        for packet in container.demux():
            end_detector.add_packet(packet)
            if packet.stream is not stream:
                continue
            for frame in decode(packet):
                if frame.is_corrupt and count >= start:
                    raise _build_damage_error(path, count, start, "damaged frame")
                time, duration = _read_frame_time(frame, stream, clock)
                if count >= start:
                    yield DecodedFrame(turn_upright(frame_to_array(frame), read_orientation(frame)), time, duration, clock.shifts, frame)
                count += 1
                if stop is not None and count >= stop:
                    return
    except VideoError:
        raise
    except READ_ERRORS as error:
        # The latter number where the decoder's threads cannot start.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.ENOMEM, errno.EAGAIN):
            raise MemoryError(f"{path}: memory ran out in decoding") from error
        raise _build_damage_error(path, count, start, _describe_error(error)) from error
    if end_detector.ended_early() and is_file_truncated(path):
        raise _build_damage_error(path, count, start, "the end of the file is missing")
    check_range(path, start, stop, count)


def check_range(path: Path, start: int, stop: int | None, count: int) -> None:
    """Raise `VideoError` with the clip's length where the range exceeds it."""
    if count == 0:
        raise VideoError(f"{path}: holds no frames; export it again")
    if start >= count:
        raise VideoError(f"{path}: start {start} is past the end; the clip has {count} frames, numbered from 0; choose a smaller start")
    if stop is not None and stop > count:
        raise VideoError(
            f"{path}: {stop - start} frames from start {start} pass the end; the clip has {count} frames; ask for {count - start} or fewer"
        )


def read_orientation(frame: av.VideoFrame) -> Orientation:
    """Read the rotation that players apply to the frame. Angles that are not multiples of 90 degrees count as upright."""
    data = read_display_matrix(frame)
    if data is None:
        return UPRIGHT
    matrix = np.frombuffer(data, dtype=np.int32)[[0, 1, 3, 4]] / 65536
    a, b, c, d = (int(value) for value in np.rint(matrix))
    return (a, b, c, d) if sorted((abs(a), abs(b))) == [0, 1] and abs(a) == abs(d) and abs(b) == abs(c) else UPRIGHT


def get_clockwise_degrees(matrix: Orientation) -> int:
    """Clockwise rotation that a player applies to the stored image (before any mirroring): 0, 90, 180 or 270 degrees."""
    a, b, _, _ = matrix
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[(a, b)]


def turn_upright(image: np.ndarray, matrix: Orientation) -> np.ndarray:
    """Rotate or mirror an image or plane `[H, W, ...]` as players do."""
    a, _, c, d = matrix
    if a == 0:  # rows become columns
        image = image.swapaxes(0, 1)
        a, d = c, matrix[1]
    return image[:: d or 1, :: a or 1]


class _EarlyEndDetector:
    """Detector of files that end before what their header states."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._stream = stream
        self._num_stated_packets = stream.frames
        self._num_packets = 0
        self._last_end = Fraction(0)
        # Matroska states no frame count, but a duration, which begins at 0 wherever the first frame lies.
        stated_duration = container.duration if "matroska" in container.format.name else None
        self._stated_end = None if stated_duration is None else Fraction(stated_duration, av.time_base)

    def add_packet(self, packet: Packet[Stream]) -> None:
        if packet.size and packet.stream is self._stream:
            self._num_packets += 1
        if packet.size and packet.pts is not None and packet.time_base:
            self._last_end = max(self._last_end, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base))

    def ended_early(self) -> bool:
        """Whether less was read than the header states.

        Complete files may state too much as well: edit lists hide frames, and AVI counts dropped ones.
        """
        if self._stated_end is not None:
            return self._last_end + Fraction(3, 2) / get_frame_rate(self._stream) + Fraction(1, 20) < self._stated_end
        return self._num_packets < self._num_stated_packets


def _read_frame_time(frame: av.VideoFrame, stream: VideoStream, clock: ContinuousClock) -> tuple[Fraction | None, Fraction | None]:
    """Read a frame's time on the continuous clock and its duration, in seconds."""
    tick = Fraction(frame.time_base or stream.time_base or 0)
    duration = frame.duration * tick if frame.duration and frame.duration > 0 else None
    return None if frame.pts is None else clock.map_time(frame.pts * tick, duration), duration


def _build_damage_error(path: Path, count: int, start: int, reason: str) -> VideoError:
    readable = max(count - start, 0)
    remedy = f"edit only those (frames = {readable}) or export it again" if readable else "export it again"
    return VideoError(f"{path}: {reason}; only {count} frames could be read; {remedy}")


def _describe_error(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
