"""Video files that can be written: suffixes, containers and codecs. Imports no library, so that paths are checked before heavy imports."""

from __future__ import annotations

from pathlib import Path

from lora_edit.errors import VideoError
from lora_edit.video.settings import Codec

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}
CODECS: dict[str, tuple[Codec, ...]] = {
    ".mp4": ("h264", "h264-420", "h264-444"),
    ".mov": ("h264", "h264-420", "h264-444", "prores"),
    ".mkv": ("h264", "h264-420", "h264-444", "prores", "ffv1"),
    ".webm": ("h264",),  # the default codec's name: WebM always gets VP9
    ".gif": ("h264",),  # likewise
}


def check_output_name(path: Path) -> None:
    """Raise `VideoError` for an output that names neither a file nor a folder of its own."""
    if path.name in ("", ".."):
        raise VideoError(f"{path}: names neither a file nor a folder of its own; give a name, such as result.mp4")


def check_format(path: Path) -> None:
    """Raise `VideoError` when the suffix of `path` is not that of a video file that can be written. Folders have none."""
    suffix = path.suffix.lower()
    if suffix and suffix not in FORMATS and not path.is_dir():
        raise VideoError(f"{path}: cannot write {suffix}; end the name in {', '.join(FORMATS)}, or give a folder name for PNG frames")


def check_codec(path: Path, codec: Codec) -> None:
    """Raise `VideoError` when the container of `path`, whose suffix is one of `FORMATS`, cannot hold the codec."""
    suffix = path.suffix.lower()
    if suffix and codec not in CODECS[suffix]:
        suffixes = ", ".join(container_suffix for container_suffix, codecs in CODECS.items() if codec in codecs)
        raise VideoError(f"{path}: {suffix} cannot hold codec {codec}; end the name in {suffixes}, or leave the codec out")


def check_overwrite(path: Path, *, overwrite: bool) -> None:
    """Raise `VideoError` for a path that exists, unless it may be overwritten."""
    if path.exists() and not overwrite:
        raise VideoError(f"{path}: exists already; choose another name or add --overwrite")
