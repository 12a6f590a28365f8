"""Adapter for PyAV: its errors, limits, file names that look like URLs, unknown kinds of side data, decoders that skip alpha, filters."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.sidedata import sidedata
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from lora_edit.errors import VideoError
from lora_edit.limits import MAX_PIXELS, MAX_STREAMS
from lora_edit.types import FieldOrder

READ_ERRORS = (FFmpegError, OSError, ValueError, RuntimeError, MemoryError, ArithmeticError, LookupError, TypeError)
"""What PyAV raises for damaged files: FFmpeg's errors, and Python's where a header has values that it does not expect."""

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that support WebM's alpha, which FFmpeg's native ones ignore."""


PLAYLIST_FORMATS = frozenset({"avisynth", "concat", "dash", "hls", "imf", "rtp", "rtsp", "sdp", "vapoursynth"})
"""FFmpeg's formats of playlists and scripts, which name other files or hosts: a file from elsewhere could show files of this computer."""


def open_input(path: Path) -> InputContainer:
    """Open a file for reading. Raises `READ_ERRORS`, also for a file with more than `MAX_STREAMS` streams."""
    return av.open(_to_file_url(path), options={"max_streams": str(MAX_STREAMS)})


def check_container(path: Path, container: InputContainer) -> None:
    """Raise `VideoError` for a playlist, and for a video without a decoder."""
    if PLAYLIST_FORMATS & set(container.format.name.split(",")):
        raise VideoError(f"{path}: is a playlist, which names other files; give the video itself")
    if any(stream.codec_context is None for stream in container.streams.video):
        raise VideoError(f"{path}: there is no decoder for this kind of video; export it again, for example as MP4")


def open_output(path: Path, container_format: str, options: dict[str, str] | None = None) -> OutputContainer:
    """Open a file for writing in FFmpeg's format `container_format`, without random identifiers and version strings."""
    return av.open(_to_file_url(path), "w", format=container_format, options=options or {}, container_options={"fflags": "+bitexact"})


def read_display_matrix(frame: VideoFrame) -> bytes | None:
    """Read the display matrix of a frame, nine 32-bit numbers by which players rotate it; None where there is none."""
    kinds: Any = sidedata.Type
    if not hasattr(kinds, "_missing_") or kinds._missing_.__func__ is not _create_unknown_member:
        # FFmpeg has kinds of side data (such as EXIF) that are missing in PyAV 18. If a frame has one, reading any side data fails.
        kinds._missing_ = classmethod(_create_unknown_member)
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else bytes(cast(bytes, data))


def build_decoder(stream: VideoStream) -> Callable[[Packet[Stream]], list[VideoFrame]]:
    """Build the function that decodes the stream's packets to frames, including alpha."""
    limits = {"max_pixels": str(MAX_PIXELS)}  # of each frame, whatever the file's header states
    stream.codec_context.options = {**stream.codec_context.options, **limits}
    name = _ALPHA_DECODERS.get(get_codec_name(stream), "")
    if name and {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") == "1":
        context = cast(VideoCodecContext, av.CodecContext.create(name, "r"))
        context.options = limits
        return lambda packet: context.decode(packet if packet.size else None)
    return lambda packet: cast(list[VideoFrame], packet.decode())


def run_filters(frame: VideoFrame, filters: list[tuple[str, str]]) -> VideoFrame:
    """Apply FFmpeg filters, given as (name, arguments), to a frame."""
    graph = av.filter.Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))
    for name, arguments in filters:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    time, frame.pts = frame.pts, 0
    graph.push(frame)
    frame.pts = time
    filtered = graph.pull()
    assert isinstance(filtered, VideoFrame)
    filtered.pts = time
    return filtered


def detect_field_order(frame: VideoFrame) -> FieldOrder:
    """Detect which field of the frame comes first, with FFmpeg's `select` filter, because PyAV does not expose it."""
    if not frame.interlaced_frame:
        return "progressive"
    try:
        run_filters(frame, [("select", "not(interlace_type-TOPFIRST)")])
    except BlockingIOError:  # the frame was not selected
        return "bottom"
    return "top"


def set_field_order(frame: VideoFrame, order: FieldOrder) -> VideoFrame:
    """Mark the frame as progressive or with its first field; encoders use the mark of each frame."""
    return run_filters(frame, [("setfield", {"progressive": "prog", "top": "tff", "bottom": "bff"}[order])])


def get_codec_name(stream: Stream) -> str:
    """Canonical name of the codec, such as `mp3`; the decoder's own name may differ (`mp3float`)."""
    return stream.codec_context.codec.canonical_name


def _create_unknown_member(kinds: Any, value: int) -> Any:
    member = object.__new__(kinds)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


def _to_file_url(path: Path) -> str:
    """Prefix the path with its protocol, because FFmpeg parses a file name up to a colon as one."""
    return f"file:{path}"
