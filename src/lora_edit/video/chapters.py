"""Chapters of a source, cut to the clip's range, into a result."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from av.container import InputContainer, OutputContainer

from lora_edit.types import Chapter, Video
from lora_edit.video.timing import compute_end_time

_TICK = Fraction(1, 1000)  # second; what Matroska and MP4 store
_MIN_DURATION = 0.02  # seconds; what is left of a chapter at the range's border may be an accident of rounding


def read_chapters(container: InputContainer) -> tuple[Chapter, ...]:
    """The file's chapters on its own clock."""
    return tuple(
        Chapter(each["metadata"].get("title", ""), float(each["start"] * tick), float(each["end"] * tick))
        for each in container.chapters()
        if (tick := each["time_base"])
    )


def cut_chapters(chapters: tuple[Chapter, ...], begin: float, end: float) -> tuple[Chapter, ...]:
    """What of the chapters lies between two times in seconds, counted from the first of these on; one alone without a title is none."""
    cut = (replace(each, begin=round(max(each.begin, begin) - begin, 6), end=round(min(each.end, end) - begin, 6)) for each in chapters)
    inside = tuple(each for each in cut if each.end - each.begin >= _MIN_DURATION)
    return inside if len(inside) > 1 or any(each.title for each in inside) else ()


def add_chapters(output: OutputContainer, video: Video) -> None:
    """Give `output` the clip's chapters; before its first packet."""
    if not video.chapters:
        return
    last = compute_end_time(video)
    output.set_chapters(
        [
            {
                "id": number,
                "start": round(each.begin / _TICK),
                "end": round(min(each.end, last) / _TICK),
                "time_base": _TICK,
                "metadata": {"title": each.title} if each.title else {},
            }
            for number, each in enumerate(video.chapters)
        ]
    )
