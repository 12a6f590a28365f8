"""Conversion of frame times to integer ticks of a time base, as stored in files."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from lora_edit.types import Video

_FINE_TIME_BASE = Fraction(1, 90_000)  # MPEG's clock: divides milliseconds and the common frame rates
_STEADY_TOLERANCE = 0.0011  # seconds; Matroska rounds times to milliseconds, and a constant rate read from it still counts as constant


@dataclass(frozen=True)
class Ticks:
    """Start and duration of every frame in units of `time_base` seconds."""

    time_base: Fraction
    starts: tuple[int, ...]
    durations: tuple[int, ...]


def compute_frame_ticks(video: Video) -> Ticks:
    """Compute the ticks of a clip: one per frame for a constant rate, otherwise the frames' times on a fine time base."""
    period = 1 / video.fps
    tolerance = min(_STEADY_TOLERANCE, float(period) / 4)
    if video.last_duration is None and all(abs(time - index * float(period)) <= tolerance for index, time in enumerate(video.times)):
        return Ticks(period, tuple(range(video.num_frames)), (1,) * video.num_frames)
    return quantize_frame_times(video, _FINE_TIME_BASE)


def compute_end_time(video: Video) -> float:
    """Compute the end of the last frame, in seconds from the start of the first one."""
    return video.times[-1] + (float(1 / video.fps) if video.last_duration is None else video.last_duration)


def quantize_frame_times(video: Video, time_base: Fraction) -> Ticks:
    """Quantize the frames' times to a time base; every frame lasts at least one tick."""
    starts: list[int] = []
    for time in (*video.times, compute_end_time(video)):
        tick = round(time / float(time_base))
        starts.append(max(tick, starts[-1] + 1) if starts else tick)
    durations = tuple(later - earlier for earlier, later in pairwise(starts))
    return Ticks(time_base, tuple(starts[:-1]), durations)
