"""Chapters of a source: reading, cutting to the clip's range, and writing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from av.container import InputContainer, OutputContainer

from lora_edit.limits import MAX_CHAPTERS
from lora_edit.types import Chapter, Video
from lora_edit.video.timing import compute_end_time

_TICK = Fraction(1, 1000)  # second; what Matroska and MP4 store
_MIN_DURATION = 0.02  # seconds; shorter chapters at the range's border may come from rounding


def read_chapters(container: InputContainer) -> tuple[Chapter, ...]:
    """Read the chapters of a file, timed on the file's own clock; none of a file with more than `MAX_CHAPTERS`, a fault of its header."""
    chapters = container.chapters()
    if len(chapters) > MAX_CHAPTERS:
        return ()
    return tuple(
        Chapter(each["metadata"].get("title", ""), float(each["start"] * tick), float(each["end"] * tick))
        for each in chapters
        if (tick := each["time_base"])
    )


def cut_chapters(chapters: tuple[Chapter, ...], begin: float, end: float) -> tuple[Chapter, ...]:
    """Cut chapters to the range from `begin` to `end` seconds and count their times from `begin`.

    A single chapter without a title is dropped.
    """
    shortened = (
        replace(each, begin=round(max(each.begin, begin) - begin, 6), end=round(min(each.end, end) - begin, 6)) for each in chapters
    )
    chapters_in_range = tuple(each for each in shortened if each.end - each.begin >= _MIN_DURATION)
    return chapters_in_range if len(chapters_in_range) > 1 or any(each.title for each in chapters_in_range) else ()


def add_chapters(output: OutputContainer, video: Video) -> None:
    """Add the clip's chapters to `output`; call it before the first packet is written."""
    if not video.chapters:
        return
    clip_end = compute_end_time(video)
    output.set_chapters(
        [
            {
                "id": number,
                "start": round(each.begin / _TICK),
                "end": round(min(each.end, clip_end) / _TICK),
                "time_base": _TICK,
                "metadata": {"title": each.title} if each.title else {},
            }
            for number, each in enumerate(video.chapters)
        ]
    )
