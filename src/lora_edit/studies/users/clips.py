"""The clips of a user study: finds and checks a folder with one subfolder per clip before anything is written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lora_edit.errors import InputError, VideoError
from lora_edit.reporting import Reporter
from lora_edit.types import hash_content
from lora_edit.video.images import IMAGE_SUFFIXES
from lora_edit.video.read import read_image, read_video

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif")
SOURCE, FIRST_FRAME = "source", "first_frame"


@dataclass(frozen=True)
class ClipResults:
    """One clip: its source, its edited first frame, and the result of every method by name, in order of names."""

    name: str
    source: Path
    first_frame: Path
    results: dict[str, Path]

    @property
    def videos(self) -> list[Path]:
        """The source and all results."""
        return [self.source, *self.results.values()]


def find_clips(folder: Path) -> list[ClipResults]:
    """Find the clips in order of their names; each has a result of the same two or more methods.

    Hidden entries, files outside the subfolders and files that are neither video nor picture are ignored. Raises `InputError` for any
    other deviation.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder with one subfolder per clip")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise InputError(
            f"{folder}: contains no cases; give one subfolder per clip, each with source.mp4, first_frame.png and METHOD.mp4 files"
        )
    clips = [_find_clip(folder / name) for name in names]
    methods = sorted({method for clip in clips for method in clip.results})
    for clip in clips:
        for method in methods:
            if method not in clip.results:
                raise InputError(f"{folder / clip.name}: no result of method {method}, which other clips have; add {method}.mp4")
    if len(methods) < 2:
        content = f"only method {methods[0]}" if methods else "no method's result"
        raise InputError(f"{folder}: has {content}; add a video per method to every clip, at least two")
    return clips


def _find_clip(folder: Path) -> ClipResults:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    videos = _index_by_stem([path for path in files if path.suffix.lower() in VIDEO_SUFFIXES])
    pictures = _index_by_stem([path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.stem == FIRST_FRAME])
    if SOURCE not in videos:
        raise InputError(f"{folder}: the source clip is missing; add it as source.mp4")
    if FIRST_FRAME not in pictures:
        raise InputError(f"{folder}: the edited first frame is missing; add it as first_frame.png")
    source = videos.pop(SOURCE)
    return ClipResults(folder.name, source, pictures[FIRST_FRAME], videos)


def _index_by_stem(paths: list[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise InputError(f"{path}: {by_stem[path.stem].name} has the same name; keep one of them")
        by_stem[path.stem] = path
    return by_stem


def check_clips(clips: list[ClipResults], reporter: Reporter) -> None:
    """Read every picture and every frame once; add a note for each result that is shorter or longer than its source.

    Raises `VideoError` for a video that cannot be read to its end.
    """
    for number, clip in enumerate(clips):
        read_image(clip.first_frame)
        durations = [_read_duration(path) for path in clip.videos]
        for path, duration in zip(clip.videos, durations, strict=True):
            if abs(duration - durations[0]) > 0.1:
                reporter.note(
                    f"{path}: {duration:.2f} s long, the source {durations[0]:.2f} s; "
                    "on the page the shorter one waits for the longer one to end"
                )
        reporter.step("check", number + 1, len(clips), clip.name)


def _read_duration(path: Path) -> float:
    video = read_video(path)
    return float(video.num_frames / video.fps)


def compute_study_id(clips: list[ClipResults], seed: int) -> str:
    """Compute sixteen hex digits from every file, name and seed, which tie answers to their page."""
    parts = [str(seed)]
    for clip in clips:
        parts.append(clip.name)
        for path in (clip.first_frame, *clip.videos):
            try:
                with path.open("rb") as file:
                    parts += [path.stem, hashlib.file_digest(file, "sha256").hexdigest()]
            except OSError as error:
                raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return hash_content(*parts)[:16]
